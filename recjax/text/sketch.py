"""Words of a text in few dimensions, the same in every catalog: a count sketch of TF-IDF weights.

A language model reads meaning and loses letters: two products of one brand, or two sizes of one product, need not be
near for it. Here each word and pair of words adds its TF-IDF weight to one of `width` columns, with a sign, both drawn
by hashing the word (Charikar, Chen & Farach-Colton 2002): dot products of texts are those of the full sparse vectors
but for a noise of about 1 / sqrt(width), and a word stands in the same column in every catalog.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recjax.late import sparse
from recjax.limits import COUNT, SIZE, require
from recjax.text.items import ItemText

WORDS = 2**20
"""Hash values of words and pairs of words, before the sketch."""


@dataclass(frozen=True)
class Sketch:
    """Word sketches of item texts; see the top of this file.

    Attributes:
        width: columns.
        leading: look at so many first words of a text only, in a catalog's titles mostly the brand; None for all.
        template: text of an item, see `recjax.text.items.ItemText`.

    Raises:
        InputError: `width` or `leading` is not positive.
    """

    width: int = 512
    leading: int | None = None
    template: str = "{title}"

    def __post_init__(self) -> None:
        require(self, width=SIZE, leading=COUNT)
        ItemText(self.template)

    def fingerprint(self) -> str:
        """Identity of the vectors besides the texts."""
        return f"sketch 1 {self.width} {self.leading}"

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> np.ndarray:
        """Vectors of texts, float32 [n, width], rows of about length 1; zeros where no word occurs in a second text."""
        del progress  # a second for 10,000 texts
        from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
        from sklearn.preprocessing import normalize

        if self.leading is not None:
            texts = [" ".join(text.split()[: self.leading]) for text in texts]
        if not texts:
            return np.zeros((0, self.width), np.float32)
        options: Any = {"n_features": WORDS, "ngram_range": (1, 2), "alternate_sign": False, "norm": None}
        counts = HashingVectorizer(strip_accents="unicode", **options).transform(texts)
        weights = sparse.csr_array(TfidfTransformer(sublinear_tf=True).fit_transform(counts))
        # A word of a single text says nothing of its likeness to others, and would only add noise.
        texts_with = np.bincount(weights.indices, minlength=WORDS)
        weights.data = weights.data * (texts_with > 1)[weights.indices]
        weights = sparse.csr_array(normalize(weights))
        column, sign = _places(weights.indices, self.width)
        shape = (len(texts), self.width)
        return sparse.csr_array((weights.data * sign, column, weights.indptr), shape=shape).toarray().astype(np.float32)


def _places(words: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The column and the sign of each word, by multiplicative hashing (Knuth)."""
    mixed = (words.astype(np.uint64) + np.uint64(1)) * np.uint64(2_654_435_761) % np.uint64(2**32)
    sign = np.where(mixed >> np.uint64(31), 1.0, -1.0)
    return (mixed % np.uint64(width)).astype(np.int64), sign
