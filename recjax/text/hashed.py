"""Text vectors without a language model: hashed word and character n-grams, weighted and reduced.

Words and pairs of words, and character n-grams inside words, are hashed into sparse counts, weighted by TF-IDF and
reduced by a truncated singular value decomposition. No vocabulary is kept, nothing is downloaded, and the same texts
give the same vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recjax.late import sparse
from recjax.limits import SEED, require, within
from recjax.text.items import WORDS, ItemText

BUCKETS = 2**18
"""Hash values of words, and of character n-grams."""

CHARACTER_SHARE = 0.5
"""Weight of character n-grams beside words; both blocks of a text have length 1 before."""


@dataclass(frozen=True)
class Hashed:
    """Vectors of item texts without a language model; see the top of this file.

    Attributes:
        width: most columns.
        seed: of the randomised decomposition.
        template: text of an item, see `recjax.text.items.ItemText`.

    Raises:
        InputError: `width` is not positive, or beyond the features that there are.
    """

    width: int = 256
    seed: int = 0
    template: str = WORDS

    def __post_init__(self) -> None:
        require(self, width=within(1, 2 * BUCKETS), seed=SEED)
        ItemText(self.template)

    def fingerprint(self) -> str:
        """Identity of the vectors besides the texts."""
        return f"hashed 1 {self.width} {self.seed}"

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> np.ndarray:
        """Vectors of texts, float32 [n, width]; a row of zeros where there is nothing to read in one."""
        del progress  # seconds for 10,000 texts
        return hashed_vectors(texts, self.width, seed=self.seed)


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
