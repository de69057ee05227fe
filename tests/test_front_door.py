"""A run used from Python and from the command line where its dataset is not, and its exports."""

import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

import recjax
from recjax import cli, frames
from recjax.config import RunConfig
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Cloze
from recjax.evaluate.protocol import Evaluate
from recjax.evaluate.user_events import raw_id, typed
from recjax.models.bert4rec import BERT4Rec
from recjax.parallel.mesh import MeshShape
from recjax.serve.served import of_run
from recjax.train.optimiser import Adam
from recjax.train.pretrained import open_run
from recjax.train.schedule import Train
from recjax.typing import InputError
from tests.tiny import on_one_device

USERS, ITEMS = 40, 25
EVENTS = pl.DataFrame(
    [(f"u{u}", f"i{(u + 2 * t) % ITEMS}", f"2024-01-{t + 1:02}") for u in range(USERS) for t in range(8)],
    schema=["CustomerID", "sku", "day"],
    orient="row",
)
COLUMNS = {"user_id": "CustomerID", "item_id": "sku", "timestamp": "day"}
NAMED = [part for ours, theirs in COLUMNS.items() for part in ("--column", f"{ours}={theirs}")]
CATALOG = pl.DataFrame(
    {
        "item_id": [f"i{item}" for item in range(ITEMS)],
        "title": [f"thing {n}" for n in range(ITEMS)],
        "categories": [f"{'odd' if n % 2 else 'even'}|{'low' if n < ITEMS // 2 else 'high'}" for n in range(ITEMS)],
    }
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the dataset's cache in `cache/` and a run in `run/`."""
    root = tmp_path_factory.mktemp("door")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECJAX_CACHE", str(root / "cache"))
        on_one_device(patch)
        patch.chdir(root)
        dataset = recjax.prepare(EVENTS, "shop", items=CATALOG, columns=COLUMNS)
        model = BERT4Rec(width=8, layers=1, heads=2, max_length=12, inner=16, norm="pre")
        data = Data("shop", view=Cloze(12, mask_prob=0.3), rows=8)
        train = Train(steps=6, evaluate_every=0, save_every=6)
        config = RunConfig("door", data, model, Adam(0.03), MeshShape(), train, Evaluate(bootstrap=20))
        run = recjax.train(config, root / "run")
        assert repr(dataset) == (
            f"<dataset 'shop': 40 users, 25 items, 320 interactions, fingerprint {dataset.fingerprint[:12]}>"
        )
        assert repr(run) == "<recjax run 'door': BERT4Rec, 25 items of 'shop', step 6>"
        yield root


@pytest.fixture
def model(place, monkeypatch, tmp_path):
    """The run, copied to where the dataset is not."""
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path / "nothing"))
    monkeypatch.setenv("RECJAX_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    on_one_device(monkeypatch)
    shutil.copytree(place / "run", tmp_path / "run")
    return recjax.load("run")


def quiet(function, *arguments, **options):
    """The result, and the warnings as texts."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = function(*arguments, **options)
    return found, [str(warning.message) for warning in caught if warning.category is UserWarning]


def test_the_import_loads_nothing():
    code = "import sys, recjax; print(sorted({'jax', 'polars', 'flax', 'numpy'} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


def test_every_form_of_histories_gives_the_same_lists(model, tmp_path):
    two = EVENTS.filter(pl.col("CustomerID").is_in(["u3", "u1"])).sort("day", descending=True)
    histories = {user: [f"i{(int(user[1:]) + 2 * t) % ITEMS}" for t in range(8)] for user in ("u1", "u3")}
    two.write_csv(tmp_path / "two.csv")
    expected = model.recommend(histories, k=4)
    for given in (two, two.lazy(), tmp_path / "two.csv", str(tmp_path / "two.csv")):
        assert model.recommend(given, k=4, columns=COLUMNS).sort("user_id", "rank").equals(expected)
    assert model.recommend(histories["u1"], k=4)["item_id"].to_list() == expected["item_id"].to_list()[:4]
    assert model.recommend(pl.Series(histories["u1"]), k=4)["item_id"].to_list() == expected["item_id"].to_list()[:4]
    assert set(expected.filter(pl.col("user_id") == "u1")["item_id"]).isdisjoint(histories["u1"])
    seen = model.recommend([["i1"]], k=ITEMS, mask_seen="none")
    assert seen.height == ITEMS and seen["title"].null_count() == 0


def test_what_cannot_be_used_is_a_warning_and_what_makes_no_sense_an_error(model):
    found, said = quiet(model.recommend, [["i1", "x9"], []], k=2, candidates=["i2", "i3", "zz"])
    assert found["fallback"].to_list() == [None, None, "popularity", "popularity"]
    assert "1 of 3 candidates are not in the catalog: 'zz'" in said[0] and len(said) == 3
    assert "no item id 'x9'" in said[1] and said[2] == "nothing is left of the history of user '2'; these are the " + (
        "most popular items"
    )
    for options, message in (
        ({}, "give histories, or users"),
        ({"histories": [["i1"]], "users": ["u1"]}, "give histories, or users"),
        ({"users": "everybody"}, "users is 'everybody', expected a list"),
        ({"users": ["u1"]}, "users by id have the histories of the run's dataset, which cannot be read here"),
        ({"histories": EVENTS}, "the frame of users has no columns 'item_id', 'timestamp'"),
        ({"histories": EVENTS.select("CustomerID")}, "users by id have the histories of the run's dataset"),
        ({"histories": [["i1"]], "k": 0}, "k is 0"),
        ({"histories": [["i1"]], "candidates": ["zz"]}, "no item may be listed"),
    ):
        with pytest.raises(InputError, match=message):
            model.recommend(**options)
    with pytest.raises(InputError, match="no item id 'zz'"):
        model.similar(["zz"])
    with pytest.raises(InputError, match="no dataset named 'shop'"):
        model.evaluate()


def test_the_dot_product_of_the_vectors_is_the_score(model):
    items, users = model.item_vectors(), model.user_vectors({"ann": ["i1", "i2"], "bob": ["i7"]})
    assert items.columns == ["item_id", "title", "vector"] and users.columns == ["user_id", "vector"]
    assert items["vector"].list.len().to_list() == [9] * ITEMS  # the bias is the last coordinate
    scores = np.array(users["vector"].to_list()) @ np.array(items["vector"].to_list()).T
    lists = model.recommend({"ann": ["i1", "i2"], "bob": ["i7"]}, k=ITEMS, mask_seen="none")
    order = dict(zip(items["item_id"], range(ITEMS), strict=True))
    expected = [
        scores[["ann", "bob"].index(user), order[item]] for user, item in lists.select("user_id", "item_id").rows()
    ]
    np.testing.assert_allclose(lists["score"], expected, rtol=1e-4, atol=1e-5)
    _, said = quiet(model.user_vectors, {"nobody": []})
    assert said == ["nothing is left of the history of user 'nobody'; none is given"]
    alike, unit = model.similar(["i4"], k=3), np.array(items["vector"].to_list())
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    near = unit @ unit[order["i4"]]
    best = [item for item in sorted(order, key=lambda item: -near[order[item]]) if item != "i4"][:3]
    assert alike["similar_id"].to_list() == best and alike["rank"].to_list() == [1, 2, 3]


def run(*words) -> int:
    return cli.main([str(word) for word in words])


def test_the_command_recommends_without_the_dataset(model, tmp_path, capsys):
    EVENTS.filter(pl.col("CustomerID").is_in(["u3", "u1"])).write_csv("two.csv")
    Path("stock.txt").write_text("i2\ni3\ni9\ngone\n")
    Path("sold.csv").write_text("item_id\ni9\n")
    limits = ("--candidates", "stock.txt", "--exclude", "sold.csv")
    assert run("recommend", "run", "--users", "two.csv", *NAMED, *limits, "--out", "lists.csv") == 0
    assert "1 of 4 candidates are not in the catalog: 'gone'" in capsys.readouterr().out
    found = pl.read_csv("lists.csv")
    assert found.columns == ["user_id", "rank", "item_id", "title", "score", "fallback"]
    assert set(found["item_id"]) <= {"i2", "i3"}
    assert run("recommend", "run", "--history", '"a, b", "i1"\ni2') == 0
    assert "no item id 'a, b' (1 unknown)" in capsys.readouterr().out
    assert run("recommend", "run", "--history", "nowhere", "--fallback", "none") == 0
    assert "nothing of the history is left; none is given" in capsys.readouterr().out
    assert run("recommend", "run", "--similar", "i1,i2", "--k", "2", "--out", "alike.parquet") == 0
    assert pl.read_parquet("alike.parquet").columns == ["item_id", "rank", "similar_id", "title", "score"]
    for words, message in (
        (("--all-users",), "--all-users goes with --out FILE"),
        (("--all-users", "--out", "a.csv"), "users by id have the histories of the run's dataset"),
        (("--history", "i1", "--column", "sku"), "--column 'sku': expected OURS=THEIRS"),
        (("--history", "i1", "--column", "rating=x"), "the columns read here are user_id, item_id and timestamp"),
        (("--history", "i1", "--candidates", "absent.txt"), "there is no file absent.txt"),
        (("--similar", " , "), "expected item ids, separated by commas"),
    ):
        assert run("recommend", "run", *words) == 2
        assert message in capsys.readouterr().err


def test_it_is_served_without_the_dataset(model):
    run = open_run(Path("run"), one_query=True)
    found = of_run(run)
    assert not run.notes and found.catalog.ids == model.items["item_id"].to_list()
    counts = EVENTS.group_by("sku").len()
    expected = dict(counts.iter_rows())
    assert found.catalog.counts.tolist() == [expected.get(item, 0) for item in found.catalog.ids]


def test_users_by_id_where_the_dataset_is(place, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("RECJAX_CACHE", str(place / "cache"))
    monkeypatch.chdir(tmp_path)
    on_one_device(monkeypatch)
    Path("who.txt").write_text("u3\nnew\nu1\n")
    assert run("recommend", place / "run", "--users", "who.txt", "--out", "some.csv", "--k", "3") == 0
    assert run("recommend", place / "run", "--all-users", "--out", "all.parquet", "--k", "3") == 0
    assert "1 user is not in dataset 'shop': 'new'" in capsys.readouterr().out
    some, everyone = pl.read_csv("some.csv"), pl.read_parquet("all.parquet")
    assert some["user_id"].unique(maintain_order=True).to_list() == ["u3", "new", "u1"]
    assert everyone["user_id"].n_unique() == USERS
    for user in ("u1", "u3"):
        one, other = (table.filter(pl.col("user_id") == user)["item_id"].to_list() for table in (some, everyone))
        assert one == other
    assert "ndcg@10" in repr(recjax.load(place / "run").evaluate(floors=False))


def test_exports_and_the_program_in_a_process_without_recjax(model, tmp_path, capsys):
    EVENTS.head(16).write_csv("two.csv")
    asked = (
        "--items",
        "i.parquet",
        "--users",
        "u.parquet",
        "--histories",
        "two.csv",
        *NAMED,
        "--weights",
        "w.safetensors",
    )
    assert run("export", "run", *asked, "--program", "out", "--k", "3") == 0
    assert pl.read_parquet("u.parquet")["user_id"].to_list() == ["u0", "u1"]
    assert pl.read_parquet("i.parquet").height == ITEMS
    weights = load_file("w.safetensors")
    np.testing.assert_array_equal(weights["items"], np.asarray(model.run.params["items"]))
    (code,) = re.findall(r"```python\n(.*?)```", Path("out/README.md").read_text(), re.DOTALL)
    asking = 'print([[item for item, _ in each] for each in recommend([["i1", "i2"], ["i7", "nowhere"]])])'
    blocked = 'import sys\nsys.modules["recjax"] = None\n'
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    if "PYTHONPATH" in os.environ:
        environment["PYTHONPATH"] = os.pathsep.join(os.environ["PYTHONPATH"].split(os.pathsep)[1:])
    ended = subprocess.run(
        [sys.executable, "-c", f"{blocked}{code}\n{asking}"],
        cwd="out",
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    expected, _ = quiet(model.recommend, [["i1", "i2"], ["i7", "nowhere"]], k=3)
    assert ended.stdout == f"{[expected['item_id'].to_list()[:3], expected['item_id'].to_list()[3:]]}\n"
    capsys.readouterr()
    for words, message in (
        ((), "say what to export"),
        (("--items", "i.csv"), "--items i.csv: expected a name that ends in .parquet"),
        (("--k", "3", "--items", "i.parquet"), "--k goes with --program DIR"),
        (("--histories", "two.csv", "--items", "i.parquet"), "--histories goes with --users FILE"),
        (("--program", "two.csv"), "cannot write two.csv"),
        (("--program", "out", "--batch", "0"), "--batch is 0, expected at least 1"),
        (("--users", "v.parquet"), "users by id have the histories of the run's dataset"),
    ):
        assert run("export", "run", *words) == 2, words
        assert message in capsys.readouterr().err, words


def test_a_damaged_catalog_of_a_run_is_refused(model):
    path = Path("run/items/catalog/catalog.parquet")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match=r"catalog\.parquet is damaged: it is not what was written"):
        recjax.load("run")
    path.unlink()
    with pytest.raises(InputError, match=r"catalog\.parquet does not exist: bring it back"):
        recjax.load("run")
    shutil.rmtree(path.parent)  # as a run of an earlier version, which needs the dataset
    with pytest.raises(InputError, match="no dataset named 'shop'"):
        recjax.load("run")


def test_advice_is_in_the_words_of_the_door_that_is_used(place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECJAX_CACHE", str(place / "cache"))
    named = EVENTS.rename({"CustomerID": "users_id"})
    with pytest.raises(InputError, match=r"say columns=\{'user_id': 'users_id'\}"):
        recjax.prepare(named, "other", columns={"item_id": "sku", "timestamp": "day"})
    with pytest.raises(InputError, match="write over it with replace=True"):
        recjax.prepare(EVENTS, "shop", columns=COLUMNS, k_core=2)
    named.write_csv("named.csv")
    columns = ["--column", "item_id=sku", "--column", "timestamp=day"]
    for words in (("prepare", "other", "--raw", "named.csv"), ("recommend", place / "run", "--users", "named.csv")):
        assert run(*words, *columns, *(() if words[0] == "prepare" else ("--out", "x.csv"))) == 2
        assert "say --column user_id=users_id" in capsys.readouterr().err


def test_what_prepare_and_train_refuse(model):
    with pytest.raises(InputError, match=r"the frame of interactions has no columns .*'item_id'"):
        recjax.prepare(EVENTS, "other")
    with pytest.raises(InputError, match="unrecognized arguments: --kcore 3"):
        recjax.prepare(EVENTS, "other", columns=COLUMNS, kcore=3)
    with pytest.raises(InputError, match="items go with a frame of events"):
        recjax.prepare("logs", "other", items=CATALOG)
    with pytest.raises(InputError, match="events are dict, expected a polars or pandas frame, the path of"):
        recjax.prepare({"user_id": ["a"]}, "other")
    with pytest.raises(InputError, match="pretrained is a model for any catalog: say data='NAME'"):
        recjax.load("pretrained")
    with pytest.raises(InputError, match="no recipe is called 'nothing'"):
        recjax.train("nothing")
    with pytest.raises(InputError, match="the frame is int, expected a polars or a pandas frame"):
        frames.polars_frame(5, "the frame")


def test_a_catalog_alone_is_a_dataset(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path))
    found = recjax.prepare(None, "new", items=CATALOG)
    assert (found.n_users, found.n_items) == (0, CATALOG.height) and "no events" not in capsys.readouterr().err


def test_whole_floats_are_ids_as_they_are_in_files():
    assert [raw_id(value) for value in (7.0, np.float64(7), 7.5, "7.0", 7)] == ["7", "7", "7.5", "7.0", "7"]
    assert typed([[1.0, 2.0]]).items == typed([1.0, 2.0]).items == ["1", "2"]


def test_a_named_index_of_a_pandas_frame_is_a_column():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"u": [3.0, None], "i": ["a", "b"]})
    assert frames.polars_frame(frame, "it").columns == ["u", "i"]
    assert frames.polars_frame(frame.set_index("u"), "it").columns == ["u", "i"]


def asked(place, monkeypatch, answers, *arguments):
    """The exit status of `recjax ask`, and the questions, each answered in turn; then the input ends."""
    monkeypatch.chdir(place)
    questions, given = [], iter(answers)

    def answer(question):
        questions.append(question)
        if (found := next(given, None)) is None:
            raise EOFError
        return found

    monkeypatch.setattr("builtins.input", answer)
    return cli.main(["ask", "run", "--users", "20", *arguments]), questions


def test_answers_leave_the_items_that_they_fit(place, monkeypatch, capsys):
    history = ["--history", "i0,i2", "--coverage", "0.9", "--enough", "1"]
    status, questions = asked(place, monkeypatch, ["perhaps", "", "y"], *history)
    assert status == 0 and len(set(questions)) == 3 and questions[0] == questions[1]
    shown = capsys.readouterr().out
    kind = questions[2].removeprefix("categories: ").removesuffix("? ")
    listed = CATALOG.filter(pl.col("categories").str.split("|").list.contains(kind))["title"].to_list()
    titles = re.findall(r"thing \d+", shown)
    assert "perhaps" in shown and titles and set(titles) <= set(listed)


def test_sets_and_questions_are_measured_on_held_out_users(place, monkeypatch, capsys):
    assert asked(place, monkeypatch, [], "--rehearse", "10")[0] == 0
    assert re.search(r"^set +\d", capsys.readouterr().out, re.MULTILINE)
    assert asked(place, monkeypatch, [], "--measure", "--coverage", "70")[0] == 2
    assert "--coverage is 70.0, expected a number between 0 and 1" in capsys.readouterr().err
    assert asked(place, monkeypatch, [], "--measure")[0] == 0
    assert capsys.readouterr().out.count("stated coverage 70%") == 2
    for wrong in ("--history i0 --about colour", "--history x", "--rehearse 40", "--history i0 --show 0"):
        assert asked(place, monkeypatch, [], *wrong.split())[0] == 2


def test_sets_of_users_from_python(place, monkeypatch):
    monkeypatch.chdir(place)
    model = recjax.load("run").calibrated(["categories"], coverage=0.5, users=20)
    sets, warned = quiet(model.sets, {"ann": ["i1", "i2"], "bob": ["i3", "x"], "eve": ["x"]})
    assert sets.columns == ["user_id", "rank", "item_id", "title", "probability"]
    assert set(sets["user_id"]) == {"ann", "bob"} and any("'eve'" in line for line in warned)
    assert quiet(model.sets, {"eve": ["x"]})[0].schema == sets.schema
    talk = model.ask(["i1", "i2"])
    assert talk.table.height == sets.filter(user_id="ann").height
