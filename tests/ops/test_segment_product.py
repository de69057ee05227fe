"""Linear attention over whole segments equals its masked square form, in value and gradient."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.ops.attention.segment_product import segment_product

# Segments longer than chunks, shorter, ending with them, and padding at every place.
SEGMENTS = np.array([[1] * 11 + [2] * 1 + [3] * 4 + [4] * 3, [0] * 3 + [1] * 2 + [0] * 2 + [2] * 12, [1] * 19])


def _square(q, k, v, segments):
    same = (segments[:, :, None] == segments[:, None, :]) & (segments > 0)[:, None, :]
    weights = jnp.einsum("bhlk,bhmk->bhlm", q, k) * same[:, None]
    return jnp.einsum("bhlm,bhmv->bhlv", weights, v)


@pytest.mark.parametrize("chunk", [4, 64])
def test_equals_the_square_form(chunk):
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.normal(size=(3, 2, 19, c)), jnp.float32) for c in (3, 3, 5))
    probe = jnp.asarray(rng.normal(size=v.shape), jnp.float32) * (SEGMENTS > 0)[:, None, :, None]

    def graded(form):
        def total(q, k, v):
            out = form(q, k, v)
            return jnp.sum(out * probe), out

        return jax.jit(jax.value_and_grad(total, (0, 1, 2), has_aux=True))

    run = graded(partial(segment_product, segments=jnp.asarray(SEGMENTS), chunk=chunk))
    (_, got), grads = run(q, k, v)
    (_, expected), expected_grads = graded(partial(_square, segments=SEGMENTS))(q, k, v)
    valid = (SEGMENTS > 0)[:, None, :, None]
    np.testing.assert_allclose(got * valid, expected * valid, rtol=1e-5, atol=1e-5)
    for found, wanted in zip(grads, expected_grads, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    # Another segment does not change a bit.
    (_, other), _ = run(q, k, v.at[0, :, 5].add(1.0))
    np.testing.assert_array_equal(other[0, :, 11:], got[0, :, 11:])
    assert (other[0, :, :11] != got[0, :, :11]).any()
