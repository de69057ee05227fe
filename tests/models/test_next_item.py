"""Any stack as a next-item model: positions where they are needed, sizes that match, rows of one history."""

import dataclasses

import numpy as np
import pytest

from recjax.config import RunConfig
from recjax.data.batches.loader import Data, Loader
from recjax.data.batches.views import Shifted
from recjax.data.embedded.synthetic import synthetic
from recjax.data.prepare.build import build
from recjax.data.splits import LeaveOneOut
from recjax.evaluate.protocol import Evaluate
from recjax.mixers.attention import Attention
from recjax.mixers.mixer import Capabilities
from recjax.models.model import ItemStats
from recjax.models.next_item import NextItem, matched, parameters
from recjax.parallel.mesh import MeshShape
from recjax.train.loop import Train
from recjax.train.optimiser import Adam
from recjax.train.task import open_task
from recjax.typing import InputError

STATS = ItemStats(20, np.arange(21))


class Alone(Attention):
    """Attention that does not keep the histories of a row apart."""

    @property
    def capabilities(self) -> Capabilities:
        return dataclasses.replace(super().capabilities, packing=False)


def test_positions_are_learned_where_no_mixer_knows_them():
    assert NextItem(width=8).build(STATS).module.max_length == 200
    assert NextItem(width=8, mixer="hybrid").build(STATS).module.max_length == 0
    assert NextItem(width=8, mixer="hybrid", positions="learned").build(STATS).module.max_length == 200
    with pytest.raises(InputError, match="knows the order of events"):
        NextItem(width=8, positions="none").build(STATS)


def test_sizes_are_matched_through_the_feed_forward_network():
    like = NextItem(width=32, layers=2, heads=2)
    other = NextItem(width=32, layers=2, heads=2, mixer="hybrid", inner=40)
    assert parameters(other) < 0.9 * parameters(like)
    found = matched(other, like)
    assert abs(parameters(found) / parameters(like) - 1) < 0.02
    with pytest.raises(InputError, match="even with a feed-forward width of 8"):
        matched(dataclasses.replace(like, layers=4), dataclasses.replace(like, layers=1, max_length=8))


def test_histories_that_share_a_row_are_refused_by_mixers_that_would_mix_them():
    config = RunConfig(
        name="alone",
        data=Data("synthetic", view=Shifted(max_length=16), rows=8),
        model=NextItem(width=8, layers=1, mixers=(Alone(),), max_length=16),
        optim=Adam(),
        mesh=MeshShape(),
        train=Train(steps=1),
        evaluate=Evaluate(),
    )
    with pytest.raises(InputError, match=r"data\.pack=false"):
        open_task(config)


def test_rows_of_one_history_hold_each_once():
    split = LeaveOneOut().split(build(synthetic(users=30, items=100)))
    loader = Loader(split.train, Shifted(max_length=16), 5, None, 0, 100, packed=False)
    assert loader.packing.rows == len(split.train) - loader.skipped and loader.steps(1) == 6
    batches = [loader.host_batch(step) for step in range(6)]
    assert all(batch.segments.max() == 1 for batch in batches)
    tokens = sum(int((batch.segments > 0).sum()) for batch in batches)
    assert tokens == np.minimum(split.train.lengths - 1, 16).sum()
