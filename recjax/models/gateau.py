"""GATEAU: histories that need their length weigh more (Si et al., EMNLP Findings 2025), its first half.

Si et al., GATEAU: Selecting Influential Samples for Long Context Alignment. The second half, which compares attention
to segments of a document with how useful they are, has no counterpart in a history and is left out.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from recjax.data.batches.views import Batch
from recjax.data.items import Items
from recjax.limits import COUNT, SIZE, between, require, within
from recjax.models.model import ItemStats, Sweep, WeightedSums
from recjax.models.parts.dot_product import DotProductModel
from recjax.models.sasrec import SASRec
from recjax.nn.groups import FROZEN
from recjax.ops.items.chunked_logsumexp import log_partition
from recjax.ops.items.embedding import lookup
from recjax.typing import Array, Float, InputError, Params


@dataclass(frozen=True)
class GATEAU(SASRec):
    """SASRec whose loss weighs each sample by how much its targets need more than the last few events.

    Before some epochs the model's mean negative log-likelihood of a sample's targets is measured twice: given the last
    `short` events alone, and given all that the view has. A sample's score is the softmax, over all samples, of

        minmax(nll_short) - minmax(nll_long).

    The paper compares two language models of different windows; here one model sees two windows. The view is a
    `Numbered` view.

    Attributes:
        room: samples that there is room for.
        short: events of the short context.
        first: epoch that the first weights come before; until then all weigh 1. With `first` beyond the run, it is
            SASRec.
        every: epochs between two updates.
        select: "weights" multiplies the loss of a sample by its score, scaled to a mean of 1. The others train on a
            share of the samples alone: the "top" ones by score, or, as controls, the "longest" ones or "random" ones,
            the same throughout.
        share: of the samples that are left then.
    """

    room: int = 32_768
    short: int = 5
    first: int = 2
    every: int = 1
    select: Literal["weights", "top", "longest", "random"] = "weights"
    share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, room=SIZE, short=SIZE, first=within(0, 2**31), every=COUNT, share=between(0, 1))

    def build(self, stats: ItemStats) -> "GATEAUModel":
        base = super().build(stats)
        return GATEAUModel(base.module, base.objective, stats, self)


@dataclass(frozen=True)
class GATEAUModel(DotProductModel):
    """The built model; weights of the samples are frozen parameters."""

    config: GATEAU
    streams: ClassVar[bool] = True  # weights are of the loss alone

    @property
    def per_item(self) -> tuple[str, ...]:
        return ("items",)

    @property
    def refresh_every(self) -> Literal["epoch"]:
        return "epoch"

    def init(self, key: Array, batch: Batch, items: Items) -> Params:
        return {**super().init(key, batch, items), FROZEN: {"weights": jnp.ones(self.config.room)}}

    def loss(self, params: Params, batch: Batch, items: Items, key: Array | None) -> tuple[Array, WeightedSums]:
        if "samples" not in batch.more:
            raise InputError("GATEAU weighs samples: data.view has to be a Numbered view")
        own = jnp.take(jax.lax.stop_gradient(params[FROZEN]["weights"]), batch.more["samples"], mode="clip")
        return super().loss(params, replace(batch, weights=batch.weights * own.reshape(len(own), -1)), items, key)

    def measured(self, params: Params, batch: Batch, items: Items) -> dict[str, Float[Array, "b l"]]:
        """Mean negative log-likelihood of a history's targets up to each event, by either context; their number."""
        places = jnp.arange(batch.items.shape[1])
        recent = places[:, None] - jnp.arange(self.config.short)[::-1]
        cut = lambda x: x[:, jnp.maximum(recent, 0)].reshape(-1, self.config.short)  # noqa: E731
        whole = batch.segments[:, :, None] == batch.segments[:, None]
        inside = (recent >= 0) & (batch.segments[:, jnp.maximum(recent, 0)] == batch.segments[:, :, None])
        inside = inside.reshape(-1, self.config.short)
        windows = replace(
            batch,
            items=jnp.where(inside, cut(batch.items), 0),
            positions=cut(batch.positions),
            segments=inside.astype(jnp.int32),
            timestamps=None if batch.timestamps is None else cut(batch.timestamps),
        )
        short = self.states(params, windows, items)[:, -1].reshape(*batch.items.shape, -1)
        past = jnp.where(whole & (places <= places[:, None]), batch.weights[:, None], 0.0)
        count = jnp.sum(past, axis=-1)
        mean = lambda x: jnp.einsum("blk,bk->bl", past, x) / jnp.maximum(count, 1.0)  # noqa: E731
        long = self.states(params, batch, items)
        return {
            "short": mean(self._surprise(params, batch, short)),
            "long": mean(self._surprise(params, batch, long)),
            "count": count,
        }

    def _surprise(self, params: Params, batch: Batch, states: Float[Array, "b l d"]) -> Float[Array, "b l"]:
        """Negative log-likelihood of each target in the whole catalog."""
        table, flat = self.table(params), states.reshape(-1, states.shape[-1])
        none, start, size = jnp.zeros((len(flat), 1), jnp.int32), jnp.int32(0), jnp.int32(self.n_items)
        total = log_partition(lambda _, rows: rows, {}, table, flat, none, start, size).reshape(batch.items.shape)
        return total - jnp.sum(states * lookup(table, batch.targets), axis=-1)

    def refresh(self, params: Params, items: Items, sweep: Sweep) -> Params:
        """Weights after an update, in the epochs that have one."""
        config = self.config
        if sweep.epoch < config.first or (sweep.epoch - config.first) % config.every:
            return params
        found: Any = sweep(self.measured)
        if (samples := len(found["short"])) > config.room:
            raise InputError(f"model.room is {config.room}, but there are {samples} samples")
        weights = np.array(params[FROZEN]["weights"])
        weights[:samples] = self._weights(found, samples)
        return {**params, FROZEN: {"weights": weights}}

    def _weights(self, found: dict[str, np.ndarray], samples: int) -> np.ndarray:
        config = self.config
        scores = need_of_length(found["short"], found["long"])
        if config.select == "weights":
            return samples * scores
        by = {"top": scores, "longest": found["count"], "random": np.random.default_rng(0).random(samples)}
        chosen = np.argsort(-by[config.select], kind="stable")[: max(1, round(config.share * samples))]
        return np.bincount(chosen, minlength=samples) * (samples / len(chosen))


def need_of_length(short: np.ndarray, long: np.ndarray) -> np.ndarray:
    """float [n], summing to 1: how much each sample's targets need the long context.

    >>> need_of_length(np.array([1.0, 3.0, 3.0]), np.array([1.0, 1.0, 3.0])).round(3).tolist()
    [0.212, 0.576, 0.212]

    Args:
        short: [n], mean negative log-likelihood by a short context.
        long: [n], the same by a long one.
    """
    raised = np.exp(_scaled(short) - _scaled(long))
    return raised / raised.sum()


def _scaled(values: np.ndarray) -> np.ndarray:
    """From 0 for the smallest to 1 for the largest; 0 where all are equal."""
    values = values - values.min()
    return values / (values.max() or 1.0)
