"""IntervalLLM: times between events change what is chosen by two ways, which can be switched off."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import bare_items
from recjax.models.interval_llm import IntervalLLM
from recjax.models.model import ItemStats
from recjax.models.slmrec import SMALL
from recjax.nn.groups import FROZEN
from recjax.text.lm.folder import read_language_model
from recjax.typing import InputError
from tests.drawn import drawn_for

TWIN = Path(__file__).parents[1] / "text" / "lm" / "twins" / "smollm2"
ITEMS, DAY = 9, 86_400
STATS, NONE = ItemStats(ITEMS, np.ones(ITEMS + 1)), bare_items(ITEMS)
BASE = replace(SMALL, width=8, layers=1, channels=4, inner=16)
ROWS = np.array([[1, 2, 3, 4], [5, 6, 7, 0]], np.int32)
SEGMENTS = (ROWS > 0).astype(np.int32)
PLACES = np.broadcast_to(np.arange(4, dtype=np.int32), ROWS.shape)
TIMES = np.cumsum([[9, 1, 30, 2], [5, 5, 1, 0]], axis=1).astype(np.int32) * DAY
BATCH: Any = Batch(ROWS, SEGMENTS, PLACES, np.roll(ROWS, -1, 1), SEGMENTS.astype(np.float32), TIMES)  # pyright: ignore[reportArgumentType]


@cache
def started(**switches: Any) -> tuple[Any, Any, Any]:
    """A model, its parameters, all made larger so that they matter, and its scores after events at some times."""
    model = IntervalLLM(**{"base": BASE, "width": 8, "dropout": 0.0, **switches}).build(STATS)
    params = jax.tree.map(lambda x: 3 * x, drawn_for(model.init, jax.random.key(0), BATCH, NONE))

    @jax.jit
    def scores(params, times):
        queries = Queries(ROWS, PLACES, SEGMENTS.sum(1), ROWS[:, :0], times)  # pyright: ignore[reportArgumentType]
        return model.scoring(params, queries, NONE).scores(jnp.tile(jnp.arange(1, ITEMS + 1), (2, 1)))

    return model, params, scores


@pytest.mark.parametrize("switches", [{}, {"gap": "none"}, {"gap": "words", "attention": False}])
def test_longer_times_between_events_change_scores(switches):
    model, params, scores = started(**switches)
    found = scores(params, TIMES)
    assert len(model.vectors(params, BATCH)) == 1 + (switches.get("gap") != "none") + switches.get("attention", True)
    assert np.abs(scores(params, 10 * TIMES) - found).max() > 1e-4
    np.testing.assert_array_equal(scores(params, TIMES + 3 * DAY), found)  # only differences count


def test_without_both_ways_times_change_nothing():
    _, params, scores = started(gap="none", attention=False)
    np.testing.assert_array_equal(scores(params, TIMES), scores(params, 10 * TIMES))
    assert set(params) == {"items", "network"}


def test_blocks_of_a_folder_are_frozen_and_the_rest_learns():
    base = replace(read_language_model(TWIN).decoder.config, vocabulary=0)
    model = IntervalLLM(base, weights=str(TWIN), width=8, attention=False).build(STATS)
    params = jax.eval_shape(model.init, jax.random.key(0), BATCH, NONE)
    given = model.config.given()["network"][FROZEN]  # pyright: ignore[reportOptionalSubscript]
    assert jax.tree.map(jnp.shape, given) == jax.tree.map(jnp.shape, params["network"][FROZEN])
    assert set(params) == {"items", "network", "gap"} and "adapters" in model.notes["backbone"]
    with pytest.raises(InputError, match="vocabulary 0"):
        IntervalLLM(replace(base, vocabulary=7))
