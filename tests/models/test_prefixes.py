"""Prefixes with one target against all positions at once: the same loss where nothing but their form differs."""

import math

import jax
import numpy as np

from recjax.data.batches.derived import Prefixes
from recjax.data.batches.loader import Loader
from recjax.data.batches.views import Shifted
from recjax.data.items import bare_items
from recjax.data.splits import Histories
from recjax.models.model import ItemStats
from recjax.models.sasrec import SASRec


def test_the_loss_of_prefixes_is_that_of_all_positions():
    lengths, rng = np.array([5, 9, 2, 7, 1, 8]), np.random.default_rng(0)
    items = rng.integers(1, 21, lengths.sum()).astype(np.int32)
    source = Histories.concatenated(lengths, items, np.arange(len(items)), np.arange(len(lengths)))
    model = SASRec(width=8, layers=1, max_length=8).build(ItemStats(20, np.bincount(items, minlength=21)))

    views = Shifted(8, align="left"), Prefixes(Shifted(8, align="left", targets=1))
    # Whole epochs of either, in batches of one shape, for one compilation.
    rows = math.lcm(*(Loader(source, view, 1, None, 0, 20).packing.rows for view in views))
    whole, parts = (Loader(source, view, rows, None, 0, 20).host_batch(0) for view in views)
    assert whole.weights.sum() % 26 == parts.weights.sum() % 26 == 0 and parts.items.sum() != whole.items.sum()

    @jax.jit
    def losses(key, batches):
        params = model.init(key, whole, bare_items(20))
        return jax.lax.map(lambda batch: model.loss(params, batch, bare_items(20), None)[0], batches)

    one, other = losses(jax.random.key(0), jax.tree.map(lambda *arrays: np.stack(arrays), whole, parts))
    np.testing.assert_allclose(one, other, rtol=1e-6)
