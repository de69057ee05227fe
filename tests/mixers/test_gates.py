"""Gates at their limits, where nothing or everything is forgotten, over long histories."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.mixers.gla import GatedLinearAttention
from recjax.mixers.lightnet import LightNet
from recjax.mixers.mamba2 import Mamba2
from recjax.mixers.mixer import SeqContext
from tests.drawn import drawn_for

LENGTH, WIDTH = 4096, 4
# The layer whose inputs decide on decays, and the other parameters that take part.
GATED = {
    "gla": (GatedLinearAttention(rank=2), "decay"),
    "mamba2": (Mamba2(head_width=4, states=2), "step"),
    "lightnet": (LightNet(axes=()), "key"),
}


@pytest.mark.parametrize("name", GATED)
def test_gates_at_their_limits_are_finite_in_value_and_gradient(name):
    config, layer = GATED[name]
    module = config.build(width=WIDTH, causal=True, dtype=jnp.float32, name=None)  # pyright: ignore
    context = SeqContext(jnp.ones((1, LENGTH), jnp.int32), jnp.arange(LENGTH)[None])
    x = jax.random.normal(jax.random.key(0), (1, LENGTH, WIDTH))
    params = drawn_for(module.init, jax.random.key(1), x[:, :8], jax.tree.map(lambda leaf: leaf[:, :8], context))

    @jax.jit
    def loss(params, scale):
        gates = jax.tree.map(lambda leaf: scale * leaf, params["params"][layer])
        y = module.apply({"params": {**params["params"], layer: gates}}, x, context)
        return jnp.sum(jnp.square(y)), y

    graded = jax.jit(jax.value_and_grad(loss, has_aux=True))
    # Decays of 0 and of 1 side by side.
    for scale in (1e4, -1e4):
        (_, y), grads = graded(params, scale)
        assert np.isfinite(y).all() and np.any(y != 0, axis=-1).mean() > 0.9
        for path, leaf in jax.tree.leaves_with_path(grads):
            assert np.isfinite(leaf).all(), jax.tree_util.keystr(path)
