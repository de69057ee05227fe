"""Lists of other libraries, scored by the same rules as models."""

import dataclasses

import numpy as np
import polars as pl
import pytest

from recjax.evaluate.predictions import evaluate_predictions
from recjax.evaluate.protocol import Evaluate, evaluate
from recjax.typing import InputError
from tests.evaluate import toy

DATA = toy.dataset()
SPLIT = toy.split(DATA)
CONFIG = Evaluate(bootstrap=0)


def score_file(path, rows, config=CONFIG, **options):
    table = rows if isinstance(rows, pl.DataFrame) else pl.DataFrame(rows)
    table.write_parquet(path) if path.suffix == ".parquet" else table.write_csv(path)
    return evaluate_predictions(path, DATA, SPLIT, config, floors=False, **options)


def all_scores() -> pl.DataFrame:
    """Every item of the catalog for every user, scored as `TwoTables` does, in no order."""
    params = toy.TwoTables(DATA.n_items).init(None, None, None)
    rows = []
    for user in range(len(SPLIT.test)):
        values = toy.scores(params, SPLIT.test.histories.history(user))
        rows += [(DATA.user_ids[user], DATA.item_ids[item], values[item]) for item in range(1, DATA.n_items + 1)]
    return pl.DataFrame(rows, schema=["user", "item", "score"], orient="row").sample(fraction=1.0, shuffle=True, seed=0)


@pytest.mark.parametrize("mask_seen", ["history", "none"])
@pytest.mark.parametrize("name", ["x.csv", "x.parquet"])
def test_whole_score_matrices_give_the_model_s_own_figures(tmp_path, name, mask_seen):
    config = dataclasses.replace(CONFIG, mask_seen=mask_seen)
    model = toy.TwoTables(DATA.n_items)
    ours = evaluate(model, model.init(None, None, None), DATA, SPLIT, toy.VIEW, config, floors=False)
    theirs = score_file(tmp_path / name, all_scores(), config)
    assert theirs.metrics == ours.metrics
    np.testing.assert_array_equal(theirs.ranks(), ours.ranks())
    assert theirs.name == "x"


def first_user():
    history, target = SPLIT.test.histories.history(1), int(SPLIT.test.targets[1])
    unseen = np.setdiff1d(np.arange(1, DATA.n_items + 1), [*history, target])
    raw = DATA.item_ids
    return DATA.user_ids[1], raw[target], [raw[i] for i in unseen], raw[history[0]]


def test_what_a_file_lacks_or_has_too_much_is_counted(tmp_path):
    user, target, unseen, seen = first_user()
    items = [seen, unseen[0], unseen[0], "nowhere", target]
    rows = {"user_id": [user] * 5 + ["nobody"], "item_id": [*items, target], "rank": [1, 2, 9, 3, 4, 1]}
    report = score_file(tmp_path / "lists.csv", rows)
    assert report.ranks()[1] == 2  # after the seen, the repeated and the unknown item are gone
    assert (report.ranks() < 100).sum() == 1
    assert report.metrics["all"]["hr@5"] == pytest.approx(1 / toy.USERS)
    assert report.notes["predictions"] == {
        "rows": 6,
        "users without a list": toy.USERS - 1,
        "duplicates left out": 1,
        "seen items left out": 1,
        "lists shorter than 20": 1,
        "unknown users": 1,
        "unknown items": 1,
        "first unknown users": ["nobody"],
        "first unknown items": ["nowhere"],
    }
    kept = score_file(tmp_path / "lists.csv", rows, dataclasses.replace(CONFIG, mask_seen="none"))
    assert kept.ranks()[1] == 3


def test_lists_are_read_like_logs(tmp_path):
    user, target, unseen, _ = first_user()
    text = f"{user},{unseen[0]},0.9\n{user},{target},0.3\n"
    for header, separator in (("visitorid,Product ID,Score", ","), ("uid;iid;prediction", ";")):
        (tmp_path / "x.csv").write_text(f"{header}\n{text}".replace(",", separator))
        assert evaluate_predictions(tmp_path / "x.csv", DATA, SPLIT, CONFIG, floors=False).ranks()[1] == 2
    (tmp_path / "x.csv").write_bytes(f"user,item,score\n{text}".encode("utf-16"))
    with pytest.raises(InputError, match="iconv -f utf-16"):
        evaluate_predictions(tmp_path / "x.csv", DATA, SPLIT, CONFIG)


def test_a_rank_and_a_score_must_agree(tmp_path):
    user, target, unseen, _ = first_user()
    rows = {"user": [user] * 2, "item": [unseen[0], target], "rank": [2, 1]}
    assert score_file(tmp_path / "x.csv", rows | {"score": [0.1, 0.7]}).ranks()[1] == 1
    with pytest.raises(InputError, match=f"both rank and score, and they disagree, first for user '{user}' .row 1."):
        score_file(tmp_path / "x.csv", rows | {"score": [0.7, 0.1]})


def test_lists_of_sampled_candidates_are_said_to_be_such(tmp_path):
    targets = SPLIT.test.targets
    rows = [(user, DATA.item_ids[i], -n) for user, t in zip(DATA.user_ids, targets, strict=True)
            for n, i in enumerate(dict.fromkeys([1, 2, int(t)]))]  # fmt: skip
    config = dataclasses.replace(CONFIG, mask_seen="none")
    table = pl.DataFrame(rows, schema=["user", "item", "score"], orient="row")
    assert "every list holds its target" in score_file(tmp_path / "x.csv", table, config).notes["predictions"]
    short = table.filter(pl.col("score") < 0)
    assert "every list holds its target" not in score_file(tmp_path / "x.csv", short, config).notes["predictions"]


def test_equal_scores_go_to_the_smaller_item_number(tmp_path):
    user = DATA.user_ids[1]
    target = int(SPLIT.test.targets[1])
    items = [item for item in range(DATA.n_items, 0, -1)]
    config = dataclasses.replace(CONFIG, mask_seen="none")
    rows = {"user": [user] * len(items), "item": [DATA.item_ids[i] for i in items], "score": [0.5] * len(items)}
    assert score_file(tmp_path / "x.csv", rows, config).ranks()[1] == target


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"user": ["u1"], "item": ["i1"]}, "no column score or rank"),
        ({"user": ["u1"], "score": [1.0]}, "no column .item_id.; found: user, score"),
        ({"person": ["u1"], "item": ["i1"], "score": [1.0]}, "no column .user_id."),
        ({"user": ["u1", "u2"], "item": ["i1", "i2"], "score": [1.0, float("nan")]}, "first user 'u2' .row 2"),
        ({"user": ["u1"], "item": ["i1"], "score": [float("inf")]}, "not a finite number"),
        ({"user": ["u1"], "item": ["i1"], "score": ["high"]}, "found 'high'"),
        ({"user": ["u1"], "item": ["i1"], "score": [None]}, "not a finite number"),
        ({"user": ["u1"], "item": ["i1"], "rank": [0]}, "whole numbers from 1"),
        ({"user": ["u1"], "item": ["i1"], "rank": [1.5]}, "whole numbers from 1"),
        ({"user": [None, "u1"], "item": ["i1", "i1"], "rank": [1, 2]}, "rows without user: 1, first row 1"),
        ({"user": ["u1"], "item": [["i1", "i2"]], "score": [1.0]}, "item_id holds List.*one row a recommended item"),
        ({"user": ["u1"], "item": ["i1"], "score": [{"x": 1.0}]}, "the column score holds Struct"),
        ({"user": ["1", "2"], "item": ["7", "8"], "rank": [1, 1]}, "users like '1', '2'.*are like 'u0'"),
    ],
)
def test_damaged_files_are_refused(tmp_path, rows, message):
    nested = any(dtype.is_nested() for dtype in pl.DataFrame(rows).dtypes)
    with pytest.raises(InputError, match=message):
        score_file(tmp_path / ("x.parquet" if nested else "x.csv"), rows)


def test_unreadable_files_and_sampled_protocols_are_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        evaluate_predictions(tmp_path / "absent.csv", DATA, SPLIT)
    (tmp_path / "x.parquet").write_text("no parquet")
    with pytest.raises(InputError, match="is not a readable parquet file"):
        evaluate_predictions(tmp_path / "x.parquet", DATA, SPLIT)
    with pytest.raises(InputError, match="whole catalog"):
        evaluate_predictions(tmp_path / "x.parquet", DATA, SPLIT, Evaluate(candidates="uniform100"))
