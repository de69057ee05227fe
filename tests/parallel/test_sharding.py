from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from recjax.parallel.mesh import MeshShape
from recjax.parallel.sharding import ShardingRules, local_rows, over_data, row_sharding, to_devices
from recjax.typing import InputError

RULES = ShardingRules(
    ((r"(^|/)items$", ("model", None)), (r"mlp/kernel$", (None, "model")), (r"kernel$|bias$|scale$", ()))
)
PARAMS = {
    "items": jnp.zeros((16, 4)),
    "encoder": {"mlp": {"kernel": jnp.zeros((4, 8)), "bias": jnp.zeros(8)}, "out": {"kernel": jnp.zeros((8, 4))}},
}
SPECS = {
    "items": P("model", None),
    "encoder": {"mlp": {"kernel": P(None, "model"), "bias": P()}, "out": {"kernel": P()}},
}


@pytest.fixture(scope="module")
def mesh():
    return MeshShape(data=2, model=4).build()


def specs(tree):
    return jax.tree.map(lambda sharding: sharding.spec, tree)


def test_the_first_matching_rule_wins(mesh):
    shardings = RULES.shard(jax.eval_shape(lambda: PARAMS), mesh)
    assert specs(shardings) == SPECS
    assert all(isinstance(leaf, NamedSharding) and leaf.mesh == mesh for leaf in jax.tree.leaves(shardings))
    placed = jax.device_put(PARAMS, shardings)
    assert placed["items"].addressable_shards[0].data.shape == (4, 4)


@jax.tree_util.register_dataclass
@dataclass
class State:
    step: jax.Array
    params: dict
    opt_state: tuple
    ema: dict | None
    key: jax.Array


def state(optimiser, ema=True):
    return State(jnp.int32(0), PARAMS, optimiser.init(PARAMS), PARAMS if ema else None, jax.random.key(0))


def test_optimiser_state_lies_where_its_parameter_lies(mesh):
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.linear_schedule(1.0, 0.0, 10)))
    full = state(optimiser)
    placed = RULES.shard_state(jax.eval_shape(lambda: full), PARAMS, mesh)
    adam = placed.opt_state[1][0]
    assert specs(adam.mu) == specs(adam.nu) == specs(placed.params) == specs(placed.ema) == SPECS
    assert adam.count.spec == placed.step.spec == placed.key.spec == P()
    assert jax.device_put(full, placed).opt_state[1][0].nu["items"].addressable_shards[0].data.shape == (4, 4)


@pytest.mark.parametrize(
    "optimiser",
    [
        optax.MultiSteps(optax.adam(1e-3), 4).gradient_transformation(),
        optax.multi_transform(
            {"table": optax.adam(1e-3), "rest": optax.sgd(1e-2, momentum=0.9)},
            lambda params: {"items": "table", "encoder": jax.tree.map(lambda _: "rest", params["encoder"])},
        ),
        optax.adafactor(1e-3, min_dim_size_to_factor=2),
    ],
    ids=["accumulating", "by part", "factored"],
)
def test_other_optimisers_lie_with_their_parameters(mesh, optimiser, request):
    full = state(optimiser, ema=False)
    placed = RULES.shard_state(full, PARAMS, mesh)
    pairs = list(zip(jax.tree.leaves(full), jax.tree.leaves(placed), strict=True))
    assert {sharding.spec for leaf, sharding in pairs if leaf.shape == (16, 4)} == {P("model", None)}
    assert any(leaf.shape == (16, 4) for leaf in jax.tree.leaves(full.opt_state)) or "factored" in request.node.name
    jax.device_put(full, placed)


def test_arrays_of_the_state_that_are_no_parameters_need_a_rule(mesh):
    with pytest.raises(InputError, match=r"no sharding rule matches history \(7,\)"):
        RULES.shard_state({"params": PARAMS, "history": jnp.zeros(7)}, PARAMS, mesh)
    rules = ShardingRules((*RULES.rules, ("history", ())))
    assert rules.shard_state({"params": PARAMS, "history": jnp.zeros(7)}, PARAMS, mesh)["history"].spec == P()


@pytest.mark.parametrize(
    ("rules", "shape", "message"),
    [
        ([("mlp", ())], (16, 4), r"no sharding rule matches encoder/items \(16, 4\); rules: 'mlp'"),
        ([], (16, 4), "rules: none"),
        (
            [("items", ("model", None))],
            (18, 4),
            r"encoder/items \(18, 4\): dimension 0 \(18\) cannot be divided by mesh axis model \(4\), as rule 'items'",
        ),
        ([("items", (("data", "model"),))], (12, 4), r"mesh axis data\+model \(8\)"),
        ([("items", (None, None, "model"))], (16, 4), r"lays out 3 dimensions, but encoder/items has shape \(16, 4\)"),
        ([("items", ("expert",))], (16, 4), "names axis 'expert', but the mesh has data, model, seq"),
    ],
)
def test_errors_name_path_shape_and_axis(mesh, rules, shape, message):
    with pytest.raises(InputError, match=message):
        ShardingRules(tuple(rules)).shard({"encoder": {"items": jnp.zeros(shape)}}, mesh)


def test_a_broken_pattern_is_refused():
    with pytest.raises(InputError, match=r"'\(items' is not a regular expression"):
        ShardingRules((("(items", ()),))


def test_rules_are_values():
    assert ShardingRules([("a", ["model"])]) == ShardingRules((("a", ("model",)),))  # pyright: ignore
    assert hash(RULES)


def test_rows_without_a_mesh():
    assert row_sharding() is None
    assert local_rows(None, 3).tolist() == [0, 1, 2]
    assert isinstance(to_devices({"a": np.zeros(3)}, None, 3)["a"], jax.Array)


def test_rows_over_the_data_axis(mesh):
    with jax.set_mesh(mesh):
        sharding = row_sharding()
    assert sharding is not None and sharding.spec == P("data")
    assert local_rows(sharding, 6).tolist() == list(range(6))
    placed = to_devices(np.arange(6), sharding, 6)
    assert {tuple(np.asarray(shard.data)) for shard in placed.addressable_shards} == {(0, 1, 2), (3, 4, 5)}


@pytest.mark.parametrize(
    ("shape", "axes", "expected"),
    [
        ((16, 4), ("model", None), P(("model", "data"), None)),
        ((12, 4), ("model", None), P("model", "data")),  # three rows a device cannot be halved
        ((3, 8), (), P(None, "data")),
        ((3, 5), (), P()),
        ((), (), P()),
        ((16,), ("data",), P("data")),
    ],
)
def test_the_data_axis_cuts_the_longest_dimension_that_it_divides(mesh, shape, axes, expected):
    assert over_data(NamedSharding(mesh, P(*axes)), shape).spec == expected
