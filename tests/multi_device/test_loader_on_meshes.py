import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from recjax.data.batches.derived import Prefixes, Users
from recjax.data.batches.loader import Loader, query_batches
from recjax.data.batches.partners import AlteredCopy, Partnered
from recjax.data.batches.views import Cloze, Shifted
from recjax.parallel.mesh import MeshShape
from recjax.typing import InputError
from tests.data.handmade import histories

LENGTHS = np.random.default_rng(0).integers(1, 40, 200)
SOURCE = histories(LENGTHS)
N_ITEMS = int(LENGTHS.sum())
SHAPES = [(1, 1, 1), (8, 1, 1), (4, 2, 1), (2, 4, 1), (2, 2, 2)]


def mesh_of(shape):
    return MeshShape(*shape).build(jax.devices()[: int(np.prod(shape))])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("view", [Shifted(20), Cloze(20)])
def test_the_stream_is_the_same_on_any_mesh(shape, view):
    loader = Loader(SOURCE, view, 16, None, 0, N_ITEMS)
    expected = [loader.host_batch(step) for step in range(3)]
    with jax.set_mesh(mesh_of(shape)):
        batches = list(loader.iterate(0, 3))
        jax.tree.map(np.testing.assert_array_equal, loader.batch(2), expected[2])
    for batch, reference in zip(batches, expected, strict=True):
        jax.tree.map(np.testing.assert_array_equal, batch, reference)
        for leaf in jax.tree.leaves(batch):
            assert leaf.sharding.spec == P("data")
            assert leaf.addressable_shards[0].data.shape == (16 // shape[0], 20)
            assert len(leaf.sharding.device_set) == np.prod(shape)


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_partners_and_user_numbers_are_the_same_on_any_mesh(devices):
    view = Users(Partnered(Partnered(Prefixes(Shifted(20, targets=1)), AlteredCopy(), "copy")))
    loader = Loader(SOURCE, view, 8, None, 0, N_ITEMS, packed=False)
    expected = [loader.host_batch(step) for step in (0, 99)]
    with jax.set_mesh(mesh_of((devices, 1, 1))):
        for step, reference in zip((0, 99), expected, strict=True):
            batch = loader.batch(step)
            jax.tree.map(np.testing.assert_array_equal, batch, reference)
            for leaf in jax.tree.leaves(batch):
                assert leaf.sharding.spec == P("data") and leaf.addressable_shards[0].data.shape[0] == 8 // devices
    assert {name: array.shape for name, array in expected[0].more.items() if array.ndim == 1} == {
        "users": (8,), "partner_weights": (8,), "copy_weights": (8,)
    }  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_every_user_is_asked_once_on_any_mesh(shape):
    with jax.set_mesh(mesh_of(shape)):
        batches = list(query_batches(SOURCE, Shifted(20), N_ITEMS, 30))
    found = np.concatenate([rows for _, rows in batches])
    assert sorted(found[found >= 0]) == list(range(200))
    size = -(-30 // shape[0]) * shape[0]
    for queries, rows in batches:
        assert queries.items.shape[0] == len(rows) == size
        assert queries.items.sharding.spec == queries.lengths.sharding.spec == P("data")
        lengths = np.where(rows < 0, 0, np.minimum(LENGTHS[rows], 20))
        np.testing.assert_array_equal(queries.lengths, lengths)


def test_rows_that_the_data_axis_does_not_divide_are_refused():
    for rows, message in (
        (100, r"rows = 100 cannot be divided by the data axis of the mesh \(data=8, .*rows = 96 or 104 can"),
        (4, r"rows = 4 cannot .*rows = 8 can"),
    ):
        loader = Loader(SOURCE, Shifted(20), rows, None, 0, N_ITEMS)
        with jax.set_mesh(mesh_of((8, 1, 1))):
            for use in (loader.batch, loader.host_batch, lambda step, loader=loader: loader.iterate(step, 9)):
                with pytest.raises(InputError, match=message):
                    use(0)


def test_no_transfer_is_implicit():
    loader = Loader(SOURCE, Shifted(20), 16, None, 0, N_ITEMS)
    with jax.set_mesh(mesh_of((8, 1, 1))), jax.transfer_guard("disallow"):
        loader.batch(0)
        assert len(list(loader.iterate(0, 2))) == 2
