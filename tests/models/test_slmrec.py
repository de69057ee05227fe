"""SLMRec: a student learns from parts of a frozen teacher; blocks of a language model stay as their folder has them."""

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
from recjax.models.model import ItemStats
from recjax.models.slmrec import SMALL, STUDENT, TEACHER, SLMRec
from recjax.nn.groups import FROZEN
from recjax.nn.lora import ADAPTERS
from recjax.text.lm.folder import read_language_model
from recjax.train.state import overlaid
from recjax.typing import InputError

TWIN = Path(__file__).parents[1] / "text" / "lm" / "twins" / "smollm2"
ITEMS, LENGTH = 9, 4
RANDOM = np.random.default_rng(0)
VECTORS = jnp.asarray(np.pad(RANDOM.normal(size=(ITEMS, 6)), [(1, 118), (0, 0)]), jnp.float32)
CATALOG = bare_items(ITEMS, {"behaviour": VECTORS})
STATS = ItemStats(ITEMS, np.ones(ITEMS + 1), {"behaviour": (6,)})
BASE = replace(SMALL, width=8, layers=1, channels=4, inner=16)
ROWS = np.array([[1, 2, 3, 4], [5, 6, 7, 0]], np.int32)
SEGMENTS = (ROWS > 0).astype(np.int32)
PLACES = np.broadcast_to(np.arange(LENGTH, dtype=np.int32), ROWS.shape)
TARGETS = np.where(ROWS > 0, ROWS % ITEMS + 1, 0)
BATCH = Batch(ROWS, SEGMENTS, PLACES, TARGETS, SEGMENTS.astype(np.float32))  # pyright: ignore[reportArgumentType]
QUERIES = Queries(ROWS, PLACES, SEGMENTS.sum(1), ROWS[:, :0])  # pyright: ignore[reportArgumentType]
SHORTER = SLMRec(BASE, teacher=2, parts=1)


@cache
def started(config: SLMRec) -> tuple[Any, Any]:
    model = config.build(STATS)
    return model, jax.jit(model.init)(jax.random.key(0), BATCH, CATALOG)


@jax.jit
def terms(params):
    """Sums of the student's loss, and the gradient."""
    model = started(SHORTER)[0]
    return jax.grad(lambda p: model.loss(p, BATCH, CATALOG, None), has_aux=True)(params)


def test_a_student_with_its_teachers_states_has_nothing_to_learn_from_it():
    """Planted: the second block of the teacher does nothing, and the first is the student's."""
    _, params = started(SHORTER)
    gradient, sums = terms(params)
    assert float(sums["direction"][0]) > 0.1 and float(sums["distance"][0]) > 0.1
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient[TEACHER]))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient[STUDENT]))
    own = params[STUDENT]["blocks"]
    idle = jax.tree.map(jnp.zeros_like, own["layer_0"])
    blocks = {"layer_0": own["layer_0"], "layer_1": idle}
    alike = {**params, TEACHER: {**params[STUDENT], "blocks": {**own, **blocks}}}
    _, found = terms(alike)
    np.testing.assert_allclose([found[name][0] for name in ("direction", "distance")], 0, atol=1e-4)
    np.testing.assert_allclose(found["objective"][0], sums["objective"][0], rtol=1e-6)


def test_blocks_of_a_folder_are_its_first_ones_and_adapters_change_nothing_at_first():
    whole = read_language_model(TWIN)
    base = replace(whole.decoder.config, vocabulary=0, layers=1)
    config = SLMRec(base, weights=str(TWIN))
    model, fresh = started(config)
    params = overlaid(fresh, config.given())
    held = params[TEACHER][FROZEN]
    assert set(held) == {"layer_0", "norm"} and set(params[TEACHER]) == {FROZEN, ADAPTERS, "into", "out"}
    jax.tree.map(np.testing.assert_array_equal, held["layer_0"], whole.params["layer_0"])
    plain = replace(model, network=replace(model.network, lora=None), config=replace(config, weights=None))
    alone = {TEACHER: {"blocks": held, "into": params[TEACHER]["into"], "out": params[TEACHER]["out"]}}
    every = np.tile(np.arange(1, ITEMS + 1), (2, 1))
    scores = [
        jax.jit(lambda p, m=m: m.scoring(p, QUERIES, CATALOG).scores(every))(p)
        for m, p in ((model, params), (plain, alone))
    ]
    np.testing.assert_array_equal(*scores)
    assert "the first 1 layers" in model.notes["backbone"] and "scratch" in plain.notes["backbone"]
    with pytest.raises(InputError, match="the recipe has"):
        SLMRec(replace(base, inner=12), weights=str(TWIN)).given()


def test_a_cut_network_scores_from_an_earlier_block():
    model, params = started(SLMRec(replace(BASE, layers=2)))
    every = np.tile(np.arange(1, ITEMS + 1), (2, 1))
    cuts = [replace(model, config=replace(model.config, leave=leave)) for leave in (None, 2, 1)]
    scores = jax.jit(lambda p: [each.scoring(p, QUERIES, CATALOG).scores(every) for each in cuts])
    whole, last, first = scores(params)
    np.testing.assert_array_equal(whole, last)
    assert np.abs(whole - first).max() > 1e-3


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="divisor"):
        SLMRec(BASE, teacher=3, parts=2)
    with pytest.raises(InputError, match="vocabulary 0"):
        SLMRec(replace(BASE, vocabulary=5))
    with pytest.raises(InputError, match="leave"):
        SLMRec(BASE, leave=2)
    with pytest.raises(InputError, match="Behaviour"):
        SLMRec(BASE).build(replace(STATS, columns={}))
