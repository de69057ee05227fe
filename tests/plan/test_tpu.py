"""Pods that are not there: the step compiled by libtpu, for 256 chips and for slices, where libtpu is installed.

`make test-tpu` installs it beside the environment and runs these.
"""

import importlib.util

import pytest

from recjax import recipes
from recjax.config import override_all
from recjax.ops.items.embedding import table_rows
from recjax.plan import plan
from recjax.typing import InputError

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed (pip install -r requirements-tpu.txt)"
)

SHORT = ("data.view.max_length=32", "model.max_length=32", "model.layers=1", "data.rows=2048")


def test_a_hundred_million_items_on_a_pod():
    settings = [*SHORT, "model.width=128", "mesh.model=64"]
    items, width = 100_000_000, 128
    found = plan(
        override_all(recipes.read("sasrec_ml1m").config, settings), "v5e:16x16", items=items, ranking=False
    ).training
    table = table_rows(items + 1) * width * 4
    assert found.fits and found.memory["optimiser"] == pytest.approx(2 * table / 64, rel=0.01)
    gathered = [one for one in found.collectives if one.kind != "all-reduce"]
    assert all(one.bytes < table / 64 / 10 for one in gathered), "a part of the table is sent around"
    # The tied table's two gradients cross the data axis as one sum.
    sent = sum(one.count * one.sent for one in found.collectives)
    least = 2 * 3 / 4 * table / 64
    assert least <= sent < 1.2 * least
    assert not found.unknown


def test_a_wide_model_of_texts_on_a_pod():
    wide = ["model.width=2048", "model.heads=16", "model.layers=1", "data.rows=2048", "data.view.max_length=16"]
    settings = [*wide, "mesh.model=4", "mesh.shard_state=optimiser"]
    found = plan(override_all(recipes.read("quickstart").config, settings), "v5e:16x16", items=1_000_000, ranking=False)
    held = found.training.memory
    assert found.training.fits and held["optimiser"] < 2.1 * held["parameters"] / 64
    vectors = 1_000_000 * 256 * 4
    assert all(one.bytes < vectors / 4 / 2 for one in found.training.collectives if one.kind == "all-gather")


def test_a_state_space_over_time_sends_what_it_carries():
    settings = ["model.mixer=s5", "model.width=64", "data.view.max_length=8192", "model.max_length=8192"]
    settings += ["data.rows=32", "mesh.data=16", "mesh.seq=16", "model.dropout=0"]
    found = plan(
        override_all(recipes.read("lru_ml1m").config, settings), "v5e:16x16", items=10_000, ranking=False
    ).training
    activations = 32 // 16 * 8192 * 64 * 4
    along = [one for one in found.collectives if one.axes == "seq" and one.kind != "all-reduce"]
    # Scans of states alone, two layers forwards and back: what the softmax reads is divided as all else is.
    assert sum(one.count for one in along if one.kind == "all-gather") >= 4
    assert all(one.bytes < activations / 100 for one in along), along


def test_slices_and_a_state_over_data():
    settings = [
        *SHORT,
        "data.rows=64",
        "model.width=8",
        "mesh.model=2",
        "mesh.shard_state=optimiser",
        "model.dropout=0",
    ]
    items = 100_000
    found = plan(
        override_all(recipes.read("sasrec_ml1m").config, settings), "v5e:2x2", slices=2, items=items, ranking=False
    ).training
    links = {(one.axes, one.link) for one in found.collectives}
    assert ("model", "ici") in links and not any(axes == "model" and link == "dcn" for axes, link in links)
    assert any(link == "dcn" for _, link in links)
    table = table_rows(items + 1) * 8 * 4 // 2
    assert found.memory["optimiser"] == pytest.approx(2 * table / 4, rel=0.05)
    # Inside a slice gradients are added up and cut, and updates gathered: half of an all-reduce each. What else goes
    # along the data axis there is small: no activation is gathered for the parts.
    inside = [one for one in found.collectives if one.axes == "data" and one.link == "ici"]
    rows = [one for one in inside if max(one.shape, default=0) >= items // 8]
    assert {one.kind for one in rows} == {"reduce-scatter", "all-gather"}, rows
    assert all(one.bytes < 64 // 4 * 32 * 8 * 4 for one in inside if one not in rows), inside


def test_a_topology_that_cannot_be():
    with pytest.raises(InputError, match=r"--topology 'v5e:3x5': .*expected v5e:16x16"):
        plan(recipes.read("sasrec_ml1m").config, "v5e:3x5", items=100)


def test_a_generator_of_item_codes_adds_up_over_the_model_axis_and_gathers_no_weight():
    wide = ["model.width=1024", "model.layers=1", "model.heads=32", "model.channels=128", "model.inner=16384"]
    settings = [*wide, "model.codes=1024", "tokenizer.clusters=1024", "data.rows=512", "mesh.model=16"]
    found = plan(
        override_all(recipes.read("tiger_beauty").config, settings), "v5e:16x16", items=100_000_000, ranking=False
    ).training
    assert found.fits and found.memory["optimiser"] == pytest.approx(2 * found.memory["parameters"], rel=0.01)
    kernel = 1024 * 16384 * 4 // 16
    assert all(one.bytes < kernel for one in found.collectives if one.kind == "all-gather"), "weights are sent around"
    data = sum(one.count * one.bytes for one in found.collectives if one.axes == "data" and one.kind == "all-reduce")
    assert data <= 1.2 * found.memory["parameters"]
