"""An ablation: sweeps are read, cells run once and go on, rows and statistics come from their folders."""

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest

from experiments.benchmarks.kill_resume import latest
from recjax import cli, recipes
from recjax.commands import ablate as comparisons
from recjax.compare import page_plots
from recjax.compare import run_cells as launching
from recjax.compare.ablation import gather, plan, question_of, seeds_of, sweep_of
from recjax.compare.run_cells import Devices, locked, run_cells, slices
from recjax.compare.run_results import compare_runs, read_outcome
from recjax.parallel.mesh import MeshShape
from recjax.train.interrupt import Interrupt
from recjax.typing import InputError
from tests.tiny import SETTINGS, tiny_datasets

BUILD, DRAW = MeshShape.build, page_plots._draw
RECIPE = Path(__file__).resolve().parents[2] / "experiments" / "sasrec_synthetic.py"
SWEEP = """

def sweep():
    return {"all": {}, "half": ["data.user_share=0.5"]}
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory):
    folder = tiny_datasets(tmp_path_factory.mktemp("data"), ["shop"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECJAX_DATA", str(folder))
        patch.setenv("RECJAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield folder


@pytest.fixture(scope="module", autouse=True)
def each_title_once() -> Iterator[None]:
    """A picture is drawn for the first page of this file that has its title; `test_page.py` looks at all of them."""
    drawn: dict[str, Any] = {}

    def draw(title: str, description: str, paint: Any) -> Any:
        if title not in drawn:
            drawn[title] = DRAW(title, description, paint)
        return replace(drawn[title], description=description)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_plots, "_draw", draw)
        yield


def recipe_file(folder: Path, sweep: str = SWEEP) -> Path:
    path = folder / "shares.py"
    path.write_text(RECIPE.read_text() + sweep)
    return path


class Here:
    """Runs a cell's command in this process, at once, on one device."""

    def __init__(self):
        self.started: list[str] = []

    def __call__(self, cell, environment, log: Path) -> Any:
        self.started.append(cell.name)
        with pytest.MonkeyPatch.context() as patch, log.open("a") as file:
            patch.setattr(MeshShape, "build", lambda self: BUILD(self, jax.devices()[:1]))
            with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
                status = cli.main(cell.arguments)
        return SimpleNamespace(poll=lambda: status, terminate=lambda: None)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    """`recjax ablate` with cells in this process instead of processes of their own."""
    start = Here()
    monkeypatch.setattr(comparisons, "probe", lambda: Devices("cpu", "cpu", 2))
    monkeypatch.setattr(comparisons, "run_cells", lambda *args, **kwargs: run_cells(*args, start=start, **kwargs))
    monkeypatch.setattr(launching, "POLL_SECONDS", 0.0)
    return start


def command(recipe: Path, out: Path, *more: str) -> list[str]:
    return ["ablate", str(recipe), *SETTINGS, "--set", "data.dataset=shop", "--out", str(out), *more]


def stamps(out: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every file of the cells."""
    files = [path for path in (out / "cells").rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


@pytest.fixture(scope="module")
def finished(shop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rows of two seeds, the second stopped in its first cell and taken up again."""
    out = tmp_path_factory.mktemp("ablation")
    recipe = recipe_file(out)
    with pytest.MonkeyPatch.context() as patch:
        start = Here()
        patch.setattr(comparisons, "probe", lambda: Devices("cpu", "cpu", 2))
        patch.setattr(comparisons, "run_cells", lambda *args, **kwargs: run_cells(*args, start=start, **kwargs))
        patch.setattr(launching, "POLL_SECONDS", 0.0)
        with pytest.MonkeyPatch.context() as stopping:
            stopping.setattr(Interrupt, "requested", lambda self, step: step == 2)
            assert cli.main(command(recipe, out, "--only", "half")) == 0
        assert json.loads((out / "cells" / "half-seed0" / "cell.json").read_text())["status"] == "stopped"
        assert cli.main(command(recipe, out, "--seeds", "2")) == 0
        assert start.started == ["half-seed0", "all-seed0", "all-seed1", "half-seed0", "half-seed1"]
    assert "resumes from the checkpoint of step 2" in (out / "cells" / "half-seed0" / "output.log").read_text()
    return out


def test_an_ablation_from_end_to_end(finished: Path):
    results = json.loads((finished / "results.json").read_text())
    first, second = results["rows"]
    assert [first["name"], second["name"]] == ["all", "half"]
    assert first["seeds"] == second["seeds"] == [0, 1]
    assert second["settings"] == {"data.user_share": "0.5"} and first["settings"] == {}
    for row in (first, second):
        estimate = row["metrics"]["ndcg@10"]
        assert estimate["over"] == "seeds" and estimate["low"] <= estimate["value"] <= estimate["high"]
        runs = [finished / "cells" / f"{row['name']}-seed{seed}" / "evaluation.json" for seed in (0, 1)]
        values = [json.loads(path.read_text())["metrics"]["all"]["ndcg@10"] for path in runs]
        assert estimate["value"] == pytest.approx(sum(values) / 2)
        cost = row["cost"]
        assert cost["train_seconds"] > 0 and cost["host_bytes"] > 1e7 and cost["parameters"] > 1000
        assert [curve["steps"] for curve in row["curves"]] == [[2, 4], [2, 4]]
        assert sum(group["users"] for group in row["lengths"]) == 120
        assert len(row["commands"]) == 2 and row["commands"][0].startswith("recjax train ")
    assert first["test"] is None and 0 <= second["test"]["p_holm"] <= 1
    assert results["target"] == pytest.approx(0.95 * sum(max(curve["values"]) for curve in first["curves"]) / 2)
    assert results["dataset"]["name"] == "shop" and "transition" in results["floors"]
    assert set(results["floor_tests"]) == {name for name, figures in results["floors"].items() if figures}
    difference = results["floors"]["transition"]["ndcg@10"] - first["metrics"]["ndcg@10"]["value"]
    assert results["floor_tests"]["transition"]["difference"] == pytest.approx(difference)
    assert first["cost"]["seconds_to_target"] is None or first["cost"]["seconds_to_target"] > 0
    page = (finished / "index.html").read_text()
    assert page.count("<img ") == 6 and "data.user_share" in page  # four steps have one loss


def test_finished_cells_are_not_touched(finished: Path, here: Here, capsys: pytest.CaptureFixture[str]):
    before = stamps(finished)
    assert cli.main(command(finished / "shares.py", finished, "--seeds", "2", "--json")) == 0
    assert stamps(finished) == before and not here.started
    assert json.loads(capsys.readouterr().out)["rows"][1]["name"] == "half"


def test_a_changed_recipe_is_refused(finished: Path, here: Here, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    changed = recipe_file(tmp_path, SWEEP.replace("share=0.5", "share=0.25"))
    before = stamps(finished)
    assert cli.main(command(changed, finished, "--seeds", "2")) == 2
    error = capsys.readouterr().err
    assert "half-seed0 holds a run of another configuration" in error
    assert "data.user_share is 0.5 there and 0.25 now" in error
    assert stamps(finished) == before and not here.started


def test_a_failed_cell_is_told_and_stops_nothing(shop, here: Here, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    sweep = '\ndef sweep():\n    return {"wild": {"optim.learning_rate": 1e38}, "tame": {}}\n'
    out = tmp_path / "out"
    assert cli.main(command(recipe_file(tmp_path, sweep), out)) == 1
    assert here.started == ["wild-seed0", "tame-seed0"]
    text = capsys.readouterr().out
    assert "wild: seed 0 failed: step " in text and "the loss is" in text
    results = json.loads((out / "results.json").read_text())
    assert [row["name"] for row in results["rows"]] == ["tame", "wild"] and results["rows"][1]["failures"]
    assert results["rows"][1]["settings"] == {"optim.learning_rate": "1e+38"}
    assert all(len(values) == 2 and values[1] is None for values in results["slices"].values())
    assert "wild has no result." in (out / "index.html").read_text()


def test_runs_are_reported(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    runs = [str(finished / "cells" / name) for name in ("all-seed0", "all-seed1", "half-seed0")]
    assert cli.main(["report", *runs, "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "all-seed0 · half-seed0" in page and page.count("<img ") == 6
    assert cli.main(["report", runs[0], "--out", str(tmp_path / "one.html")]) == 0
    page = (tmp_path / "one.html").read_text()
    assert "Run all-seed0" in page and "model.width = 8" in page and "popularity" in page
    assert "Training started" in page and "1 x cpu; host: " in page
    capsys.readouterr()
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "is not a run folder" in capsys.readouterr().err


def test_the_metric_of_the_runs_is_among_their_figures(finished: Path):
    run = read_outcome(finished / "cells" / "all-seed0")
    other = replace(run, config={**run.config, "train": {**run.config["train"], "metric": "hr@1"}})
    row = compare_runs({"all": [other]}, "by another metric").rows[0]
    assert run.report is not None and row.metrics["hr@1"].value == run.report.metrics["all"]["hr@1"]


def test_a_killed_process_goes_on(shop, finished: Path, tmp_path: Path):
    """A real process on one host device, killed without warning; the same cell is then finished."""
    settings = [*SETTINGS[1::2], "data.dataset=shop", "train.steps=40", "train.save_every=2", "train.log_every=2"]
    settings += ["train.evaluate_every=20"]
    (cell,) = plan(recipes.read(str(finished / "shares.py")), settings, [0], tmp_path, ["all"])
    environments, said = slices(Devices("cpu", "cpu", 2), 1)[:1], []

    def kill(process) -> None:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and not latest(cell.folder):
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)

    def start_and_kill(*args) -> Any:
        process = launching.start_process(*args)
        threading.Thread(target=kill, args=(process,)).start()
        return process

    arguments = {"machine": "here", "commit": "f00d", "say": said.append, "show": lambda text: None}
    assert run_cells([cell], environments, start=start_and_kill, **arguments)
    assert cell.state().status == "failed" and "memory" in cell.state().message
    printed = (cell.folder / "output.log").read_text()
    assert "1 x cpu" in printed and "trained 40 steps" not in printed

    assert run_cells([cell], [{}], start=Here(), **arguments)
    assert "resumes from the checkpoint of step" in (cell.folder / "output.log").read_text()
    assert cell.state().status == "finished" and cell.state().seconds > 0
    assert gather([cell], "killed").rows[0].metrics["ndcg@10"].over == "users"


def test_cells_run_side_by_side_and_a_signal_stops_them(finished: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(launching, "POLL_SECONDS", 0.001)
    cells = plan(recipes.read(str(finished / "shares.py")), [], [0, 1, 2], tmp_path)
    running, most, places = set(), [], []

    def start(cell, environment, log) -> Any:
        running.add(cell.name)
        most.append(len(running))
        places.append(environment["CUDA_VISIBLE_DEVICES"])
        polls = iter(range(20))
        ended = []

        def poll():
            if ended or (cell.name != "half-seed0" and next(polls, None) is None):
                running.discard(cell.name)
                return 0
            if cell.name == "half-seed0" and len(most) == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            return None

        return SimpleNamespace(poll=poll, terminate=lambda: ended.append(True))

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    environments = slices(Devices("gpu", "H100", 5), 2)
    before = signal.getsignal(signal.SIGTERM)
    said: list[str] = []
    done = run_cells(cells, environments, machine="", commit="", say=said.append, show=str, start=start)
    assert not done and len(most) == 5 and max(most) == 2 and set(places) == {"0,1", "2,3"}
    assert "stopping: the running cells save and end" in said
    assert {cell.state().status for cell in cells[:5]} == {"stopped"} and cells[5].state().status == "new"
    assert signal.getsignal(signal.SIGTERM) is before


def test_devices_are_divided():
    assert slices(Devices("tpu", "TPU v5 lite", 8), None) == [{}]
    assert slices(Devices("cpu", "cpu", 8), 4) == [{"JAX_NUM_CPU_DEVICES": "4"}] * 2
    chips = slices(Devices("tpu", "TPU v5 lite", 8), 4)
    assert [each["TPU_VISIBLE_CHIPS"] for each in chips] == ["0,1,2,3", "4,5,6,7"]
    with pytest.raises(InputError, match="there are 2 x cpu"):
        slices(Devices("cpu", "cpu", 2), 3)
    with pytest.raises(InputError, match="1, 2 or 4"):
        slices(Devices("tpu", "TPU v5 lite", 8), 3)


def test_one_ablation_at_a_time_in_a_folder(tmp_path: Path):
    order: list[str] = []

    def second() -> None:
        with locked(tmp_path, order.append):
            order.append("second")

    with locked(tmp_path, order.append):
        waiting = threading.Thread(target=second)
        waiting.start()
        deadline = time.monotonic() + 60
        while not order and time.monotonic() < deadline:
            time.sleep(0.01)
        order.append("first")
    waiting.join(60)
    assert order[0].startswith("waiting for another") and order[1:] == ["first", "second"]


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("", "defines no sweep"),
        ("def sweep(): return {}", "expected a dict"),
        ("def sweep(): return {'a/b': {}}", "names are folders too"),
        ("def sweep(): return {'a': 'model.width=8'}", "expected key=value strings"),
        ("def sweep(): return {'a': ['model.width']}", "expected key=value, such as"),
        ("def sweep(): return {'a': {'seed': 1}}", "sets the seed"),
        ("def sweep(): return {'a': {'model.widht': 1}}", "row 'a': .*did you mean 'model.width'"),
    ],
)
def test_faults_of_a_sweep_are_one_message(tmp_path: Path, sweep, message):
    with pytest.raises(InputError, match=message):
        plan(recipes.read(str(recipe_file(tmp_path, f"\n{sweep}\n"))), [], [0], tmp_path / "out")


def test_a_sweep_may_be_written_in_two_ways(tmp_path: Path):
    sweep = '\ndef sweep():\n    return {"a": {"train.ema": None, "model.scale": False}, "b": ("model.width=8",)}\n'
    recipe = recipes.read(str(recipe_file(tmp_path, sweep)))
    assert sweep_of(recipe) == {"a": ("train.ema=none", "model.scale=false"), "b": ("model.width=8",)}
    a, b = plan(recipe, ["model.width=16"], [7], tmp_path / "out")
    assert (a.config.train.ema, a.config.model.scale, a.config.model.width, a.config.seed) == (None, False, 16, 7)
    assert b.config.model.width == 8 and b.name == "b-seed7"
    with pytest.raises(InputError, match=r"--only 'c'.*sweeps over a, b"):
        plan(recipe, [], [0], tmp_path / "out", ["c"])
    assert question_of(recipe).startswith("SASRec under full cross-entropy") and "Expected" not in question_of(recipe)


def test_seeds():
    assert seeds_of("3") == [0, 1, 2]
    assert seeds_of("0,7") == [0, 7] and seeds_of("5,") == [5]
    for wrong in ("0", "x", "1,1", "", "-1"):
        with pytest.raises(InputError, match="--seeds"):
            seeds_of(wrong)


def test_every_row_is_looked_at_before_a_cell_starts(
    here: Here, shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    sweep = """

def sweep():
    return {
        "all": {},
        "gone": ["data.dataset=shopp"],
        "other": ["data.dataset=shopp"],
        "unknown": ["train.metric=ndcg@11"],
        "idle": ["train.patience=2", "train.evaluate_every=0"],
    }
"""
    assert cli.main(command(recipe_file(tmp_path, sweep), tmp_path / "out")) == 2
    error = capsys.readouterr().err
    assert (
        "no cell was started; rows 'gone', 'other': no dataset named 'shopp'" in error
        and "did you mean 'shop'" in error
    )
    assert "row 'unknown': train.metric is 'ndcg@11'" in error and "row 'idle': train.patience is set" in error
    assert not here.started
