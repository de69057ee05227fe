"""The hybrid mixer: isolation, padding side, batch mates, distances in items, and the last item alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.mixers.hybrid import HybridAttention
from recjax.mixers.mixer import SeqContext
from recjax.mixers.stack import Stack
from recjax.nn.rotary import rotary
from recjax.typing import InputError
from tests.drawn import drawn_for

SLOTS, WIDTH, ITEMS = 4, 16, 9
CONFIG = HybridAttention(heads=2, slots=SLOTS, dropout=0.2)


def _context(segments, positions):
    spread = lambda array: jnp.asarray(np.repeat(array, SLOTS, axis=1), jnp.int32)  # noqa: E731
    return SeqContext(spread(segments), spread(positions))


@pytest.fixture(scope="module")
def built():
    module = CONFIG.build(width=WIDTH, causal=True, dtype=jnp.float32, name="mixer")
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, ITEMS * SLOTS, WIDTH)), jnp.float32)
    segments = np.array([[1] * 4 + [2] * 5, [1] * 5 + [0] * 4])
    positions = np.array([[0, 1, 2, 3, 0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 0, 0, 0, 0]])
    context = _context(segments, positions)
    params = drawn_for(module.init, jax.random.key(0), x, context)
    return jax.jit(module.apply), params, x, context


def test_isolation_is_exact(built):
    apply, params, x, context = built
    token = 5 * SLOTS + 1  # in the second item of row 0's second history
    differs = np.any(np.asarray(apply(params, x, context) != apply(params, x.at[0, token].add(1.0), context)), axis=-1)
    assert not differs[1].any() and not differs[0, : 5 * SLOTS].any()
    assert differs[0, 5 * SLOTS :].all()


def test_padding_side_and_batch_mates_change_nothing(built):
    apply, params, x, context = built
    whole = np.asarray(apply(params, x, context))
    history = x[0, 4 * SLOTS :]  # five items, packed behind another history

    def placed(before: int, mates: float):
        row = jnp.full((2, ITEMS * SLOTS, WIDTH), mates).at[0, before * SLOTS : (before + 5) * SLOTS].set(history)
        segments = np.stack([np.pad([1] * 5, (before, 4 - before)), [0] * 2 + [1] * 7])
        positions = np.stack([np.pad(np.arange(5), (before, 4 - before)), np.arange(9)])
        return np.asarray(apply(params, row, _context(segments, positions)))[0, before * SLOTS : (before + 5) * SLOTS]

    right, left = placed(0, 0.0), placed(4, 0.0)
    np.testing.assert_array_equal(right, placed(0, 7.0))
    np.testing.assert_allclose(left, right, atol=1e-6)
    np.testing.assert_allclose(whole[0, 4 * SLOTS :], right, atol=1e-6)


def test_only_distances_between_items_matter(built):
    apply, params, x, context = built
    plain = apply(params, x, context)
    np.testing.assert_allclose(
        apply(params, x, dataclasses.replace(context, positions=context.positions + 11)), plain, atol=1e-5
    )
    stretched = dataclasses.replace(context, positions=context.positions * 2)
    assert np.abs(np.asarray(apply(params, x, stretched) - plain)).max() > 1e-3


def test_last_item_alone_equals_the_full_result(built):
    apply, params, x, context = built
    whole = np.asarray(apply(params, x, context))
    tokens = jnp.asarray([8, 4])[:, None] * SLOTS + jnp.arange(SLOTS)
    np.testing.assert_allclose(
        apply(params, x, context, last=tokens), np.take_along_axis(whole, np.asarray(tokens)[..., None], 1), atol=1e-5
    )
    np.testing.assert_allclose(
        apply(params, x, context, last=tokens[:, 1]), whole[[0, 1], np.asarray(tokens[:, 1])], atol=1e-5
    )


def test_dropout_needs_a_key(built):
    apply, params, x, context = built
    dropped = apply(params, x, context, rngs={"dropout": jax.random.key(1)})
    assert np.abs(np.asarray(dropped - apply(params, x, context))).max() > 1e-3


def test_rotary_is_a_rotation_by_position():
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.normal(size=(1, 1, 3, 8)), jnp.float32) for _ in range(2))
    positions = jnp.asarray([[0, 3, 40]])
    turned = rotary(x, positions)
    np.testing.assert_allclose(turned[0, 0, 0], x[0, 0, 0], atol=1e-6)
    pair = np.asarray(x, np.float64)[0, 0, :, [1, 5]]  # channel 1 and its partner, 4 further: [2, tokens]
    angle = np.array([0, 3, 40]) * 10_000.0 ** (-1 / 4)
    expected = pair[0] * np.cos(angle) - pair[1] * np.sin(angle)
    np.testing.assert_allclose(turned[0, 0, :, 1], expected, atol=1e-5)
    product = lambda a, b: jnp.sum(rotary(x, positions + a) * rotary(y, positions + b), axis=-1)  # noqa: E731
    np.testing.assert_allclose(product(2, 5), product(0, 3), atol=1e-4)
    with pytest.raises(InputError, match="even number of channels per head, not 7"):
        rotary(x[..., :7], positions)


def test_wrong_settings_are_named():
    with pytest.raises(InputError, match="slots is 0"):
        HybridAttention(slots=0)
    with pytest.raises(InputError, match="positions is 'learned', expected one of 'rotary', 'none'"):
        HybridAttention(positions="learned")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="heads is 3, expected a number that divides the width, 16"):
        HybridAttention(heads=3).build(width=16, causal=True, dtype=jnp.float32, name="mixer")
    with pytest.raises(InputError, match="HybridAttention cannot be bidirectional"):
        Stack(pattern=(HybridAttention(),), layers=1, width=16, causal=False, norm="pre", inner=16)
