"""Mixers whose state is a sum of outer products do the same where positions are sharded over devices."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from recjax.mixers.lightnet import LightNet
from recjax.mixers.mamba2 import Mamba2
from recjax.mixers.stack import Encoder, Stack
from tests.drawn import drawn_for
from tests.mixers import plain


def test_sharded_over_time_equals_one_device():
    pattern = (LightNet(heads=2), Mamba2(head_width=8, states=4))
    module = Encoder(Stack(pattern, 2, plain.WIDTH, True, "pre", plain.WIDTH))
    x, context = jnp.asarray(plain.inputs()), plain.context()
    params = drawn_for(module.init, jax.random.key(0), x, context)

    @jax.jit
    def apply(params, x, context):
        y: Any = module.apply(params, x, context)
        return jnp.where(context.valid[..., None], y, 0)

    expected = apply(params, x, context)
    mesh = jax.make_mesh((2, 1, 4), ("data", "model", "seq"), axis_types=(AxisType.Auto,) * 3)
    with jax.set_mesh(mesh):
        x, context = jax.device_put((x, context), NamedSharding(mesh, PartitionSpec("data", "seq")))
        got = apply(jax.device_put(params, NamedSharding(mesh, PartitionSpec())), x, context)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=2e-5)
