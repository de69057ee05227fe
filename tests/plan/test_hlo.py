"""Programs are read right: loops, groups of devices, products, memory traffic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from recjax.ops.loops import bounded_loop
from recjax.parallel.mesh import MeshShape
from recjax.plan import costs, hlo
from recjax.plan.collectives import _group, collectives


@pytest.fixture(scope="module")
def mesh():
    return MeshShape(data=2, model=4).build()


def compiled(mesh, function, *inputs):
    """The program of a function of float32 arrays given as (shape, axes)."""
    arrays = [
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, P(*axes))) for shape, axes in inputs
    ]
    with jax.set_mesh(mesh):
        return hlo.read(jax.jit(function).lower(*arrays).compile().as_text())


def test_products_count_as_often_as_their_loop_runs(mesh):
    def loops(x, w):
        x, _ = jax.lax.scan(lambda x, _: (x @ w, None), x, None, length=7)
        return bounded_loop(jnp.sum(x > 0), 5, lambda _, x: jnp.tanh(x @ w), x)

    program = compiled(mesh, loops, ((16, 64), ("data", None)), ((64, 64), ()))
    assert costs.products(program) == ((7 + 5) * 2 * 8 * 64 * 64,) * 2
    assert program.unknown == ()


def test_a_loop_of_unknown_length_counts_once_and_is_named(mesh):
    def endless(x, w):
        return jax.lax.while_loop(lambda x: jnp.sum(x) > 0, lambda x: jnp.tanh(x @ w), x)

    program = compiled(mesh, endless, ((16, 64), ()), ((64, 64), ()))
    assert costs.products(program)[0] == 2 * 16 * 64 * 64
    assert len(program.unknown) == 1 and "while" in program.unknown[0]


def test_exchanges_say_kind_axis_and_bytes(mesh):
    def island(x):
        whole = jax.lax.all_gather(x, "data", tiled=True)  # [16, 8]
        part = jax.lax.psum_scatter(whole, "model", tiled=True)  # [4, 8]
        return jax.lax.ppermute(part, "data", [(0, 1), (1, 0)]), jax.lax.psum(x, ("data", "model"))

    def exchange(x):
        return jax.shard_map(island, in_specs=P("data"), out_specs=(P(("data", "model")), P()), check_vma=False)(x)

    found = {one.kind: one for one in collectives(compiled(mesh, exchange, ((16, 8), ("data", None))), mesh)}
    assert {kind: (one.axes, one.link, one.devices, one.count) for kind, one in found.items()} == {
        "all-gather": ("data", "ici", 2, 1),
        "reduce-scatter": ("model", "ici", 4, 1),
        "collective-permute": ("data", "ici", 2, 1),
        "all-reduce": ("data+model", "ici", 8, 1),
    }
    assert (found["all-gather"].bytes, found["all-gather"].sent) == (16 * 8 * 4, 16 * 8 * 4 // 2)
    assert (found["reduce-scatter"].bytes, found["reduce-scatter"].sent) == (16 * 8 * 4, 16 * 8 * 4 * 3 // 4)
    assert (found["collective-permute"].bytes, found["collective-permute"].sent) == (4 * 8 * 4, 4 * 8 * 4)
    assert (found["all-reduce"].bytes, found["all-reduce"].sent) == (8 * 8 * 4, 2 * 8 * 8 * 4 * 7 // 8)


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("replica_groups={{0,4},{1,5},{2,6},{3,7}}, use_global_device_ids=true", [0, 4]),
        ("replica_groups=[2,4]<=[8], use", [0, 1, 2, 3]),
        ("replica_groups=[4,2]<=[2,4]T(1,0), use", [0, 4]),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, use", [0, 1, 2, 3]),
        (
            "replica_groups=mesh['axis_0'=4,'axis_1'=1,'axis_2'=2], device_ids=([2,4]T(1,0)) {'axis_0'}, use",
            [0, 1, 2, 3],
        ),
        ("replica_groups=mesh['axis_0'=8] {'axis_0':(2)4}, use", [0, 1, 2, 3]),
        ("replica_groups=mesh['axis_0'=8] {'axis_0':(1)2}, use", [0, 4]),
        ("replica_groups={}, use", list(range(8))),
    ],
)
def test_groups_in_every_notation(mesh, text, group):
    assert _group("all-reduce", text, mesh) == group


class Slices:
    """A mesh of two slices of four devices."""

    axis_names = ("data", "model")
    devices = np.array([type("Device", (), {"slice_index": number // 4})() for number in range(8)]).reshape(4, 2)


REDUCE = """ENTRY %main (a: f32[8,4]) -> f32[8,4] {
  %a = f32[8,4]{1,0:T(8,128)} parameter(0)
  %one = f32[8,4]{1,0:T(8,128)} all-reduce(%a), replica_groups={{0,4}}, to_apply=%add
  ROOT %two = f32[8,4]{1,0:T(8,128)} all-reduce(%one), replica_groups={{0,1}}, to_apply=%add
}
"""


def test_a_group_that_spans_slices_uses_the_slow_link():
    found = collectives(hlo.read(REDUCE), Slices)  # pyright: ignore[reportArgumentType]
    assert {(one.axes, one.link) for one in found} == {("data", "dcn"), ("model", "ici")}


SEND = """ENTRY %main (a: f32[64,8,128]) -> token[] {
  %a = f32[64,8,128]{2,1,0:T(8,128)} parameter(0)
  %after = token[] after-all()
  %send = (f32[64,8,128]{2,1,0:T(8,128)}, u32[], token[]) send(%a, %after), channel_id=2, is_host_transfer=true, \
frontend_attributes={_xla_host_transfer_rendezvous="all-reduce.1_0",_xla_megascale_transfer_type="ALL_REDUCE"}
  ROOT %done = token[] send-done(%send), channel_id=2, is_host_transfer=true
}
"""


def test_what_hosts_send_between_slices_is_an_exchange_too():
    (found,) = collectives(hlo.read(SEND), Slices)  # pyright: ignore[reportArgumentType]
    assert (found.kind, found.axes, found.link, found.devices) == ("all-reduce", "data", "dcn", 2)
    assert found.bytes == found.sent == 64 * 8 * 128 * 4


# XLA:TPU writes a reduce-scatter as an all-reduce, of which a part is cut out inside the same instruction.
SCATTER = """%all-reduce-scatter (p: f32[8,4]) -> f32[4,4] {
  %p = f32[8,4]{1,0:T(8,128)} parameter(0)
  %sum = f32[8,4]{1,0:T(8,128)} all-reduce(%p), replica_groups={{0,2},{1,3},{4,6},{5,7}}, to_apply=%add
  %at = u32[] constant(0)
  ROOT %part = f32[4,4]{1,0:T(8,128)} dynamic-slice(%sum, %at, %at), dynamic_slice_sizes={4,4}
}

ENTRY %main (a: f32[8,4]) -> f32[4,4] {
  %a = f32[8,4]{1,0:T(8,128)} parameter(0)
  ROOT %f = f32[4,4]{1,0:T(8,128)} fusion(%a), kind=kCustom, calls=%all-reduce-scatter
}
"""


def test_a_sum_of_which_a_part_is_kept_is_a_reduce_scatter():
    (found,) = collectives(hlo.read(SCATTER), Slices)  # pyright: ignore[reportArgumentType]
    assert (found.kind, found.axes, found.devices, found.sent) == ("reduce-scatter", "data", 2, 8 * 4 * 4 // 2)


# XLA:TPU writes a batched product as a convolution with the batch in dilated windows, and names where arrays lie: S(1)
# is memory on the chip.
TPU = """%fused (p0: f32[256,2,8,64], p1: f32[256,2,64,200]) -> f32[256,2,8,200] {
  %p0 = f32[256,2,8,64]{3,2,1,0:T(8,128)} parameter(0)
  %p1 = f32[256,2,64,200]{3,2,1,0:T(8,128)S(1)} parameter(1)
  ROOT %c = f32[256,2,8,200]{3,2,1,0:T(8,128)} convolution(%p0, %p1), \
window={size=256x2 stride=255x1 lhs_dilate=256x2}, dim_labels=01bf_01io->01bf, operand_precision={highest,highest}
}

ENTRY %main (a: f32[256,2,8,64], b: f32[256,2,64,200]) -> f32[256,2,8,200] {
  %a = f32[256,2,8,64]{3,2,1,0:T(8,128)} parameter(0)
  %b = f32[256,2,64,200]{3,2,1,0:T(8,128)S(1)} parameter(1)
  ROOT %f = f32[256,2,8,200]{3,2,1,0:T(8,128)} fusion(%a, %b), kind=kOutput, calls=%fused
}
"""


def test_products_and_traffic_of_a_tpu_program():
    program = hlo.read(TPU)
    product = 2 * 256 * 2 * 8 * 64 * 200
    assert costs.products(program) == (product, 6 * product)
    assert costs.traffic(program) == 4 * (256 * 2 * 8 * 64 + 256 * 2 * 8 * 200)


# Fused instructions are made of such: the rows of a table that a product needs are cut out by one inside it.
NESTED = """%cut (p0: f32[1000,64], p1: s32[]) -> f32[8,64] {
  %p0 = f32[1000,64]{1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %rows = f32[8,64]{1,0} dynamic-slice(%p0, %p1, %zero), dynamic_slice_sizes={8,64}
}

%renamed (p0: f32[8,64]) -> f32[8,64] {
  %p0 = f32[8,64]{1,0} parameter(0)
  ROOT %same = f32[8,64]{1,0} bitcast(%p0)
}

%fused (x: f32[8,64], table: f32[1000,64], at: s32[]) -> f32[8,8] {
  %x = f32[8,64]{1,0} parameter(0)
  %x2 = f32[8,64]{1,0} fusion(%x), kind=kLoop, calls=%renamed
  %table = f32[1000,64]{1,0} parameter(1)
  %at = s32[] parameter(2)
  %part = f32[8,64]{1,0} fusion(%table, %at), kind=kLoop, calls=%cut
  ROOT %c = f32[8,8]{1,0} convolution(%x2, %part), dim_labels=bf_oi->bf
}

ENTRY %main (x: f32[8,64], table: f32[1000,64], at: s32[]) -> f32[8,8] {
  %x = f32[8,64]{1,0} parameter(0)
  %table = f32[1000,64]{1,0} parameter(1)
  %at = s32[]{:S(6)} parameter(2)
  ROOT %f = f32[8,8]{1,0} fusion(%x, %table, %at), kind=kOutput, calls=%fused
}
"""


def test_a_slice_inside_an_instruction_inside_an_instruction_is_not_the_table():
    assert costs.traffic(hlo.read(NESTED)) == 4 * (8 * 64 + 8 * 64 + 8 * 8)


def test_a_row_taken_or_put_is_what_a_table_costs(mesh):
    def update(table, row):
        return jax.lax.dynamic_update_slice(
            table, jnp.tanh(jax.lax.dynamic_slice(table, (5, 0), (1, 64))) + row, (5, 0)
        )

    table = jax.ShapeDtypeStruct((10_000, 64), jnp.float32)
    row = jax.ShapeDtypeStruct((1, 64), jnp.float32)
    program = hlo.read(jax.jit(update, donate_argnums=0).lower(table, row).compile().as_text() or "")
    assert costs.traffic(program) < 10 * 64 * 4
