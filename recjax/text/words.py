"""Vectors of texts by a table of word pieces that comes with recjax: a sentence encoder's, without running it.

The table holds what the encoder says of each word piece alone (as in Model2Vec: Tulkens & van Dongen, 2024), its
leading principal components in int8. A text is the sum of its pieces, each weighted by how rare it is among the texts,
so a catalog of ten thousand items takes a second where the encoder takes minutes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from recjax import array_files
from recjax.late import sparse
from recjax.text.items import WORDS, ItemText

TABLE = Path(__file__).parents[1] / "models" / "pretrained" / "words.safetensors"
"""Beside it stands, as JSON, how it came to be, and its sha256."""

UNKNOWN = "[UNK]"


@dataclass(frozen=True)
class WordTable:
    """Word pieces and their vectors.

    Attributes:
        tokenizer: of the library `tokenizers`; its ids are rows of the table.
        vectors: float32 [v, d]; a row of zeros for an unknown piece.
    """

    tokenizer: Any
    vectors: np.ndarray


@dataclass(frozen=True)
class WordVectors:
    """Vectors of item texts by the table of word pieces; see the top of this file.

    Attributes:
        template: text of an item, see `recjax.text.items.ItemText`.
    """

    template: str = WORDS

    def __post_init__(self) -> None:
        ItemText(self.template)

    @property
    def width(self) -> int:
        """Coordinates of a vector."""
        return int(array_files.published_record(TABLE)["width"])

    def fingerprint(self) -> str:
        """Identity of the vectors besides the texts."""
        return f"words {array_files.published_record(TABLE)['sha256']}"

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> np.ndarray:
        """Vectors of texts, float32 [n, d] of length 1; a row of zeros where no word piece is known.

        The weight of a piece is (1 + log tf) (1 + log((1 + n) / (1 + df))), n being the number of `texts`.

        Raises:
            InputError: the table is not there or damaged.
        """
        del progress  # seconds for 10,000 texts
        table = word_table()
        ids = [encoded.ids for encoded in table.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
        rows = np.repeat(np.arange(len(ids)), [len(each) for each in ids])
        pieces = np.concatenate([np.zeros(0, np.int64), *(np.array(each, np.int64) for each in ids)])
        counts: Any = sparse.csr_array((np.ones(len(rows)), (rows, pieces)), shape=(len(ids), len(table.vectors)))
        counts.sum_duplicates()
        known = np.bincount(counts.indices, minlength=counts.shape[1])
        rarity = 1 + np.log((1 + len(ids)) / (1 + known))
        counts.data = (1 + np.log(counts.data)) * rarity[counts.indices]
        vectors = np.asarray(counts.astype(np.float32) @ table.vectors, np.float32)
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


@cache
def word_table(path: Path = TABLE) -> WordTable:
    """The table that comes with recjax.

    Raises:
        InputError: it is not there, or not the published one.
    """
    from tokenizers import Tokenizer, normalizers, pre_tokenizers
    from tokenizers.models import WordPiece

    arrays = array_files.read_published(path)
    pieces = bytes(arrays["pieces"]).decode().split("\n")
    tokenizer: Any = Tokenizer(WordPiece({piece: row for row, piece in enumerate(pieces)}, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    vectors = arrays["vectors"].astype(np.float32) * arrays["scales"][:, None]
    return WordTable(tokenizer, vectors)


def quantised(pieces: Sequence[str], vectors: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of a table: the pieces, joined by newlines, and int8 vectors with a scale a row.

    Args:
        pieces: word pieces, the unknown one among them.
        vectors: float [v, d].
    """
    scales = np.abs(vectors).max(axis=1) / 127
    rounded = np.round(vectors / np.maximum(scales, 1e-12)[:, None]).astype(np.int8)
    return {
        "pieces": np.frombuffer("\n".join(pieces).encode(), np.uint8),
        "vectors": rounded,
        "scales": scales.astype(np.float32),
    }
