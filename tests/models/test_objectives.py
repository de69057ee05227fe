"""Objectives: where negatives come from, and that the sampled ones estimate what they claim to."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from recjax.data.batches.views import Batch
from recjax.models.model import ItemStats
from recjax.models.parts.objectives import BCE, BPR, GBCE, FullSoftmax, Negatives, SampledSoftmax
from recjax.ops.items.softmax import full_softmax_dense

ITEMS = 60


def _batch() -> Batch:
    rng = np.random.default_rng(0)
    items = rng.integers(1, ITEMS + 1, (4, 12)).astype(np.int32)
    segments = np.ones((4, 12), np.int32)
    segments[1, 6:] = 2
    segments[2, 9:] = 0
    weights = (segments > 0).astype(np.float32)
    weights[:, 3] = 0
    targets = np.where(weights > 0, rng.integers(1, ITEMS + 1, (4, 12)), 0).astype(np.int32)
    positions = np.tile(np.arange(12, dtype=np.int32), (4, 1))
    return Batch(items, segments, positions, targets, weights)  # pyright: ignore[reportArgumentType]


def _stats() -> ItemStats:
    counts = np.random.default_rng(1).integers(1, 50, ITEMS + 1)
    counts[0] = 0
    return ItemStats(ITEMS, counts)


def _arrays(width=8):
    rng = np.random.default_rng(2)
    return tuple(rng.normal(size=shape).astype(np.float32) for shape in ((4, 12, width), (128, width), 128))


def _drawn(negatives: Negatives) -> np.ndarray:
    """Of the batch, for one key."""
    drawn = jax.jit(lambda batch, key: negatives.draw(batch, key, _stats()))
    return np.asarray(drawn(_batch(), jax.random.key(0)))


ALL = [FullSoftmax(), SampledSoftmax(8), BCE(), GBCE(8), BPR()]


@pytest.mark.parametrize("objective", ALL, ids=lambda o: type(o).__name__)
def test_positions_without_weight_do_not_matter(objective):
    hidden, table, bias = _arrays()
    batch, stats = _batch(), _stats()

    @jax.jit
    def graded(hidden, table):
        total = lambda *arrays: objective(*arrays, bias, batch, jax.random.key(0), stats)  # noqa: E731
        return jax.value_and_grad(total, argnums=(0, 1))(hidden, table)

    value, (by_hidden, by_table) = graded(hidden, table)
    idle = np.asarray(batch.weights) == 0
    assert np.isfinite(value) and value > 0
    assert not np.any(np.asarray(by_hidden)[idle])
    # A pairwise loss has nothing to say where its only negative happens to be the target.
    assert np.mean(np.any(np.asarray(by_hidden)[~idle] != 0, axis=-1)) > 0.9
    assert not np.any(np.asarray(by_table)[ITEMS + 1 :])
    moved = np.where(idle[..., None], np.float32(100), hidden)
    np.testing.assert_allclose(graded(moved, table)[0], value, rtol=1e-6)


@pytest.mark.parametrize("share", ["position", "row", "batch"])
@pytest.mark.parametrize("sampling", ["uniform", "popularity"])
def test_sampled_softmax_with_log_q_estimates_the_full_one(share, sampling):
    hidden, table, _ = _arrays()
    hidden *= 0.5
    batch, stats = _batch(), _stats()

    @jax.jit
    def losses(key):
        """Exact, and of draws with and without the correction."""
        flat = (hidden.reshape(48, -1), table, None, batch.targets.reshape(48), batch.weights.reshape(48))
        sampled = (SampledSoftmax(2000, sampling, share, log_q=log_q) for log_q in (True, False))
        return full_softmax_dense(*flat, items=ITEMS), *(
            each(hidden, table, None, batch, key, stats) for each in sampled
        )

    exact, corrected, plain = np.array([losses(jax.random.key(i)) for i in range(6)]).T
    assert abs(corrected.mean() / exact[0] - 1) < 0.02
    assert plain[0] > 1.3 * exact[0]


def test_in_batch_negatives_are_targets_of_the_batch():
    batch = _batch()
    drawn = _drawn(Negatives(500, "in-batch", "batch"))
    targets = np.asarray(batch.targets)[np.asarray(batch.weights) > 0]
    assert set(np.unique(drawn)) == set(np.unique(targets))


def test_popularity_sampling_follows_the_counts():
    counts, drawn = _stats().counts, _drawn(Negatives(200_000, "popularity", "batch"))
    share = np.bincount(drawn, minlength=ITEMS + 1) / drawn.size
    np.testing.assert_allclose(share, counts / counts.sum(), atol=0.002)
    assert share[0] == 0


def test_negatives_outside_the_history():
    batch = _batch()
    drawn, inside = _drawn(Negatives(50, outside_history=True)), _drawn(Negatives(50))

    def share_inside(drawn):
        rows, length = batch.items.shape
        hits = [
            np.isin(drawn[r, i], np.asarray(batch.items)[r][np.asarray(batch.segments)[r] == batch.segments[r, i]])
            for r in range(rows)
            for i in range(length)
        ]
        return np.mean(hits)

    assert share_inside(inside) > 0.1
    assert share_inside(drawn) < 0.005
    assert drawn.min() >= 1 and drawn.max() <= ITEMS


def test_a_negative_equal_to_the_target_is_left_out():
    hidden, table, _ = _arrays()
    batch = _batch()
    one = ItemStats(1, np.array([0, 5]))
    batch = replace(batch, targets=np.ones_like(batch.targets))
    loss = jax.jit(lambda key: SampledSoftmax(4)(hidden, table, None, batch, key, one))
    assert loss(jax.random.key(0)) == pytest.approx(0.0, abs=1e-4)
