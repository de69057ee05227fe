"""Encoded queries and keys have products that depend on distances alone, however far from the origin."""

import jax.numpy as jnp
import numpy as np

from recjax.nn.lrpe import lrpe


def test_products_depend_on_distances_along_the_axes():
    rng = np.random.default_rng(0)
    q, k = (rng.normal(size=(1, 2, 1, 6)) for _ in range(2))
    for far in (0, 480_000):  # hours since 1970
        at, past = np.array([far + 12, 3]), np.array([far + 5, 1])
        encoded = [
            lrpe(jnp.asarray(x, jnp.float32), jnp.asarray(place, jnp.int32)[None, None])
            for x, place in ((q, at), (k, past))
        ]
        assert encoded[0].shape == (1, 2, 1, 12)
        rates = 10_000.0 ** (-np.arange(3) / 3)
        cosines = np.cos(np.concatenate([7 * rates, 2 * rates]))
        np.testing.assert_allclose(
            np.sum(encoded[0] * encoded[1], axis=-1), np.sum(q * k * cosines, axis=-1), atol=1e-3 if far else 1e-5
        )
