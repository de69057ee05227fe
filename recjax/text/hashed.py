"""Text vectors without a language model: hashed word and character n-grams, weighted and reduced.

Words and pairs of words, and character n-grams inside words, are hashed into sparse counts, weighted by TF-IDF and
reduced by a truncated singular value decomposition. No vocabulary is kept, nothing is downloaded, and the same texts
give the same vectors.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from scipy import sparse

BUCKETS = 2**18
"""Hash values of words, and of character n-grams."""

CHARACTER_SHARE = 0.5
"""Weight of character n-grams beside words; both blocks of a text have length 1 before."""

TEXT_COLUMNS = ("title", "brand", "categories", "genres", "description")
"""Columns of a catalog that hold text, in the order in which they are joined."""


def hashed_vectors(texts: Sequence[str | None], width: int = 128, *, seed: int = 0) -> np.ndarray:
    """Vectors of texts, float32 [n, width].

    Args:
        texts: one an item; None or blank gives a row of zeros.
        width: most columns; fewer texts or features than that leave the last columns 0.
        seed: of the randomised decomposition.
    """
    from sklearn.decomposition import TruncatedSVD  # takes seconds, which training must not wait for

    filled = np.array([bool(text and text.strip()) for text in texts])
    vectors = np.zeros((len(texts), width), np.float32)
    known = [text for text in texts if text and text.strip()]
    if not known:
        return vectors
    words = _weighted(known, analyzer="word", ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b")
    characters = _weighted(known, analyzer="char_wb", ngram_range=(3, 5))
    features: Any = sparse.csr_array(sparse.hstack([words, CHARACTER_SHARE * characters]))
    # What a single text has says nothing of its likeness to others, and most features are such.
    occurs = np.bincount(features.indices, minlength=features.shape[1])
    features = features[:, occurs > (1 if (occurs > 1).sum() > width else 0)]
    rank = min(width, *(size - 1 for size in features.shape))
    if rank < 1:  # one text: its direction is all there is
        vectors[filled, 0] = 1.0
        return vectors
    reduced = TruncatedSVD(rank, n_iter=1, random_state=seed).fit_transform(features)
    vectors[filled, :rank] = reduced
    return vectors


def _weighted(texts: list[str], **options: Any) -> sparse.csr_array:
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
    from sklearn.preprocessing import normalize

    options |= {"n_features": BUCKETS, "alternate_sign": False, "norm": None, "dtype": np.float32}
    counts = HashingVectorizer(strip_accents="unicode", **options)
    return sparse.csr_array(normalize(TfidfTransformer(sublinear_tf=True).fit_transform(counts.transform(texts))))


def catalog_texts(catalog: pl.DataFrame) -> list[str]:
    """One text a row of a catalog: its text columns joined by spaces; "" where all are empty.

    Lists and nested lists (category paths) are flattened.
    """
    columns = [name for name in TEXT_COLUMNS if name in catalog.columns]
    if not columns:
        return [""] * catalog.height
    return [" ".join(filter(None, map(_flat, row))) for row in catalog.select(columns).iter_rows()]


def _flat(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return " ".join(filter(None, map(_flat, value)))
    return str(value).strip()
