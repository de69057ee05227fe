"""Training objectives of models that score an item by a dot product with its vector.

An objective is a frozen dataclass; called, it returns the weighted sum of losses over the positions of a batch. The
sampled ones differ in where negatives come from and in what they do with the scores. `by_rows` is true where the loss
of a row is the same beside other rows.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from recjax.data.batches.views import Batch
from recjax.limits import COUNT, SIZE, require, within
from recjax.models.model import ItemStats
from recjax.ops.items.embedding import RowGradientTable, lookup, lookup_shared
from recjax.ops.items.membership import in_history
from recjax.ops.items.sampled_losses import bpr, gbce, gbce_beta, sampled_softmax
from recjax.ops.items.softmax import full_softmax
from recjax.typing import Array, Bool, Float, InputError, Int

Sampling = Literal["uniform", "popularity", "in-batch"]
Sharing = Literal["position", "row", "batch"]


@dataclass(frozen=True)
class FullSoftmax:
    """Cross-entropy over the whole catalog, in chunks (see `recjax.ops.items.softmax`).

    Attributes:
        chunk_elements: most logits on a device at a time; None: what suits the device.
    """

    chunk_elements: int | None = None
    by_rows: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(self, chunk_elements=COUNT)

    def __call__(self, hidden, table, bias, batch: Batch, key, stats: ItemStats) -> Float[Array, ""]:
        if isinstance(table, RowGradientTable):
            raise InputError("optim.sparse updates the items of a sampled loss, but FullSoftmax looks at every item")
        return full_softmax(
            hidden,
            table,
            bias,
            batch.targets,
            batch.weights,
            items=stats.items,
            chunk_elements=self.chunk_elements,
        )


@dataclass(frozen=True)
class Negatives:
    """Source of the negatives of a position.

    Attributes:
        count: negatives per position; for "in-batch" they are the targets of `count` random positions.
        sampling: "uniform" over the catalog, "popularity" by training counts, or "in-batch".
        share: "position" draws afresh for each position, "row" once per packed row, "batch" once for all: shared
            negatives turn a gather of `count` vectors a position into one matrix product.
        outside_history: redraw (up to three times) negatives that stand in the same history; with share "row", in the
            same row; not with "batch".
    """

    count: int = 1
    sampling: Sampling = "uniform"
    share: Sharing = "position"
    outside_history: bool = False

    def __post_init__(self) -> None:
        require(self, count=SIZE)

    @property
    def by_rows(self) -> bool:
        """True if rows have negatives of their own, drawn without a look at other rows."""
        return self.share != "batch" and self.sampling != "in-batch"

    def draw(self, batch: Batch, key: Array, stats: ItemStats) -> Int[Array, "..."]:
        """Item ids: [b, l, n], [b, n] or [n], by `share`."""
        rows, length = batch.items.shape
        shape = {"position": (rows, length), "row": (rows,), "batch": ()}[self.share] + (self.count,)
        drawn = self._draw(key, shape, batch, stats)
        if self.outside_history:
            for attempt in range(3):
                again = self._draw(jax.random.fold_in(key, attempt + 1), shape, batch, stats)
                drawn = jnp.where(_in_history(drawn, batch), again, drawn)
        return drawn

    def _draw(self, key: Array, shape: tuple[int, ...], batch: Batch, stats: ItemStats) -> Array:
        if self.sampling == "uniform":
            return jax.random.randint(key, shape, 1, stats.items + 1)
        if self.sampling == "popularity":
            uniform = jax.random.uniform(key, shape)
            share = np.cumsum(stats.counts / max(stats.counts.sum(), 1)).astype(np.float32)
            return jnp.clip(jnp.searchsorted(share, uniform, side="right"), 1, stats.items).astype(jnp.int32)
        # Targets stand in rows; a draw among all positions, weighted by whether there is a target.
        present = (batch.weights > 0).reshape(-1)
        order = jnp.argsort(~present, stable=True)
        pick = jax.random.uniform(key, shape) * jnp.maximum(present.sum(), 1)
        return batch.targets.reshape(-1)[order[pick.astype(jnp.int32)]]

    def log_rate(self, ids: Array, stats: ItemStats) -> Array:
        """log of the expected number of draws of an item, count x q(item): what logQ correction subtracts."""
        if self.sampling == "uniform":
            return jnp.full(ids.shape, np.log(self.count / stats.items), jnp.float32)
        share = np.maximum(stats.counts, 1e-3) / max(stats.counts.sum(), 1)
        return jnp.asarray(np.log(self.count * share), jnp.float32)[ids]


def _in_history(drawn: Int[Array, "b *l n"], batch: Batch) -> Bool[Array, "b *l n"]:
    """True if a drawn item stands in the same history of the same row, or is its target; of those of a row, in it."""
    if drawn.ndim == 2:
        return jnp.any(drawn[..., None] == jnp.concatenate([batch.items, batch.targets], axis=1)[:, None], axis=-1)
    return in_history(drawn, batch.items, batch.segments) | (drawn == batch.targets[..., None])


def _scores(hidden, table, bias, batch: Batch, drawn: Array):
    """Scores of targets [b, l] and negatives [b, l, n], and which negatives are not the target [b, l, n]."""
    target = lookup(table, batch.targets).astype(hidden.dtype)
    positive = jnp.sum(hidden * target, axis=-1, dtype=jnp.float32)
    vectors, equation = _of_drawn(table, drawn).astype(hidden.dtype), _PRODUCT[drawn.ndim]
    negative = jnp.einsum(equation, hidden, vectors, preferred_element_type=jnp.float32)
    ids = jnp.expand_dims(drawn, tuple(range(drawn.ndim - 1, 2)))
    if bias is not None:
        column = bias[:, None]
        positive = positive + lookup(column, batch.targets)[..., 0]
        negative = negative + _of_drawn(column, drawn).reshape(ids.shape)
    allowed = jnp.broadcast_to(ids != batch.targets[..., None], negative.shape)
    return positive, negative, allowed, ids


_PRODUCT = {3: "bld,blnd->bln", 2: "bld,bnd->bln", 1: "bld,nd->bln"}
"""States with negatives of each position, of each row, or of all rows."""


def _of_drawn(table, drawn: Array) -> Array:
    """Rows of a table at ids [b, l, n], [b, n] or [n]: with one more axis, of the table's columns."""
    if drawn.ndim == 1:
        return lookup_shared(table, drawn)
    return lookup(table, drawn.reshape(len(drawn), -1)).reshape(*drawn.shape, -1)


def _weighted(losses: Array, batch: Batch) -> Array:
    return jnp.sum(jnp.where(batch.weights > 0, batch.weights * losses, 0.0))


class _Sampling:
    """Source of the negatives of a loss, by its settings."""

    negatives: int
    sampling: Sampling
    share: Sharing

    @property
    def source(self) -> Negatives:
        return Negatives(self.negatives, self.sampling, self.share)

    @property
    def by_rows(self) -> bool:
        return self.source.by_rows


@dataclass(frozen=True)
class SampledSoftmax(_Sampling):
    """Softmax cross-entropy against sampled negatives.

    Attributes:
        negatives: number of them.
        sampling: see `Negatives`.
        share: see `Negatives`.
        log_q: subtract the log of the expected number of draws from each negative's score, which makes the sampled
            normaliser an unbiased estimate of the full one (Bengio & Senecal 2008; Yi et al. 2019).
    """

    negatives: int = 256
    sampling: Sampling = "uniform"
    share: Sharing = "row"
    log_q: bool = False

    def __post_init__(self) -> None:
        require(self, negatives=SIZE)

    def __call__(self, hidden, table, bias, batch: Batch, key, stats: ItemStats) -> Float[Array, ""]:
        source = self.source
        positive, negative, allowed, ids = _scores(hidden, table, bias, batch, source.draw(batch, key, stats))
        if self.log_q:
            negative = negative - source.log_rate(ids, stats)
        return _weighted(sampled_softmax(positive, negative, allowed), batch)


@dataclass(frozen=True)
class BCE:
    """Binary cross-entropy with negatives outside the history, SASRec's own loss (Kang & McAuley 2018, eq. 6)."""

    negatives: int = 1
    by_rows: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(self, negatives=SIZE)

    def __call__(self, hidden, table, bias, batch: Batch, key, stats: ItemStats) -> Float[Array, ""]:
        source = Negatives(self.negatives, outside_history=True)
        positive, negative, allowed, _ = _scores(hidden, table, bias, batch, source.draw(batch, key, stats))
        return _weighted(gbce(positive, negative, allowed) * (1 + self.negatives), batch)


@dataclass(frozen=True)
class GBCE(_Sampling):
    """Generalised binary cross-entropy, gSASRec's loss (Petrov & Macdonald 2023).

    Attributes:
        negatives: number of them.
        t: calibration; 0 is the binary cross-entropy, 1 gives calibrated probabilities.
        sampling: see `Negatives`.
        share: see `Negatives`; the paper draws per position.
    """

    negatives: int = 256
    t: float = 0.75
    sampling: Sampling = "uniform"
    share: Sharing = "row"

    def __post_init__(self) -> None:
        require(self, negatives=SIZE, t=within(0, 1))

    def __call__(self, hidden, table, bias, batch: Batch, key, stats: ItemStats) -> Float[Array, ""]:
        source = self.source
        positive, negative, allowed, _ = _scores(hidden, table, bias, batch, source.draw(batch, key, stats))
        beta = gbce_beta(stats.items, self.negatives, self.t)
        return _weighted(gbce(positive, negative, allowed, beta), batch)


@dataclass(frozen=True)
class BPR:
    """Bayesian personalised ranking with negatives outside the history (Rendle et al. 2009)."""

    negatives: int = 1
    by_rows: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(self, negatives=SIZE)

    def __call__(self, hidden, table, bias, batch: Batch, key, stats: ItemStats) -> Float[Array, ""]:
        source = Negatives(self.negatives, outside_history=True)
        positive, negative, allowed, _ = _scores(hidden, table, bias, batch, source.draw(batch, key, stats))
        return _weighted(bpr(positive, negative, allowed), batch)


Objective = FullSoftmax | SampledSoftmax | BCE | GBCE | BPR
