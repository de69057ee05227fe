"""`recjax plan` on host devices: what it says is what the layout makes true."""

import json

import jax
import pytest

from recjax import cli, recipes
from recjax.config import override_all
from recjax.ops.embedding import table_rows
from recjax.plan import plan
from recjax.plan.advice import nearest
from recjax.plan.estimate import Estimate
from recjax.plan.report import to_json
from recjax.typing import InputError
from tests.tiny import TINY

ITEMS, WIDTH = 200_000, 8
TABLE = table_rows(ITEMS + 1) * WIDTH * 4
"""Bytes of the table."""


def config(*settings: str, recipe: str = "sasrec_ml1m"):
    return override_all(recipes.read(recipe).config, [*TINY, "train.steps=100", *settings])


@pytest.fixture(scope="module")
def planned():
    return plan(config("mesh.model=2", "data.rows=16", "evaluate.users_per_batch=16"), "cpu:8", items=ITEMS)


def test_memory_is_that_of_the_layout(planned):
    held = planned.training.memory
    assert planned.mesh == {"data": 4, "model": 2, "seq": 1} and planned.fits
    assert TABLE // 2 <= held["parameters"] < TABLE // 2 + 5_000
    assert held["optimiser"] == pytest.approx(2 * held["parameters"], abs=8)
    assert held["batch"] == 16 // 4 * 12 * 5 * 4 + 4 + 8
    assert planned.training.total >= sum(held[name] for name in ("parameters", "optimiser", "gradients"))
    assert planned.ranking.memory["parameters"] == held["parameters"]


def test_no_device_is_sent_the_table(planned):
    for found in (planned.training, planned.ranking):
        gathered = [one for one in found.collectives if one.kind in ("all-gather", "all-to-all", "collective-permute")]
        assert all(one.bytes < TABLE / 100 for one in gathered), gathered
        assert all(max(one.shape, default=0) < ITEMS / 2 or one.kind == "all-reduce" for one in found.collectives)


def test_only_gradients_cross_the_data_axis(planned):
    sent = sum(one.count * one.sent for one in planned.training.collectives if "data" in one.axes)
    least = 2 * 3 / 4 * planned.training.memory["parameters"]
    # Of the tied table twice, as input and as output: unlike XLA:TPU, XLA:CPU does not add the two up before it sends.
    assert 1.98 * least <= sent < 2.02 * least


def test_all_loops_are_counted(planned):
    assert planned.training.unknown == planned.ranking.unknown == ()
    # Logits of a device's tokens against its rows in seven chunks of 2**14, made twice, and two products of gradients.
    tokens, rows = 16 * 12 // 4, 7 * 2**14
    assert planned.training.flops == pytest.approx(4 * 2 * tokens * WIDTH * rows, rel=0.01)


def test_json_says_what_the_tables_say(planned, capsys):
    tree = json.loads(json.dumps(to_json(planned)))
    assert tree["training"]["memory"] == planned.training.memory and tree["fits"]
    assert 0 < tree["training"]["best"] <= tree["training"]["worst"]
    assert 0 < tree["ranking"]["utilisation_worst"] <= tree["ranking"]["utilisation_best"] <= 1


def test_the_command_prints_a_plan_without_data(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("RECJAX_DATA", str(tmp_path))
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path))
    arguments = ["sasrec_ml1m", "--topology", "cpu:2", "--items", "500", "--no-ranking"]
    assert cli.main(["plan", *arguments, *(part for setting in TINY for part in ("--set", setting))]) == 0
    out = capsys.readouterr().out
    assert "2 x host device, mesh data=2, model=1, seq=1; 500 items, 8 rows" in out
    assert "at most: fits" in out and "all-reduce" in out and "if all overlaps" in out


@pytest.mark.parametrize(
    ("topology", "settings", "message"),
    [
        ("v9:4x4", (), r"'v9:4x4' is none that is known; expected v5e:16x16"),
        ("v5e:16", ("mesh.model=3",), r"expected a shape such as|needs libtpu|topology"),
        ("cpu:none", (), "expected a number of host devices"),
        ("cpu:800", (), r"this process has 8 host devices"),
        ("cpu:8", ("mesh.model=3",), r"--topology cpu:8 has 8 devices: mesh .*8 devices cannot be divided by 3"),
        ("cpu:8", ("data.rows=12",), r"data.rows = 12 cannot be divided by the data axis of 8 devices"),
        ("cpu:8", ("train.accumulate=3",), r"cannot be split into train.accumulate = 3 parts"),
        ("gpu", (), r"there is no GPU here"),
    ],
)
def test_what_cannot_be_is_told(topology, settings, message):
    with pytest.raises(InputError, match=message):
        plan(config(*settings), topology, items=500)


def test_a_tpu_without_libtpu_names_the_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs libtpu, .*pip install 'recjax\[tpu\]'"):
        plan(config(), "v5e:4x4", items=500)


def test_texts_of_an_encoder_that_is_not_here_need_a_width(monkeypatch):
    monkeypatch.delenv("RECJAX_ENCODERS", raising=False)
    with pytest.raises(InputError, match=r"no sentence encoder at .* --text-width says"):
        plan(recipes.read("recgpt_pretrain").config, "cpu:8", items=500)


@pytest.mark.parametrize(
    ("capacity", "settings"),
    [(120, ["train.accumulate=2"]), (60, ["mesh.model=4"]), (20, ["mesh.model=16"]), (1, None)],
)
def test_the_nearest_setting_that_fits_is_the_least_disturbing(capacity, settings):
    def attempt(changed):
        state, rest = 100 // changed.mesh.model, 30 // changed.train.accumulate
        return (
            Estimate({}, state + min(rest, 10 * changed.data.rows), capacity, flops=0) if state <= capacity else state
        )

    # A batch of a single row leaves nothing to split, so the state is what has to shrink below 60.
    found = nearest(config("data.rows=1" if capacity == 20 else "data.rows=64", "mesh.model=1"), attempt)
    assert (None if found is None else found[0]) == settings


def test_nothing_is_allocated(planned):
    # Other tests of this process may hold arrays of their own; none is as long as this table.
    assert [array.shape for array in jax.live_arrays() if max(array.shape, default=0) >= ITEMS / 2] == []
