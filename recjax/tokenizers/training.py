"""Batches of vectors for tokenizers that are trained, and a plain loop for where the training loop is not at hand.

The model of such a tokenizer has the `init` and `loss` of every model, and `VectorBatches` is a loader like any other,
so `recjax.train.loop.fit` trains it in a run folder, with checkpoints and logs, through a `Trainer` given to `fit`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from recjax.data.batches.hash_random import EndlessOrder
from recjax.data.batches.loader import RowLoader
from recjax.late import optax
from recjax.track.console import tracked
from recjax.typing import Array, Float, InputError, Int, Params


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class VectorBatch:
    """Vectors of some items.

    Attributes:
        items: which items they are.
        vectors: their prepared vectors.
    """

    items: Int[Array, " b"]
    vectors: Float[Array, "b d"]


class VectorBatches(RowLoader[VectorBatch]):
    """Training batches: `batch(step)` is a pure function of (vectors, rows, seed, step).

    The rows are the items in random orders, a new one every epoch: every item is used exactly once in every epoch.

    Args:
        vectors: float32 [n + 1, d], prepared, row 0 padding.
        known: bool [n + 1], the items that are used.
        rows: of a global batch.
        seed: of the orders.

    Raises:
        InputError: no item is known, or the rows do not divide over the mesh.
    """

    def __init__(self, vectors: np.ndarray, known: np.ndarray, rows: int, seed: int = 0):
        self.vectors = vectors
        self.items = np.flatnonzero(known).astype(np.int32)
        if not len(self.items):
            raise InputError("no item has a vector, so there is nothing to train a tokenizer on")
        if rows < 1:
            raise InputError(f"batch is {rows}, expected at least 1")
        self._order = EndlessOrder(self.items, seed)
        super().__init__(rows, len(self.items))

    def _fill(self, step: int, local: np.ndarray) -> VectorBatch:
        items: Any = self._order.at(step * self.rows + local)[1]
        vectors: Any = self.vectors[items]
        return VectorBatch(items, vectors)


class Trainable(Protocol):
    """A model of vectors, and how long to train it."""

    @property
    def steps(self) -> int: ...

    @property
    def learning_rate(self) -> float: ...

    def init(self, key: Array, batch: Any) -> Params: ...

    def loss(self, params: Params, batch: Any, key: Array | None) -> tuple[Array, dict[str, tuple[Array, Array]]]: ...


Trainer = Callable[[Any, VectorBatches, Array], Params]
"""(model, batches, key) -> trained parameters."""


class Refresh(NamedTuple):
    """Something done to parameters between steps.

    Attributes:
        every: so many steps, but not before the first.
        update: (parameters, number of the step that comes next) -> parameters.
    """

    every: int
    update: Callable[[Params, int], Params]


def train_plainly(model: Trainable, batches: VectorBatches, key: Array, refresh: Refresh | None = None) -> Params:
    """Adam with cosine decay for the model's `steps`, without checkpoints."""
    init, init_optimiser, update = _programs(model)
    init_key, step_key = jax.random.split(key)
    params = init(init_key, batches.batch(0))
    if not model.steps:
        return params
    opt_state = init_optimiser(params)
    for step, batch in enumerate(tracked(batches.iterate(0, model.steps), model.steps, "fitting item codes")):
        if refresh is not None and step and step % refresh.every == 0:
            params = refresh.update(params, step)
        params, opt_state = update(params, opt_state, batch, step_key, np.int32(step))
        # On host devices, steps in flight wait for each other's collectives until XLA gives up; one at a time cannot.
        jax.block_until_ready(params)
    return params


@lru_cache(maxsize=4)
def _programs(model: Trainable) -> tuple[Callable[..., Any], ...]:
    """The compiled start of parameters, start of the optimiser, and step: a tokenizer fitted again compiles nothing."""
    optimiser = optax.adam(optax.cosine_decay_schedule(model.learning_rate, max(model.steps, 1)))

    def update(params: Params, opt_state: Any, batch: VectorBatch, key: Array, step: Array) -> tuple[Params, Any]:
        grads, _ = jax.grad(model.loss, has_aux=True)(params, batch, jax.random.fold_in(key, step))
        updates, opt_state = optimiser.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    return jax.jit(model.init), jax.jit(optimiser.init), jax.jit(update, donate_argnums=(0, 1))
