"""Hashed text vectors: deterministic, alike for alike texts, zero for none."""

import numpy as np

from recjax.text.hashed import hashed_vectors

TEXTS = [
    "red wooden chair",
    "chair, wooden, red",
    "wooden chairs in red",
    "usb charging cable",
    "charging cable for usb phones",
    None,
    "  ",
    "Café crème beans",
    "cafe creme beans",
]


def cosine(vectors: np.ndarray) -> np.ndarray:
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit @ unit.T


def test_alike_texts_have_alike_vectors():
    similar = cosine(hashed_vectors(TEXTS, 6))
    assert min(similar[0, 1], similar[0, 2], similar[3, 4]) > 0.5
    assert max(similar[0, 3], similar[1, 4], similar[0, 7]) < 0.3
    assert similar[7, 8] > 0.999  # accents do not matter


def test_nothing_to_read_is_a_row_of_zeros():
    vectors = hashed_vectors(TEXTS, 16)
    assert vectors.shape == (9, 16) and vectors.dtype == np.float32
    assert np.flatnonzero(~vectors.any(axis=1)).tolist() == [5, 6]
    assert not hashed_vectors([None, ""], 4).any()
    assert hashed_vectors([], 4).shape == (0, 4)


def test_the_same_texts_give_the_same_bits():
    np.testing.assert_array_equal(hashed_vectors(TEXTS), hashed_vectors(TEXTS))


def test_few_texts_leave_the_last_columns_empty():
    assert hashed_vectors(["one text"], 5)[0].tolist() == [1, 0, 0, 0, 0]
    assert not hashed_vectors(["a b", "c d", "a d"], 5)[:, 2:].any()
