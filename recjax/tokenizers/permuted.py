"""Codes without meaning: a tokenizer's tuples, permuted among the items that have them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recjax.limits import at_least, require
from recjax.tokenizers.collisions import Policy, Tuple
from recjax.tokenizers.item_codes import State
from recjax.tokenizers.tokenizer import ItemTokenizer
from recjax.tokenizers.training import Trainer
from recjax.typing import Array


@dataclass(frozen=True)
class Permuted:
    """A control for models that generate codes: as many items at every code tuple, but which tuple says nothing.

    The tuples of the catalog that the tokenizer is fitted on change places, whole tuples at a time, so items that share
    one still do, and items of similar texts share a first code by chance only. A model that is as good with these codes
    reads them as names. A tuple that no item of that catalog has stays as it is.

    Attributes:
        inner: the tokenizer whose codes are permuted.
        seed: of the permutation; None leaves the codes as they are, so that a sweep has both.
    """

    inner: ItemTokenizer
    seed: int | None = 0

    def __post_init__(self) -> None:
        require(self, seed=at_least(0))

    @property
    def collisions(self) -> Policy:
        return self.inner.collisions

    @property
    def sizes(self) -> tuple[int, ...]:
        """Codes there are in each slot."""
        return self.inner.sizes

    @property
    def ordered(self) -> bool:
        return self.inner.ordered

    def fit(
        self, vectors: np.ndarray, known: np.ndarray, key: Array, trainer: Trainer | None = None, **more: Any
    ) -> dict[str, Any]:
        """State: that of the inner tokenizer, and its tuples int32 [m, slots] with the tuples in their places.

        Args:
            vectors: float32 [n + 1, d], row 0 padding.
            known: bool [n + 1], the items that have one.
            key: of the inner tokenizer.
            trainer: of the inner tokenizer.
            more: arguments of the inner tokenizer's `fit`.
        """
        state = self.inner.fit(vectors, known, key, **more, **({} if trainer is None else {"trainer": trainer}))
        tuples = np.unique(self.inner.encode(state, vectors, known)[known], axis=0)
        images = tuples if self.seed is None else np.random.default_rng(self.seed).permutation(tuples)
        return {"inner": state, "permutation": {"tuples": tuples, "images": images}}

    def encode(self, state: State, vectors: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Codes int32 [n + 1, slots], row 0 zeros. Items without a vector have the inner tokenizer's codes."""
        image = _images(state)
        codes = self.inner.encode(state["inner"], vectors, known)
        for item in np.flatnonzero(known):
            codes[item] = image.get(tuple(codes[item].tolist()), codes[item])
        return codes

    def candidates(self, state: State, vectors: np.ndarray) -> Sequence[Iterator[Tuple]]:
        """For each vector [m, d], the images of the inner tokenizer's tuples, in its order."""
        image = _images(state)
        return [(image.get(code, code) for code in found) for found in self.inner.candidates(state["inner"], vectors)]


def _images(state: State) -> dict[Tuple, Tuple]:
    tuples, images = (state["permutation"][name].tolist() for name in ("tuples", "images"))
    return {tuple(code): tuple(image) for code, image in zip(tuples, images, strict=True)}
