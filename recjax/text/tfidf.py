"""TF-IDF weights of words and word pairs, sparse and exact: the text similarity that learns nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from recjax.late import sparse
from recjax.text.items import WORDS, ItemText

NAMES = "{title} {brand}"
"""Text of an item: what it is called. Categories, which many items share, blur it."""

WORD = r"(?u)\b\w\w+\b"


def name_texts(catalog: pl.DataFrame) -> list[str]:
    """One text a row of a catalog: title and brand, or all text columns where no row has either; "" for no text."""
    names = ItemText(NAMES).texts(catalog)
    return [text or "" for text in (names if any(names) else ItemText(WORDS).texts(catalog))]


def tfidf(texts: Sequence[str]) -> sparse.csr_array:
    """Weights of words and word pairs that two texts or more contain, float32 [n, words] sparse, rows of length 1.

    Term frequencies are sublinear (1 + log tf), words have two letters or more. A text that shares no word with
    another gives an empty row.

    Args:
        texts: one an item; "" for none.
    """
    if not any(re.search(WORD, text) for text in texts):
        return sparse.csr_array((len(texts), 1), dtype=np.float32)
    from sklearn.feature_extraction.text import TfidfVectorizer  # takes seconds, which training must not wait for
    from sklearn.preprocessing import normalize

    options: Any = {"token_pattern": WORD, "ngram_range": (1, 2), "norm": None, "dtype": np.float32}
    weights: Any = TfidfVectorizer(sublinear_tf=True, **options).fit_transform([text for text in texts if text])
    shared = np.bincount(weights.indices, minlength=weights.shape[1]) > 1
    if not shared.any():
        return sparse.csr_array((len(texts), 1), dtype=np.float32)
    weights = normalize(weights[:, shared])
    place = np.cumsum([0, *(bool(text) for text in texts)])  # a row without text ends where it starts
    shape = (len(texts), weights.shape[1])
    return sparse.csr_array((weights.data, weights.indices, weights.indptr[place]), shape=shape)
