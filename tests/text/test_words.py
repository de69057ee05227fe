"""The table of word vectors that comes with recjax."""

import json
import shutil

import numpy as np
import pytest

from recjax.text.words import TABLE, WordVectors, quantised, word_table
from recjax.typing import InputError

TEXTS = ["shampoo for dry hair", "conditioner for damaged hair", "wooden toy train", "", "日"]


def test_texts_that_mean_alike_are_near():
    vectors = WordVectors().encode(TEXTS)
    assert vectors.shape == (5, 152) and vectors.dtype == np.float32
    cosines = vectors @ vectors.T
    assert cosines[0, 1] > cosines[0, 2] + 0.2
    np.testing.assert_allclose(np.linalg.norm(vectors[:3], axis=1), 1.0, rtol=1e-5)
    assert not vectors[3].any()


def test_a_text_is_the_weighted_sum_of_its_pieces():
    table = word_table()
    ids = {text: table.tokenizer.encode(text, add_special_tokens=False).ids for text in ("red cup", "red red bowl")}
    once, twice, number = (
        table.tokenizer.encode(word, add_special_tokens=False).ids for word in ("cup", "red", "bowl")
    )
    assert ids["red red bowl"] == [*twice, *twice, *number] and ids["red cup"] == [*twice, *once]
    rare, common = 1 + np.log(3 / 2), 1 + np.log(3 / 3)
    expected = (1 + np.log(2)) * common * table.vectors[twice[0]] + rare * table.vectors[number[0]]
    found = WordVectors().encode(["red cup", "red red bowl"])[1]
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), rtol=1e-5)


def test_int8_keeps_vectors_to_a_hundredth():
    vectors = np.random.default_rng(0).normal(size=(50, 8))
    arrays = quantised(["[UNK]", *(f"w{row}" for row in range(49))], vectors)
    assert arrays["vectors"].dtype == np.int8
    restored = arrays["vectors"] * arrays["scales"][:, None]
    assert np.abs(restored - vectors).max() < 0.01 * np.abs(vectors).max()


def test_a_damaged_table_is_refused(tmp_path, monkeypatch):
    path = tmp_path / TABLE.name
    with pytest.raises(InputError, match="incomplete"):
        word_table(path)
    shutil.copy(TABLE.with_suffix(".json"), path.with_suffix(".json"))
    raw = bytearray(TABLE.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(InputError, match="damaged"):
        word_table(path)
    assert WordVectors().fingerprint().endswith(json.loads(TABLE.with_suffix(".json").read_text())["sha256"])
