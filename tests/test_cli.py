"""The command line: grammar, exit status, messages, and each command on a tiny run."""

import errno
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import polars as pl
import pytest

from recjax import array_files, cli, recipes
from recjax.data.embedded.synthetic import synthetic
from recjax.train.errors import TrainingError
from tests.tiny import SETTINGS, on_one_device, tiny_datasets

LEFT = ["--set", "data.view.align=left"]  # so that the run can go on event by event
TRAIN = ["train", "sasrec_synthetic", *SETTINGS, "--set", "data.dataset=shop", *LEFT, "--run"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory):
    """A folder of datasets with one small shop, and a cache of its own."""
    folder = tiny_datasets(tmp_path_factory.mktemp("data"), ["shop"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECJAX_DATA", str(folder))
        patch.setenv("RECJAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        on_one_device(patch)  # tests/train/test_evaluators.py has commands on several
        yield folder


@pytest.fixture(scope="module")
def run(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps, trained and evaluated by the command."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    assert cli.main([*TRAIN, str(folder)]) == 0
    return folder


def test_help_waits_for_no_library():
    code = (
        "import sys; from recjax.cli import parser; parser().format_help(); "
        "heavy = {'jax', 'numpy', 'polars', 'flax', 'rich'} & set(sys.modules); sys.exit(repr(heavy) if heavy else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["train"],
        ["evaluate", "--split", "weekend"],
        ["recommend", "runs/x"],
        ["recommend", "runs/x", "--history", "1", "--users", "f"],
        ["train", "quickstart", "--set"],
    ],
)
def test_bad_usage_exits_with_2(arguments, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "usage: recjax" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "quickstrat"], "did you mean 'quickstart'"),
        (["train", "sasrec_synthetic", "--set", "model.widht=3"], "did you mean 'model.width'"),
        (["train", "sasrec_synthetic", "--set", "data.dataset=absent"], "absent"),
        (["inspect", "absent"], "absent"),
        (["evaluate", "absent"], "absent"),
        (["evaluate"], "RUN"),
        (["recommend", "absent", "--history", "1"], "absent"),
        (["prepare", "shop", "--raw", "absent-folder"], "absent-folder"),
    ],
)
def test_bad_input_is_one_message_and_exits_with_2(
    arguments, message, shop, tmp_path, monkeypatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"recjax {arguments[0]}: ") and message in error
    assert "Traceback" not in error and len(error.splitlines()) == 1
    assert cli.main([*arguments, "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_failed_run_exits_with_1(shop, tmp_path, monkeypatch, capsys: pytest.CaptureFixture[str]):
    def fail(*_):
        raise TrainingError("step 3: the loss is nan")

    monkeypatch.setattr("recjax.commands.train.fit", fail)
    assert cli.main([*TRAIN, str(tmp_path / "run")]) == 1
    assert capsys.readouterr().err == "recjax train: step 3: the loss is nan\n"


def test_the_same_command_means_the_same_folder():
    assert recipes.default_run("quickstart", []) == Path("runs/quickstart")
    changed = recipes.default_run("quickstart", ["model.width=8"])
    assert changed.parent == Path("runs") and changed.name.startswith("quickstart-")
    assert recipes.default_run("quickstart", ["model.width=8"]) == changed
    assert recipes.default_run("quickstart", ["model.width=9"]) != changed


def test_train_leaves_a_complete_run_folder(run: Path):
    assert {"config.json", "metrics.jsonl", "checkpoints", "evaluation.json"} <= {path.name for path in run.iterdir()}
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["counts"]["users"] == 120
    assert set(evaluation["floors"]) == {"popularity", "repeat_last", "transition", "text_knn", "text_transition"}


def test_the_same_command_goes_on(run: Path, capsys: pytest.CaptureFixture[str]):
    before = (run / "metrics.jsonl").read_bytes()
    assert cli.main([*TRAIN, str(run), "--no-evaluate"]) == 0
    assert (run / "metrics.jsonl").read_bytes() == before  # it was done: nothing was trained again
    assert cli.main([*TRAIN, str(run), "--set", "seed=3"]) == 2
    assert "seed is 0 there and 3 now" in capsys.readouterr().err


def test_prepare(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["prepare", "mine", "--raw", str(shop / "shop"), "--out", str(tmp_path / "mine")]) == 0
    text = capsys.readouterr().out
    assert "mine: 120 users, " in text and "fingerprint " in text and "test targets that a tie could swap" in text
    assert cli.main(["prepare", str(tmp_path / "mine")]) == 0
    again = capsys.readouterr().out
    assert next(line for line in text.splitlines() if "fingerprint" in line) in again
    assert cli.main(["prepare", "mine", "--raw", str(shop / "shop"), "--min-length", "12"]) == 0
    fewer = capsys.readouterr().out
    assert "after k_core 0, min_length 12: " in fewer
    assert cli.main(["prepare", "mine"]) == 0  # found in the cache, where it was written without --out
    assert capsys.readouterr().out.splitlines()[-9:] == fewer.splitlines()[-10:-1]


def test_prepare_replaces_nothing_without_a_word(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    out = tmp_path / "mine"
    (tmp_path / "runs" / "mine" / "config.json").write_text(json.dumps({"data": {"dataset": str(out)}}))
    raw = shutil.copytree(shop / "shop", tmp_path / "raw")
    prepare = ["prepare", "kept", "--raw", str(raw), "--out", str(out)]
    assert cli.main(prepare) == cli.main(prepare) == 0
    written = (out / "dataset.json").read_bytes()
    assert cli.main([*prepare, "--min-length", "12"]) == 2
    error = capsys.readouterr().err
    assert "is prepared already with other options (min_length 1, now 12)" in error
    assert "there are mine" in error and "--replace" in error
    with (raw / "interactions.csv").open("a") as file:
        file.write("someone,new,1700000000\n")
    assert cli.main(prepare) == 2
    assert "from other data" in capsys.readouterr().err
    assert (out / "dataset.json").read_bytes() == written
    assert cli.main([*prepare, "--replace"]) == 0
    assert (out / "dataset.json").read_bytes() != written


def test_inspect(run: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["inspect", str(run)]) == 0
    text = capsys.readouterr().out
    for expected in ("parameters", "model.width = 8", "fingerprint", "ndcg@10", "step "):
        assert expected in text


def test_evaluate_prints_json(run: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["evaluate", str(run), "--json", "--split", "validation"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["protocol"]["split"] == "validation"
    assert 0 <= report["metrics"]["all"]["ndcg@10"] <= 1


def test_evaluate_with_another_protocol(run: Path, capsys: pytest.CaptureFixture[str]):
    before = (run / "evaluation.json").read_bytes()
    assert cli.main(["evaluate", str(run), "--json", "--set", "evaluate.mask_seen=none"]) == 0
    assert json.loads(capsys.readouterr().out)["protocol"]["mask_seen"] == "none"
    assert (run / "evaluation.json").read_bytes() == before  # the file always is of the recipe's own protocol
    assert cli.main(["evaluate", str(run), "--set", "model.width=9"]) == 2
    assert "only the protocol can change" in capsys.readouterr().err


def test_evaluate_fits_baselines_beside_the_floors(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    copy = shutil.copytree(run, tmp_path / "copy")
    assert cli.main(["evaluate", str(copy), "--baselines", "item_knn,session_knn"]) == 0
    text = capsys.readouterr().out
    assert "item_knn" in text and " the best floor, " in text
    assert list(json.loads((copy / "evaluation.json").read_text())["floors"])[-2:] == ["item_knn", "session_knn"]
    assert cli.main(["report", str(copy)]) == 0  # reads the run folder, whose configuration is as it was
    assert "session_knn" in (copy / "report.html").read_text()
    assert cli.main(["evaluate", str(copy), "--baselines", "als"]) == 2
    assert "evaluate.baselines is ('als',), expected some of item_knn" in capsys.readouterr().err


def test_evaluate_compares_runs(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    seed, other = shutil.copytree(run, tmp_path / "seed"), shutil.copytree(run, tmp_path / "other")
    text = (run / "config.json").read_text()
    (seed / "config.json").write_text(text.replace('"seed": 0\n}', '"seed": 1\n}'))
    (other / "config.json").write_text(text.replace('"dropout": 0.2', '"dropout": 0.3'))
    assert cli.main(["evaluate", str(run), str(seed), str(other), "--json"]) == 0
    comparison = json.loads(capsys.readouterr().out)["comparison"]
    assert {name: figures["ndcg@10"]["runs"] for name, figures in comparison["systems"].items()} == {
        str(run): 2,
        str(other): 1,
    }
    (test,) = comparison["tests"]
    assert test["systems"] == [str(run), str(other)] and test["difference"] == 0


def test_evaluate_scores_lists_of_another_library(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    events = pl.read_csv(shop / "shop" / "interactions.csv").sort("user_id", "timestamp", maintain_order=True)
    last = events.group_by("user_id", maintain_order=True).last().select("user_id", "item_id", rank=pl.lit(1))
    last.write_csv(tmp_path / "lists.csv")
    arguments = ["evaluate", "--predictions", str(tmp_path / "lists.csv"), "--json"]
    assert cli.main([*arguments, "--data", "shop"]) == 0
    report = json.loads(capsys.readouterr().out)
    repeats = report["counts"]["repeat"]  # a list that repeats history is wrong by the protocol
    assert report["metrics"]["all"]["hr@1"] == pytest.approx(1 - repeats / 120)
    assert cli.main(arguments) == 2
    assert "--data" in capsys.readouterr().err


def test_recommend_for_a_history(run: Path, capsys: pytest.CaptureFixture[str]):
    items = synthetic(users=120, items=100).catalog["item_id"].to_list()[:2]
    assert cli.main(["recommend", str(run), "--history", ",".join(items), "--k", "5"]) == 0
    text = capsys.readouterr().out
    assert not any(item in text for item in items)  # what was consumed is not recommended
    assert cli.main(["recommend", str(run), "--history", f"{items[0]},absent"]) == 0
    text = capsys.readouterr().out
    assert "no item id 'absent'" in text and "events left out: 1" in text
    assert cli.main(["recommend", str(run), "--history", "absent"]) == 0
    assert "most popular" in capsys.readouterr().out
    assert cli.main(["recommend", str(run), "--history", items[0], "--out", "lists.parquet"]) == 2
    assert "--out goes with --users" in capsys.readouterr().err


def test_a_list_waits_for_no_library_that_it_does_not_need(run: Path, capsys: pytest.CaptureFixture[str]):
    items = synthetic(users=120, items=100).catalog["item_id"].to_list()[:2]
    arguments = ["recommend", str(run), "--history", ",".join(items)]
    assert cli.main(arguments) == 0
    code = (
        "import atexit, sys; from recjax.cli import main; "
        "heavy = {'grain', 'matplotlib', 'optax', 'scipy.sparse', 'sklearn', 'tensorboardX', 'tensorflow_datasets'}; "
        "atexit.register(lambda: print(sorted(heavy & set(sys.modules)), file=sys.stderr)); sys.exit(main())"
    )
    process = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert process.stdout == capsys.readouterr().out and process.stderr == "[]\n"


def test_recommend_for_a_file_of_users(run: Path, shop: Path, tmp_path: Path):
    out = tmp_path / "lists.parquet"
    arguments = ["recommend", str(run), "--users", str(shop / "shop" / "interactions.csv"), "--out", str(out)]
    assert cli.main([*arguments, "--k", "3"]) == 0
    lists = pl.read_parquet(out)
    assert cli.main([*arguments[:-1], str(out.with_suffix(".csv")), "--k", "3"]) == 0
    assert pl.read_csv(out.with_suffix(".csv"), schema_overrides=lists.schema).equals(lists)
    assert lists.columns[:5] == ["user_id", "rank", "item_id", "title", "score"]
    assert lists.height == 120 * 3
    seen = pl.read_csv(shop / "shop" / "interactions.csv")
    assert lists.join(seen, on=["user_id", "item_id"], how="semi").height == 0


def test_recommend_event_by_event(run: Path, shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    events = pl.read_csv(shop / "shop" / "interactions.csv").sort("user_id", "timestamp", maintain_order=True)
    # An event that equals the last one of an earlier file in item and time counts as that one.
    events = events.unique(["user_id", "item_id", "timestamp"], keep="first", maintain_order=True)
    events = events.group_by("user_id", maintain_order=True).head(12)
    events.write_csv(tmp_path / "all.csv")
    place = pl.int_range(pl.len()).over("user_id")
    events.filter(place < 7).write_csv(tmp_path / "first.csv")
    events.filter(place >= 7).write_csv(tmp_path / "rest.csv")
    state, once, whole = (tmp_path / name for name in ("users.safetensors", "once.parquet", "whole.parquet"))
    stream = ["recommend", str(run), "--state", str(state), "--out", str(once), "--stream"]
    assert cli.main([*stream, str(tmp_path / "first.csv")]) == 0
    assert "120 of 120 users are new here: nothing is known of them but this file" in capsys.readouterr().out
    assert cli.main([*stream, str(tmp_path / "rest.csv")]) == 0
    assert "are new here" not in capsys.readouterr().out
    assert cli.main(["recommend", str(run), "--users", str(tmp_path / "all.csv"), "--out", str(whole)]) == 0
    ours, theirs = pl.read_parquet(once), pl.read_parquet(whole)
    theirs = theirs.join(ours.select("user_id").unique(), on="user_id", how="semi")
    assert ours.height == theirs.height > 0
    assert ours.drop("score").equals(theirs.drop("score"))
    capsys.readouterr()
    before = array_files.read(state).arrays
    assert cli.main([*stream, str(tmp_path / "rest.csv")]) == 0  # given twice, it changes nothing
    left_out = events.filter(place >= 7).height
    assert f"{left_out:,} events left out: they are not after those" in capsys.readouterr().out
    assert pl.read_parquet(once).equals(ours)
    after = array_files.read(state).arrays
    assert all((after[name] == array).all() for name, array in before.items())
    assert cli.main([*stream, str(tmp_path / "rest.csv"), "--late", "refuse"]) == 2
    assert f"{left_out:,} events are not after those" in capsys.readouterr().err
    assert cli.main([*stream, str(shop / "shop" / "interactions.csv")]) == 2
    assert "has room for 12" in capsys.readouterr().err
    assert cli.main(["recommend", str(run), "--history", "1", "--state", str(state)]) == 2
    assert "--state goes with --stream" in capsys.readouterr().err


def test_files_of_a_command_are_checked_before_anything_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\n")
    (tmp_path / "link.csv").symlink_to(tmp_path / "log.csv")
    log, state = str(tmp_path / "log.csv"), str(tmp_path / "x.parquet")
    for arguments, message in (
        (["--stream", log, "--state", state, "--out", state], "--state and --out are the same file"),
        (["--stream", log, "--out", f"{tmp_path}/link.csv"], "--stream and --out are the same file"),
        (["--users", log, "--out", f"{tmp_path}/../{tmp_path.name}/log.csv"], "--users and --out are the same file"),
        (["--users", log, "--out", f"{tmp_path}/lists.txt"], "lists are written as .csv or .parquet"),
        (["--users", log, "--out", f"{log}/lists.csv"], "cannot write"),
        (["--users", log, "--late", "skip"], "--late goes with --stream"),
        (["--stream", log, "--out", f"{tmp_path}/{'x' * 300}.csv"], "cannot write"),
    ):
        assert cli.main(["recommend", str(tmp_path / "no run"), *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, error


class PanicException(BaseException):
    """As polars calls its own."""


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), 1, "runs/x: No space left on device"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "xxx"), 2, "xxx: File name too long"),
        (PermissionError(errno.EACCES, "Permission denied", "/cache"), 2, "/cache: Permission denied"),
        (MemoryError("Unable to allocate 1 TiB"), 1, "out of memory: Unable to allocate 1 TiB"),
        (PanicException("index out of bounds\nat line 3"), 1, "polars cannot do this, and says: index out of bounds"),
        (pl.exceptions.ComputeError("not a parquet file"), 1, "a table cannot be read or made: not a parquet file"),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 1 TB"), 1, "out of memory of the device: RESOURCE_EXHAUSTED"),
        (RuntimeError("Unable to initialize backend 'x'"), 2, "Unable to initialize backend 'x'"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_what_is_no_fault_of_the_program_ends_in_one_line(error, status, words, monkeypatch, capsys):
    def fails(options, whole):
        raise error

    monkeypatch.setattr(cli, "_run", fails)
    assert cli.main(["inspect", "x"]) == status
    found = capsys.readouterr()
    assert found.err.startswith(f"recjax inspect: {words}") and found.err.count("\n") == 1


def test_a_fault_of_the_program_is_not_hidden(monkeypatch):
    def fails(options, whole):
        return {}["absent"]

    monkeypatch.setattr(cli, "_run", fails)
    with pytest.raises(KeyError):
        cli.main(["inspect", "x"])


def test_a_name_is_no_path(shop, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path / "cache"))
    for name in ("../shop", "/shop", "", ".shop", "a" * 300, "prepared", "a\nb", "\udcff"):
        assert cli.main(["prepare", name, "--raw", str(shop / "shop")]) == 2
        assert "a dataset cannot be called" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_standard_output_that_takes_no_words(monkeypatch, capsys):
    monkeypatch.setattr(cli, "_run", lambda options, whole: print("found") or 0)
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert cli.main(["inspect", "x"]) == 1
    assert capsys.readouterr().err == "recjax inspect: cannot write to standard output: No space left on device\n"


def test_a_standard_output_that_knows_few_letters(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    monkeypatch.setattr(sys, "argv", ["recjax", "inspect", "x"])
    monkeypatch.setattr(cli, "_run", lambda options, whole: print("caf\u00e9 \u00b7") or 0)
    assert cli.main() == 0
    assert written.getvalue() == b"caf? ?\n"
