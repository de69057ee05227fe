"""Mixers whose state is a sum of outer products do the same where positions are sharded over devices."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from recjax.mixers.lightnet import LightNet
from recjax.mixers.mamba2 import Mamba2
from recjax.mixers.stack import Encoder, Stack
from tests.mixers import plain


def test_sharded_over_time_equals_one_device():
    pattern = (LightNet(heads=2), Mamba2(head_width=8, states=4))
    module = Encoder(Stack(pattern, 2, plain.WIDTH, True, "pre", plain.WIDTH))
    x, context = jnp.asarray(plain.inputs()), plain.context()
    params = jax.jit(module.init)(jax.random.key(0), x, context)

    def loss(params, x, context):
        y: Any = module.apply(params, x, context)
        y = jnp.where(context.valid[..., None], y, 0)
        return jnp.sum(jnp.sin(y)), y

    graded = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    expected = graded(params, x, context)
    mesh = jax.make_mesh((2, 1, 4), ("data", "model", "seq"), axis_types=(AxisType.Auto,) * 3)
    with jax.set_mesh(mesh):
        x, context = jax.device_put((x, context), NamedSharding(mesh, PartitionSpec("data", "seq")))
        got = graded(jax.device_put(params, NamedSharding(mesh, PartitionSpec())), x, context)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=2e-5), got, expected)
