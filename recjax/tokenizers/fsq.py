"""FSQ tokenizer (RecGPT, EMNLP 2025): sub-vectors of an item's vector, each quantised to one code."""

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from recjax.limits import LAYERS, RATE, SIZE, above, at_least, require, within
from recjax.ops.fsq import Bound, check_levels, place_values
from recjax.tokenizers.collisions import Policy, Tuple
from recjax.tokenizers.fsq_model import FSQAutoencoder, FSQModel, Loss
from recjax.tokenizers.item_codes import State
from recjax.tokenizers.preparation import Preparation, fit_preparation, prepared
from recjax.tokenizers.training import Trainer, VectorBatches, train_plainly
from recjax.typing import Array, Float, InputError

CHUNK = 4096
"""Vectors encoded at a time."""


@dataclass(frozen=True)
class FSQ:
    """Vectors are cut into `slots` sub-vectors; a shared projection of each is bounded and rounded to digits.

    The slots share one vocabulary, `prod(levels)` codes. The sizes are the published ones. Not so the rest: the input
    is whitened (without that nearly all items of a text encoder fall on one tuple), the decoder reads all slots, and
    collisions are resolved. `prepare="none", published=True, collisions="none"` is the recipe as released.

    Attributes:
        slots: sub-vectors; must divide the width of the vectors.
        levels: values of each digit of a code.
        prepare: "standardise", "whiten" or "none"; see `recjax.tokenizers.preparation`.
        bound: "tanh" (the released code) or "sigmoid" (the paper); see `recjax.ops.fsq.bound`.
        loss: distance of the reconstruction, "l1" or "l2".
        layers: blocks of the decoder.
        heads: attention heads of the decoder; must divide the width of a sub-vector.
        dropout: rate in the decoder.
        published: reconstruct from the last slot only.
        steps: of training; 0 keeps the random projection.
        batch: vectors of a step.
        learning_rate: at the start; it falls to 0 along a cosine.
        collisions: "none", "suffix", "nearest-free" or "random"; see `recjax.tokenizers.collisions`.
    """

    slots: int = 4
    levels: tuple[int, ...] = (8, 8, 8, 6, 5)
    prepare: Preparation = "whiten"
    bound: Bound = "tanh"
    loss: Loss = "l1"
    layers: int = 2
    heads: int = 8
    dropout: float = 0.1
    published: bool = False
    steps: int = 2000
    batch: int = 256
    learning_rate: float = 1e-3
    collisions: Policy = "nearest-free"

    def __post_init__(self) -> None:
        require(
            self,
            slots=within(1, 64),
            layers=LAYERS,
            heads=SIZE,
            dropout=RATE,
            steps=at_least(0),
            batch=SIZE,
            learning_rate=above(0),
        )
        check_levels(self.levels)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Codes there are in each slot."""
        return (math.prod(self.levels),) * self.slots

    @property
    def ordered(self) -> bool:
        return False

    def model(self, width: int) -> FSQModel:
        """The autoencoder for vectors of `width` coordinates.

        Raises:
            InputError: the slots do not divide the width, or the heads that of a sub-vector.
        """
        if width % self.slots:
            near = [n for n in range(1, width + 1) if width % n == 0]
            near = sorted(near, key=lambda n: abs(n - self.slots))[:2]
            raise InputError(
                f"vectors of {width} coordinates cannot be cut into tokenizer.slots = {self.slots} equal parts; "
                f"{' or '.join(map(str, sorted(near)))} can"
            )
        inner = width // self.slots
        if inner % self.heads:
            raise InputError(f"tokenizer.heads = {self.heads} does not divide sub-vectors of {inner} coordinates")
        module = FSQAutoencoder(
            self.slots, self.levels, self.bound, self.layers, self.heads, self.dropout, self.published
        )
        return FSQModel(module, self.loss, self.steps, self.learning_rate)

    def fit(
        self, vectors: np.ndarray, known: np.ndarray, key: Array, trainer: Trainer = train_plainly
    ) -> dict[str, Any]:
        """Learns the preparation and the projection.

        Args:
            vectors: float32 [n + 1, d], row 0 padding.
            known: bool [n + 1], the items that have one; the others are not looked at.
            key: of the parameters, the order of training and dropout.
            trainer: trains the autoencoder; by default a plain loop.

        Returns:
            The state: the preparation, and the parameters, the decoder's included.
        """
        model = self.model(vectors.shape[1])
        order_key, train_key = jax.random.split(key)
        seed = int(jax.random.bits(order_key))
        if not known[1:].any():
            raise InputError("no item has a vector, so there is nothing to fit a tokenizer on")
        preparation = fit_preparation(vectors[known], self.prepare, seed)
        batches = VectorBatches(prepared(preparation, vectors, known), known, self.batch, seed)
        params = trainer(model, batches, train_key)
        return {"preparation": preparation, "params": jax.tree.map(np.asarray, jax.device_get(params))}

    def encode(self, state: State, vectors: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Codes int32 [n + 1, slots], row 0 zeros. An item without a vector gets those of the mean vector."""
        digits = np.rint(self.coordinates(state, vectors, known)).astype(np.int32)
        codes = digits @ np.array(place_values(self.levels), np.int32)
        codes[0] = 0
        return codes

    def coordinates(self, state: State, vectors: np.ndarray, known: np.ndarray) -> Float[np.ndarray, "n slots k"]:
        """Digit coordinates before rounding."""
        model = self.model(vectors.shape[1])
        ready = prepared(state["preparation"], vectors, known)
        found = []
        for start in range(0, len(ready), CHUNK):
            chunk = ready[start : start + CHUNK]
            # Always the same shape, so that one compilation serves every catalog.
            filled = np.pad(chunk, [(0, CHUNK - len(chunk)), (0, 0)])
            found.append(np.asarray(_coordinates(model, state["params"], filled))[: len(chunk)])
        return np.concatenate(found)

    def candidates(self, state: State, vectors: np.ndarray) -> Sequence[Iterator[Tuple]]:
        """For each vector [m, d], all tuples, from the nearest to the coordinates before rounding to the farthest.

        Nearest in the decoder's coordinates, all slots and digits together.
        """
        coordinates = self.coordinates(state, vectors, np.ones(len(vectors), bool))
        return [self._tuples(row.astype(np.float64)) for row in coordinates]

    def _tuples(self, coordinates: np.ndarray) -> Iterator[Tuple]:
        options, places = [], np.array(place_values(self.levels))
        for coordinate, levels in zip(coordinates.reshape(-1), self.levels * self.slots, strict=True):
            own = int(np.rint(coordinate))
            costs = ((np.arange(levels) - coordinate) / (levels // 2)) ** 2
            # The digit that rounding gives comes first even where another is as near.
            order = sorted(range(levels), key=lambda digit: (digit != own, costs[digit], digit))
            options.append([(costs[digit] - costs[own], digit) for digit in order])
        for digits in cheapest(options):
            yield tuple((np.array(digits).reshape(self.slots, -1) @ places).tolist())


@partial(jax.jit, static_argnums=0)
def _coordinates(model: FSQModel, params: Any, vectors: Array) -> Array:
    return model.coordinates(params, vectors)


def cheapest(options: Sequence[Sequence[tuple[float, int]]]) -> Iterator[tuple[int, ...]]:
    """Every way to choose one option of each list, by ascending sum of costs.

    Lists in the order of what leaving their first option costs; a choice is reached from one predecessor only: by
    going one option further in the last list that was touched, by touching the next list, or by touching the next list
    instead of the last one where that stood at its second option. None of the three lowers the sum.

    Args:
        options: lists of (cost, value), each starting at cost 0 and ascending.
    """
    yield tuple(first[0][1] for first in options)
    order = sorted((j for j, ways in enumerate(options) if len(ways) > 1), key=lambda j: options[j][1][0])
    if not order:
        return

    def cost(rank: int, way: int) -> float:
        return options[order[rank]][way][0]

    # (sum, last list touched, ways of the touched lists as (rank, way) pairs)
    heap: list[tuple[float, int, tuple[tuple[int, int], ...]]] = [(cost(0, 1), 0, ((0, 1),))]
    while heap:
        total, rank, ways = heapq.heappop(heap)
        chosen = [first[0][1] for first in options]
        for touched, way in ways:
            chosen[order[touched]] = options[order[touched]][way][1]
        yield tuple(chosen)
        way = ways[-1][1]
        if way + 1 < len(options[order[rank]]):
            further = total - cost(rank, way) + cost(rank, way + 1)
            heapq.heappush(heap, (further, rank, (*ways[:-1], (rank, way + 1))))
        if rank + 1 < len(order):
            step = cost(rank + 1, 1)
            heapq.heappush(heap, (total + step, rank + 1, (*ways, (rank + 1, 1))))
            if way == 1:
                heapq.heappush(heap, (total - cost(rank, 1) + step, rank + 1, (*ways[:-1], (rank + 1, 1))))
