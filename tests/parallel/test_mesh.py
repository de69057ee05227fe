import jax
import pytest
from jax.sharding import AxisType

from recjax.parallel.mesh import MeshShape
from recjax.typing import InputError


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        (MeshShape(), (8, 1, 1)),
        (MeshShape(-1, 2, 1), (4, 2, 1)),
        (MeshShape(2, -1, 2), (2, 2, 2)),
        (MeshShape(1, 1, -1), (1, 1, 8)),
        (MeshShape(2, 4, 1), (2, 4, 1)),
    ],
)
def test_sizes_and_axes(shape, sizes):
    mesh = shape.build()
    assert tuple(mesh.shape.items()) == tuple(zip(("data", "model", "seq"), sizes, strict=True))
    assert mesh.axis_types == (AxisType.Auto,) * 3
    assert mesh.devices.size == 8


def test_some_of_the_devices():
    mesh = MeshShape(model=2).build(jax.devices()[4:6])
    assert set(mesh.devices.flat) == set(jax.devices()[4:6])
    assert MeshShape(1, 1, 1).build(jax.devices()[:1]).devices.size == 1


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((-1, 3, 1), "mesh data=-1, model=3, seq=1: 8 devices cannot be divided by 3"),
        ((2, 2, 1), "mesh data=2, model=2, seq=1 is made of 4 devices, but there are 8"),
        ((16, 1, 1), "is made of 16 devices, but there are 8"),
        ((-1, -1, 1), "at most one of them -1"),
        ((0, 1, 1), "sizes are 1 or more"),
        ((-1, -2, 1), "sizes are 1 or more"),
        ((-1, 16, 1), "8 devices cannot be divided by 16"),
    ],
)
def test_impossible_shapes_name_the_numbers(shape, message):
    with pytest.raises(InputError, match=message):
        MeshShape(*shape).build()
