"""Insertion: what is missing in a history and where, against plain sums; sequences completed within their bounds."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from recjax.data.batches.histories import Histories
from recjax.data.batches.insertions import Insertions
from recjax.data.batches.loader import Loader
from recjax.data.batches.views import Queries
from recjax.data.items import bare_items
from recjax.decode.insertion import insert
from recjax.models.insertion import Insertion
from recjax.models.model import ItemStats
from recjax.models.parts.objectives import BCE
from recjax.ops.items.log_normalisers import log_normalisers
from recjax.settings import SettingError
from tests.drawn import drawn_for

ITEMS, LENGTH = 9, 8
STATS, KNOWN = ItemStats(ITEMS, np.ones(ITEMS + 1, np.int64)), bare_items(ITEMS)
SIZE: dict[str, Any] = dict(width=16, layers=1, inner=16, dropout=0.0, max_length=LENGTH + 1)
CLASS = ITEMS + 1


def histories(lengths: list[int], seed: int = 0) -> Histories:
    items = np.random.default_rng(seed).integers(1, ITEMS + 1, sum(lengths)).astype(np.int32)
    return Histories.concatenated(np.array(lengths), items, np.arange(len(items)), np.arange(len(lengths)))


def batch_of(source: Histories, view: Insertions, rows: int, step: int = 0, packed: bool = True) -> Any:
    return Loader(source, view, rows, None, 0, ITEMS, packed).host_batch(step)


def samples(batch: Any) -> Any:
    """(row, first place, places) of each sample."""
    for row in range(len(batch.items)):
        for segment in range(1, batch.segments[row].max() + 1):
            places = np.flatnonzero(batch.segments[row] == segment)
            yield row, places[0], places


def restored(batch: Any, row: int, places: np.ndarray) -> list[int]:
    """The window of a sample, its dropped events put back."""
    kept = [int(x) for x in batch.items[row, places][1:] if x > 0]
    gaps: dict[int, list[int]] = {gap: [] for gap in range(len(kept) + 1)}
    for place in places[len(kept) + 1 :]:
        gaps[int(batch.positions[row, place])].append(int(batch.targets[row, place]))
    return sum(([*gaps[gap], *kept[gap : gap + 1]] for gap in gaps), [])


@pytest.mark.parametrize("windows", ["last", "random"])
def test_a_sample_is_a_window_in_two_parts_and_the_loss_has_its_shares(windows):
    """Put together again, they are a stretch of the history; what was dropped stands nowhere among the inputs."""
    source, view = histories([8, 5, 3, 12, 1, 9]), Insertions(LENGTH + 1, windows)
    counts = []
    for step in range(40):
        batch = batch_of(source, view, 3, step)
        every = [tuple(source.history(row)) for row in range(6)]
        for row, first, places in samples(batch):
            events = len(places) - 1
            window = tuple(restored(batch, row, places))
            ends = [h[-events:] for h in every] if windows == "last" else None
            found = ends if ends else [h[at : at + events] for h in every for at in range(len(h) - events + 1)]
            assert window in found and events >= 2
            weights, missing = batch.weights[row, places], batch.items[row, places] == 0
            assert batch.items[row, first] == CLASS and weights[0] == 1
            assert (batch.targets[row, first] == CLASS) == (not missing.any())
            assert not missing.any() or np.isclose(weights[missing].sum(), 1)
            assert not batch.weights[row, places][1:][~missing[1:]].any()
            counts += [missing.sum() / events]
    assert 0.4 < np.mean(counts) < 0.6 and {0.0, 1.0} <= set(counts)
    again = batch_of(source, view, 3, 7)
    jax.tree.map(np.testing.assert_array_equal, again, batch_of(source, view, 3, 7))


def brute_force(model: Any, params: Any, batch: Any, stop: float) -> float:
    """Sample after sample: logits of all gaps and items, their softmax, and the targets' shares; and the stop."""
    table, bias = np.asarray(params["items"], np.float64), np.asarray(params["bias"], np.float64)
    total, count = 0.0, 0
    for row, _, places in samples(batch):
        kept = int((batch.items[row, places] > 0).sum())
        alone = np.zeros((1, LENGTH + 1), np.int32)
        alone[0, :kept] = batch.items[row, places[:kept]]
        states, hidden, *_ = model.gaps(params, jnp.asarray(alone), jnp.asarray(alone > 0, jnp.int32))
        logits = np.asarray(states, np.float64)[0, :kept] @ table[1 : ITEMS + 1].T + bias[1 : ITEMS + 1]
        target = np.zeros_like(logits)
        dropped = places[kept:]
        for place in dropped:
            target[batch.positions[row, place], batch.targets[row, place] - 1] += 1 / len(dropped)
        total -= np.sum(target * (logits - np.log(np.exp(logits).sum())))
        said = float(model.stops(params, hidden[0, 0]))
        total += stop * (np.log1p(np.exp(said)) - said * (len(dropped) == 0))
        count += 1
    return total / count


def some_params(model: Any, batch: Any, seed: int = 0) -> Any:
    params = drawn_for(model.init, jax.random.key(seed), batch, KNOWN)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return tree.unflatten([x + 0.3 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)])


@pytest.mark.parametrize("sides", ["both", "left"])
def test_the_loss_is_the_sum_over_all_gaps_and_items(sides):
    source = histories([4, 4, 4, 4, 3])
    batch = batch_of(source, Insertions(LENGTH + 1, "last"), 3)
    assert batch.segments.max() > 1
    model = Insertion(**SIZE, stop=0.7, sides=sides).build(STATS)
    params = some_params(model, batch)
    loss = jax.jit(lambda p, b: model.loss(p, b, KNOWN, None)[0])
    np.testing.assert_allclose(float(loss(params, batch)), brute_force(model, params, batch, 0.7), rtol=1e-5)
