"""Texts in shared rows: each of them once, few shapes, little padding, and pooled as if alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.text.packing import SHARE, WIDTHS, pack_texts, pooled_texts
from recjax.text.rows import TokenRows


def texts_of(lengths: np.ndarray) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    return [random.integers(1, 1000, length).astype(np.int32) for length in lengths]


@pytest.mark.parametrize(
    ("lengths", "padding"),
    [
        (np.random.default_rng(0).integers(0, 100, 3000), 0.12),
        (np.random.default_rng(0).geometric(0.06, 3000) + 2, 0.1),  # as titles are
        (np.full(1000, 1), 0.8),  # SHARE is the limit
        (np.array([700, 3, 0, 64, 65]), 0.5),
        (np.array([0, 0]), 0.0),
        (np.array([], int), 0.0),
    ],
)
@pytest.mark.parametrize("devices", [1, 6])
def test_every_text_is_in_one_place_and_shapes_are_few(lengths, padding, devices):
    texts = texts_of(lengths)
    batches = pack_texts(texts, batch_tokens=2048, devices=devices)
    found = {}
    for batch in batches:
        rows, width = batch.rows.tokens.shape
        assert rows % devices == 0 and (rows * width <= 2048 or rows == devices)
        assert batch.texts.shape == (rows, width // SHARE)
        for row, inside in enumerate(batch.texts):
            for segment, text in enumerate(inside[inside >= 0], 1):
                assert text not in found
                there = batch.rows.segments[row] == segment
                found[text] = batch.rows.tokens[row, there]
                places = np.asarray(batch.rows.positions)[row, np.asarray(there)]
                np.testing.assert_array_equal(places, np.arange(len(places)))
            assert batch.rows.segments[row].max() == (inside >= 0).sum()
    assert sorted(found) == np.flatnonzero(lengths).tolist()
    for text, tokens in found.items():
        np.testing.assert_array_equal(tokens, texts[text])
    shapes = {batch.rows.tokens.shape for batch in batches}
    assert len(shapes) <= 2 * len({width for _, width in shapes})
    computed = sum(batch.rows.tokens.size for batch in batches)
    assert computed <= lengths.sum() / (1 - padding) + devices * sum(2 * width for _, width in shapes)


def test_shapes_do_not_depend_on_how_many_texts_there_are():
    lengths = np.random.default_rng(0).integers(3, 60, 4000)
    shapes = {
        batch.rows.tokens.shape for count in range(1, 4000, 97) for batch in pack_texts(texts_of(lengths[:count]), 2048)
    }
    assert {width for _, width in shapes} == {WIDTHS[0]} and len(shapes) <= 6


def test_vectors_are_the_mean_or_the_first_state_of_each_text():
    lengths = np.array([5, 20, 0, 39, 33])
    (batch,) = pack_texts(texts_of(lengths), 2048)
    hidden = np.random.default_rng(0).normal(size=(*batch.rows.tokens.shape, 3)).astype(np.float32)
    for first in (False, True):
        pool = jax.jit(lambda hidden, rows, first=first: pooled_texts(hidden, rows, first))
        vectors, places = np.asarray(pool(hidden, batch.rows)), np.full((5, 3), 9.0)
        batch.put(vectors, places)
        assert (places[2] == 9).all() and not vectors[batch.texts < 0].any()
        for text in (0, 1, 3, 4):
            row, slot = np.argwhere(batch.texts == text)[0]
            own = hidden[row][batch.rows.segments[row] == slot + 1]
            np.testing.assert_allclose(places[text], own[0] if first else own.mean(axis=0), rtol=1e-5, atol=1e-6)


def test_positions_may_be_left_out_where_a_row_has_one_text():
    rows = TokenRows(jnp.ones((2, 4), jnp.int32), jnp.array([[1, 1, 0, 0], [0, 0, 0, 0]]))
    found = pooled_texts(jnp.arange(8.0).reshape(2, 4, 1), rows)
    np.testing.assert_array_equal(found[:, 0, 0], [0.5, 0])
