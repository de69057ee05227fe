"""Prefixes with one target against all positions at once: the same loss where nothing but their form differs."""

import jax
import numpy as np

from recjax.data.derived import Prefixes
from recjax.data.items import bare_items
from recjax.data.loader import Loader
from recjax.data.splits import Histories
from recjax.data.views import Shifted
from recjax.models.model import ItemStats
from recjax.models.sasrec import SASRec


def test_the_loss_of_prefixes_is_that_of_all_positions():
    lengths, rng = np.array([5, 9, 2, 7, 1, 8]), np.random.default_rng(0)
    items = rng.integers(1, 21, lengths.sum()).astype(np.int32)
    source = Histories.concatenated(lengths, items, np.arange(len(items)), np.arange(len(lengths)))
    model = SASRec(width=8, layers=1, max_length=8).build(ItemStats(20, np.bincount(items, minlength=21)))

    def epoch(view):
        rows = Loader(source, view, 1, None, 0, 20).packing.rows
        return Loader(source, view, rows, None, 0, 20).host_batch(0)

    whole = epoch(Shifted(8, align="left"))
    parts = epoch(Prefixes(Shifted(8, align="left", targets=1)))
    params = model.init(jax.random.key(0), whole, bare_items(20))
    one, sums = model.loss(params, whole, bare_items(20), None)
    other, others = model.loss(params, parts, bare_items(20), None)
    assert float(sums["loss"][1]) == float(others["loss"][1]) == np.maximum(lengths - 1, 0).sum()
    np.testing.assert_allclose(one, other, rtol=1e-6)
