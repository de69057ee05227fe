"""`recjax plan` on host devices: what it says is what the layout makes true."""

import io
import json

import jax
import pytest
from rich.console import Console

from recjax import cli, recipes
from recjax.config import override_all
from recjax.data.items import padded_rows
from recjax.ops.items.embedding import table_rows
from recjax.plan import plan
from recjax.plan.advice import nearest
from recjax.plan.chips import HOST
from recjax.plan.estimate import Estimate, estimate
from recjax.plan.program import abstract_inputs, trace_evaluation
from recjax.plan.report import render, to_json
from recjax.plan.topology import find_topology
from recjax.typing import InputError
from tests.tiny import TINY

ITEMS, WIDTH = 200_000, 8
TABLE = table_rows(ITEMS + 1) * WIDTH * 4
"""Bytes of the table."""


def config(*settings: str):
    return override_all(recipes.read("sasrec_ml1m").config, [*TINY, "train.steps=100", *settings])


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
    # Logits of a device's tokens against its rows in 25 chunks of 2**12, made twice, and two products of gradients.
    tokens, rows = 16 * 12 // 4, 25 * 2**12
    assert planned.training.flops == pytest.approx(4 * 2 * tokens * WIDTH * rows, rel=0.01)


def test_json_says_what_is_planned(planned):
    tree = json.loads(json.dumps(to_json(planned)))
    assert tree["training"]["memory"] == planned.training.memory and tree["fits"]
    assert 0 < tree["training"]["best"] <= tree["training"]["worst"]
    assert 0 < tree["ranking"]["utilisation_worst"] <= tree["ranking"]["utilisation_best"] <= 1


def test_the_tables_say_what_is_planned(planned):
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(render(planned))
    out = console.export_text()
    assert "8 x host device, mesh data=4, model=2, seq=1; 200,000 items, 16 rows" in out
    assert "at most: fits" in out and "all-reduce" in out and "if all overlaps" in out


def test_the_command_plans_a_state_over_data_without_data(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("RECJAX_DATA", str(tmp_path))
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path))
    settings = [*TINY, "mesh.shard_state=optimiser"]
    arguments = ["sasrec_ml1m", "--topology", "cpu:4", "--items", "5000", "--no-ranking", "--json"]
    assert cli.main(["plan", *arguments, *(part for setting in settings for part in ("--set", setting))]) == 0
    found = json.loads(capsys.readouterr().out)
    step, table = found["training"], table_rows(5001) * 8 * 4
    assert found["mesh"] == {"data": 4, "model": 1, "seq": 1} and found["fits"] and found["ranking"] is None
    # Moments of a quarter of the parameters, but for what four devices do not divide.
    held = step["memory"]["parameters"]
    assert table < held < 1.1 * table and step["memory"]["optimiser"] == pytest.approx(2 * held / 4, rel=0.01)
    # Gradients are added up, updates gathered. A tied table has two gradients, which XLA:CPU does not add up before it
    # sends them, and of which it does not make a reduce-scatter.
    gathered = [one["bytes"] for one in step["collectives"] if one["kind"] == "all-gather" for _ in range(one["count"])]
    summed = [one["bytes"] for one in step["collectives"] if one["kind"] == "all-reduce" for _ in range(one["count"])]
    assert len(gathered) + len(summed) == sum(one["count"] for one in step["collectives"])
    assert 0.99 * held < sum(gathered) <= held, "something else than updates is gathered"
    assert held + table < sum(summed) < 1.01 * (held + table)


def test_no_device_is_sent_the_catalog_that_it_ranks():
    small = ["model.width=8", "model.layers=1", "data.view.max_length=6", "evaluate.users_per_batch=8", "mesh.model=4"]
    chosen = override_all(recipes.read("quickstart").config, small)
    mesh = chosen.mesh.build(find_topology("cpu:8").devices)
    inputs = abstract_inputs(chosen, ITEMS, mesh)
    with jax.set_mesh(mesh):
        found = estimate(trace_evaluation(chosen, inputs).lower(), {"catalog": inputs.ranked}, mesh, HOST)
    # Of each item: 256 coordinates, three codes, whether it has a text, how crowded it is around it, and what it is
    # ranked by, made once for all queries: the coordinates and three embeddings of codes.
    item = 256 * 4 + 3 * 4 + 1 + 4 + (256 + 3 * 8) * 4
    assert found.memory["catalog"] == padded_rows(ITEMS + 1, 4) // 4 * item + 2 * 4
    assert found.collectives and all(one.bytes < ITEMS for one in found.collectives), found.collectives


def test_fourier_transforms_run_where_rows_and_channels_are():
    length, rows, width = 256, 8, 16
    small = [f"data.view.max_length={length}", f"model.max_length={length}", f"data.rows={rows}", "mesh.model=4"]
    small += ["model.mixer=s4d", "model.layers=1", f"model.width={width}", "model.dropout=0"]
    found = plan(override_all(recipes.read("s4_ml1m").config, small), "cpu:8", items=5000, ranking=False).training
    moved = [one for one in found.collectives if one.kind != "all-reduce"]
    # Transforms are of twice the length, and their spectra of one more than the length: only the kernels' gradients are
    # added up there. Of activations, a group along the model axis exchanges its rows, and none crosses the data axis.
    assert moved and all(not {length + 1, 2 * length} & set(one.shape) for one in moved), moved
    assert all("data" not in one.axes and one.bytes <= 2 * rows // 2 * length * width * 4 for one in moved), moved


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
    with pytest.raises(InputError, match=r"needs libtpu, .*--target libtpu 'libtpu==\d.*pip install 'recjax\[tpu\]'"):
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
        state, rest = 100 // changed.mesh.model, 30 // changed.train.parts
        return (
            Estimate({}, state + min(rest, 10 * changed.data.rows), capacity, flops=0) if state <= capacity else state
        )

    # A batch of a single row leaves nothing to split, so the state is what has to shrink below 60.
    found = nearest(config("data.rows=1" if capacity == 20 else "data.rows=64", "mesh.model=1"), attempt)
    assert (None if found is None else found[0]) == settings


def test_nothing_is_allocated(planned):
    # Other tests of this process may hold arrays of their own; none is as long as this table.
    assert [array.shape for array in jax.live_arrays() if max(array.shape, default=0) >= ITEMS / 2] == []
