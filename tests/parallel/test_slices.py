"""Over several TPU slices, only the data axis leaves a slice."""

from types import SimpleNamespace

import numpy as np
import pytest
from jax.experimental import mesh_utils

from recjax.parallel import mesh as meshes
from recjax.parallel.mesh import MeshShape
from recjax.typing import InputError

DEVICES = [SimpleNamespace(id=number, slice_index=number // 4, platform="none", device_kind="") for number in range(8)]


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    """A mesh of devices that are not JAX's, in their order inside a slice."""
    monkeypatch.setattr(meshes, "Mesh", lambda grid, axes, axis_types: SimpleNamespace(devices=grid, axis_names=axes))
    monkeypatch.setattr(
        mesh_utils, "create_device_mesh", lambda shape, devices, **options: np.array(devices).reshape(shape)
    )


def test_the_data_axis_goes_over_slices():
    slices = np.vectorize(lambda device: device.slice_index)(MeshShape(data=4, model=2).build(DEVICES).devices)
    assert slices.tolist() == [[[0], [0]], [[0], [0]], [[1], [1]], [[1], [1]]]


def test_other_axes_stay_inside_one():
    with pytest.raises(InputError, match=r"mesh.data is 1, which 2 slices do not divide"):
        MeshShape(data=1, model=8).build(DEVICES)
