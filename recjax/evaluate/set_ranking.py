"""Ranks of several targets a user: by a model on the devices, or by a function that scores the catalog on the host."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recjax.data.batches.loader import query_batches
from recjax.data.batches.views import Queries, View
from recjax.data.items import Items
from recjax.data.ranges import exclusive_sum, ranges
from recjax.data.splits import Examples, Histories
from recjax.decode.scoring import UNRANKED
from recjax.evaluate.host_ranking import CHUNK_SCORES, top_items
from recjax.evaluate.metrics import MISS
from recjax.evaluate.ranking import NonFiniteScoresError, SameModel, answered, few_shapes, prepared, replicated
from recjax.models.model import Model
from recjax.parallel.sharding import local_rows, row_sharding, to_devices
from recjax.typing import Array, Params


@dataclass(frozen=True, eq=False)
class TargetSets:
    """The distinct targets of each example.

    Attributes:
        offsets: int64 [n + 1]; those of example i are `items[offsets[i]:offsets[i + 1]]`.
        items: int32 [m], ascending for each example.
        repeat: bool [m]: the item is in the example's history.
    """

    offsets: np.ndarray
    items: np.ndarray
    repeat: np.ndarray

    @classmethod
    def of(cls, examples: Examples) -> "TargetSets":
        """The targets of the examples; of those with one target each, sets of one."""
        lengths = np.ones(len(examples), np.int64) if examples.sets is None else examples.sets.lengths
        histories, every = examples.histories.compact(), np.arange(len(examples))
        size = 1 + max(int(np.max(items, initial=0)) for items in (examples.all_targets, histories.items))
        keys = np.unique(np.repeat(every, lengths) * size + examples.all_targets)
        seen = np.unique(np.repeat(every, histories.lengths) * size + histories.items)
        counts = np.bincount(keys // size, minlength=len(examples))
        return cls(exclusive_sum(counts), (keys % size).astype(np.int32), np.isin(keys, seen, assume_unique=True))

    @property
    def lengths(self) -> np.ndarray:
        """int64 [n], targets of each example."""
        return np.diff(self.offsets)

    @property
    def rows(self) -> np.ndarray:
        """int64 [m], the example of each target."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    def places(self, rows: np.ndarray) -> np.ndarray:
        """Places of the targets of some examples in `items`, example after example."""
        return ranges(self.offsets[rows], self.lengths[rows])


@dataclass(frozen=True, eq=False)
class SetRankings:
    """Ranks of the targets of each example, in the order of `sets.items`.

    Attributes:
        sets: the targets.
        whole: int64 [m], rank in the whole catalog, or `metrics.MISS`.
        unseen: int64 [m], rank where the items of the history do not compete; meant for targets that are no repeats.
        lists: int32 [n, k], best items, 0 where a list ran out.
    """

    sets: TargetSets
    whole: np.ndarray
    unseen: np.ndarray
    lists: np.ndarray = field(repr=False)

    @property
    def seen(self) -> np.ndarray:
        """int64 [m], rank where the items of the history alone compete; meant for repeats."""
        missed = np.maximum(self.whole, self.unseen) == MISS
        return np.where(missed, MISS, self.whole - self.unseen + 1)


@partial(jax.jit, static_argnames=("identity", "k", "mask_seen"))
def _ranked(
    identity: SameModel, params: Params, queries: Queries, items: Items, targets: Array, k: int, mask_seen: bool
) -> tuple[Array, Array, Array]:
    """Ranks in the whole catalog and among unseen items, and lists: all of one forward pass."""
    scoring = identity.model.scoring(params, queries, items)
    nothing = jnp.zeros((targets.shape[0], 1), jnp.int32)
    unseen = scoring.ranks(targets, queries.seen)
    whole = unseen if mask_seen else scoring.ranks(targets, nothing)
    lists = scoring.topk(queries.seen if mask_seen else nothing, k)[0]
    return jax.tree.map(replicated, (whole, unseen, lists))


def rank_sets(
    model: Model,
    params: Params,
    examples: Examples,
    view: View,
    user_name: Callable[[int], str],
    items: Items | None,
    *,
    mask_seen: bool,
    users_per_batch: int,
    k: int,
    progress: bool = False,
) -> SetRankings:
    """Ranks all targets of every example, on all devices of the current mesh.

    Args:
        model: what ranks.
        params: its parameters.
        examples: histories and targets.
        view: how a history becomes a query.
        user_name: number of a dataset user -> the user's name in an error message.
        items: of the catalog, on the devices; None for a model of item ids.
        mask_seen: whether the items of the history leave the ranking; a target among them is a miss.
        users_per_batch: queries of a batch over all devices.
        k: length of the lists.
        progress: show how far it is, see `recjax.track.console.tracked`.

    Raises:
        NonFiniteScoresError: names the users.
    """
    sets, sharding = TargetSets.of(examples), row_sharding()
    whole, unseen = np.zeros(len(sets.items), np.int64), np.zeros(len(sets.items), np.int64)
    lists = np.zeros((len(examples), k), np.int32)
    items = prepared(model, params, items)

    def ask(queries: Queries, rows: np.ndarray) -> Any:
        # Powers of two, so that few shapes are compiled; every process sees all rows, so all agree on the width.
        width = 1 << int(np.ceil(np.log2(sets.lengths[rows[rows >= 0]].max(initial=1))))
        mine = rows[local_rows(sharding, len(rows))]
        used = np.flatnonzero(mine >= 0)
        targets = np.zeros((len(mine), width), np.int32)
        targets.reshape(-1)[ranges(used * width, sets.lengths[mine[used]])] = sets.items[sets.places(mine[used])]
        targets = to_devices(targets, sharding, len(rows))
        return _ranked(SameModel(model), params, queries, items, targets, k, mask_seen)

    batches = query_batches(examples, view, model.n_items, users_per_batch, shapes=few_shapes(examples))
    for rows, found in answered(batches, ask, len(examples), users_per_batch, progress):
        lengths, places = sets.lengths[rows], sets.places(rows)
        width = found[0].shape[1]
        at = ranges(np.arange(len(rows)) * width, lengths)
        whole[places], unseen[places] = (ranks.reshape(-1)[at] for ranks in found[:2])
        lists[rows] = found[2]
    if not whole.all():
        broken = np.unique(sets.rows[whole == 0])
        raise NonFiniteScoresError.of([user_name(user) for user in examples.histories.users[broken].tolist()])
    return SetRankings(sets, _missed(whole, sets, mask_seen), _missed(unseen, sets, mask_seen), lists)


def _missed(ranks: np.ndarray, sets: TargetSets, mask_seen: bool) -> np.ndarray:
    return np.where((ranks == UNRANKED) | (sets.repeat & mask_seen), MISS, ranks)


def rank_sets_scored(
    score: Callable[[Histories], np.ndarray], examples: Examples, n_items: int, *, mask_seen: bool, k: int
) -> SetRankings:
    """Ranks all targets of every example by a function that scores the catalog on the host.

    Args:
        score: histories -> float64 [n, v], a fresh array; column 0 (padding) is ignored, -inf is not recommended.
        examples: histories and targets.
        n_items: catalog size.
        mask_seen: whether the items of the history leave the ranking; a target among them is a miss.
        k: length of the lists.
    """
    sets = TargetSets.of(examples)
    whole, unseen = np.zeros(len(sets.items), np.int64), np.zeros(len(sets.items), np.int64)
    lists = np.zeros((len(examples), k), np.int32)
    size = max(1, CHUNK_SCORES // (n_items + 1))
    for start in range(0, len(examples), size):
        rows = np.arange(start, min(start + size, len(examples)))
        histories, places = examples.histories.take(rows), sets.places(rows)
        scores = score(histories)
        scores[:, 0] = -np.inf
        seen = np.zeros(scores.shape, bool)
        seen[np.repeat(np.arange(len(rows)), histories.lengths), histories.items] = True
        order = np.argsort(-scores, axis=1, kind="stable")  # equal scores by id
        at = np.empty_like(order)
        np.put_along_axis(at, order, np.arange(n_items + 1)[None], axis=1)
        ahead = np.cumsum(np.take_along_axis(seen, order, axis=1), axis=1)  # seen items up to each place
        target = sets.rows[places] - start, sets.items[places]
        place = at[target]
        whole[places] = 1 + place
        unseen[places] = 1 + place - ahead[target[0], place] + seen[target]
        missed = places[scores[target] == -np.inf]
        whole[missed] = unseen[missed] = MISS
        lists[rows] = top_items(np.where(seen, -np.inf, scores) if mask_seen else scores, k)
    if mask_seen:
        whole = unseen
    return SetRankings(sets, _missed(whole, sets, mask_seen), _missed(unseen, sets, mask_seen), lists)
