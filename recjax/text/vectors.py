"""Vectors of the items of a catalog, by any text encoder, kept in a file."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl

from recjax.text import array_cache
from recjax.text.items import ItemText, fingerprint


class TextEncoder(Protocol):
    """A config that turns texts into vectors: `Hashed` or `SentenceEncoder`."""

    @property
    def template(self) -> str:
        """Of the text of an item."""
        ...

    def fingerprint(self) -> str:
        """Identity of the vectors besides the texts."""
        ...

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> np.ndarray:
        """Vectors of texts, float32 [n, d]; a row of zeros where there is nothing to read in one."""
        ...


@dataclass(frozen=True, eq=False)
class ItemVectors:
    """Vectors of a catalog's items; row 0 is padding.

    Attributes:
        vectors: float32 [items + 1, d]; zeros where `known` is False.
        known: bool [items + 1], the items that have a text; False at padding.
        fingerprint: sha256 (hex) of the encoder and of the texts.
    """

    vectors: np.ndarray
    known: np.ndarray
    fingerprint: str


def item_vectors(
    config: TextEncoder, catalog: pl.DataFrame, cache: Path | None = None, *, progress: bool = False
) -> ItemVectors:
    """The vectors of a catalog.

    Args:
        config: the encoder.
        catalog: row i describes item i + 1.
        cache: a folder in which vectors are kept, one file for each encoder and list of texts; None: not kept.
        progress: show how far it is, see `recjax.track.console.tracked`.

    Raises:
        InputError: see `ItemText.texts` and the encoder's `encode`.
    """
    texts = ItemText(config.template).texts(catalog)
    content = f"recjax item vectors 1 {config.fingerprint()} {fingerprint(texts)}"
    key = hashlib.sha256(content.encode()).hexdigest()

    def make() -> dict[str, np.ndarray]:
        filled = np.flatnonzero([text is not None for text in texts])
        encoded = config.encode([text for text in texts if text is not None], progress=progress)
        vectors = np.zeros((len(texts) + 1, encoded.shape[1]), np.float32)
        vectors[filled + 1] = encoded
        return {"vectors": vectors, "known": np.asarray(vectors.any(axis=1))}

    found = make() if cache is None else array_cache.cached(cache / f"vectors-{key[:16]}.safetensors", key, make)
    return ItemVectors(found["vectors"], found["known"], key)
