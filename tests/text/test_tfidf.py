"""TF-IDF of names: the definition written out, and texts with nothing in common."""

from collections import Counter
from itertools import pairwise

import numpy as np
import polars as pl

from recjax.text.tfidf import name_texts, tfidf

TEXTS = ["red round lamp", "", "Red lamp, red lamp", "blue round desk", "a !", "blue desk red round"]


def features(text: str) -> list[str]:
    words = [word for word in text.lower().replace(",", " ").split() if len(word) > 1]
    return words + [f"{first} {second}" for first, second in pairwise(words)]


def test_rows_equal_the_definition_written_out():
    counts = [Counter(features(text)) for text in TEXTS]
    texts_with = Counter(word for count in counts for word in count)
    known = sorted(word for word, texts in texts_with.items() if texts > 1)
    size = sum(bool(text) for text in TEXTS)
    expected = np.zeros((len(TEXTS), len(known)))
    for row, count in enumerate(counts):
        for column, word in enumerate(known):
            if word in count:
                rarity = np.log((1 + size) / (1 + texts_with[word])) + 1
                expected[row, column] = (1 + np.log(count[word])) * rarity
    length = np.linalg.norm(expected, axis=1, keepdims=True)
    expected /= np.where(length > 0, length, 1)
    found = tfidf(TEXTS)
    assert found.dtype == np.float32 and found.shape == expected.shape
    np.testing.assert_allclose((found @ found.T).toarray(), expected @ expected.T, atol=1e-6)


def test_texts_without_a_shared_word_are_empty_rows():
    for texts in ([], ["", ""], ["a", "!"], ["one text"], ["red lamp", "blue desk"]):
        found = tfidf(texts)
        assert found.shape[0] == len(texts) and not found.nnz


def test_names_are_title_and_brand_or_all_there_is():
    catalog = pl.DataFrame({"title": ["Lamp", None], "brand": [None, "Acme"], "categories": ["Home|Light", "Toys"]})
    assert name_texts(catalog) == ["Lamp", "Acme"]
    assert name_texts(catalog.select("categories")) == ["Home Light", "Toys"]
    assert name_texts(pl.DataFrame({"item_id": ["a", "b"]})) == ["", ""]
