"""Column of vectors of a text of each item, beside the text space that a recipe has."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recjax.data.features.feature import Feature, Source, State
from recjax.text.hashed import Hashed
from recjax.text.vectors import item_vectors
from recjax.typing import InputError


@dataclass(frozen=True)
class Texts(Feature):
    """Vectors of length 1 of a text of each item: float32 [rows, width], zeros for an item without one.

    Attributes:
        encoder: one with a `width`, such as `Hashed(64, template="{categories}")`; narrower vectors of a small catalog
            are filled up with zeros.
    """

    encoder: Any = field(default_factory=lambda: Hashed(64, template="{categories}"))

    def shape(self) -> tuple[int, ...]:
        return (self.encoder.width,)

    def fingerprint(self) -> str:
        return self.encoder.fingerprint()

    def fit(self, sources: Sequence[Source], seed: int) -> State:
        if not any(self._vectors(source).any() for source in sources):
            raise InputError(f"no item has a text of the template {self.encoder.template!r}")
        return {}

    def make(self, source: Source, state: State) -> np.ndarray:
        return self._vectors(source)

    def _vectors(self, source: Source) -> np.ndarray:
        def made() -> np.ndarray:
            found = item_vectors(self.encoder, source.dataset.catalog).vectors
            lengths = np.linalg.norm(found, axis=1, keepdims=True)
            return np.pad(
                found / np.where(lengths > 0, lengths, 1.0), [(0, 0), (0, self.encoder.width - found.shape[1])]
            )

        return source.once(f"texts {self.encoder!r}", made)
