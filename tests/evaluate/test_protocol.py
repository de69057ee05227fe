"""The whole evaluation on a toy: every user counted, the same on any mesh, nothing earned by accident."""

import dataclasses
import io
import json

import jax
import numpy as np
import pytest
from jax.sharding import AxisType
from rich.console import Console

from recjax.evaluate import ranking
from recjax.evaluate.evaluator import EvaluationData
from recjax.evaluate.metrics import MISS, mean_metrics
from recjax.evaluate.protocol import Evaluate, evaluate
from recjax.evaluate.ranking import NonFiniteScoresError
from recjax.evaluate.recommend import recommend
from recjax.evaluate.report import Report, compare, comparison_table
from recjax.typing import InputError
from tests.evaluate import toy

DATA = toy.dataset()
SPLIT = toy.split(DATA)
MODEL = toy.TwoTables(DATA.n_items)
PARAMS = MODEL.init(None, None, None)
SMALL = Evaluate(users_per_batch=16, bootstrap=50)
SAMPLE = EvaluationData(DATA, dataclasses.replace(SPLIT, validation=SPLIT.test), toy.VIEW)


def run(config=SMALL, params=PARAMS, **options):
    return evaluate(MODEL, params, DATA, SPLIT, toy.VIEW, config, **options)


def expected_ranks(mask_seen: bool) -> list[int]:
    ranks = []
    for row in range(len(SPLIT.test)):
        history, target = SPLIT.test.histories.history(row), int(SPLIT.test.targets[row])
        scores = toy.scores(PARAMS, history)
        hidden = set(history.tolist()) if mask_seen else set()
        order = sorted(set(range(1, DATA.n_items + 1)) - hidden, key=lambda item: (-scores[item], item))
        ranks.append(order.index(target) + 1 if target in order else int(MISS))
    return ranks


@pytest.mark.parametrize("mask_seen", ["history", "none"])
def test_ranks_of_every_user_equal_a_slow_reference(mask_seen):
    report = run(dataclasses.replace(SMALL, mask_seen=mask_seen), floors=False)
    expected = expected_ranks(mask_seen == "history")
    np.testing.assert_array_equal(report.ranks(), expected)
    assert len(expected) == report.counts["users"] == toy.USERS
    assert report.metrics["all"] | mean_metrics(np.array(expected)) == report.metrics["all"]


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 4, 1)])
@pytest.mark.parametrize("candidates", ["full", "uniform100"])
def test_every_user_counts_the_same_on_eight_devices(shape, candidates):
    config = dataclasses.replace(SMALL, candidates=candidates)
    single = run(config)
    mesh = jax.make_mesh(shape, ("data", "model", "seq"), axis_types=(AxisType.Auto,) * 3)
    with jax.set_mesh(mesh):
        many = run(config)
    first, second = single.to_json(), many.to_json()
    first.pop("seconds"), second.pop("seconds")
    assert first == second
    np.testing.assert_array_equal(single.ranks(), many.ranks())


def test_users_with_short_and_with_long_gaps_are_halves():
    histories = SPLIT.test.histories
    times = np.cumsum(np.random.default_rng(0).integers(1, 9, len(histories.items)) ** 3)
    split = dataclasses.replace(
        SPLIT, test=dataclasses.replace(SPLIT.test, histories=dataclasses.replace(histories, timestamps=times))
    )
    report = evaluate(MODEL, PARAMS, DATA, split, toy.VIEW, dataclasses.replace(SMALL, gap_slices=True), floors=False)
    own = [np.diff(times[start:stop]) for start, stop in zip(histories.starts, histories.stops, strict=True)]
    means = np.array([gaps.mean() if len(gaps) else np.nan for gaps in own])
    for name, rows in (("short_gaps", means <= np.nanmedian(means)), ("long_gaps", means > np.nanmedian(means))):
        assert report.counts[name] == rows.sum() > 0
        assert report.metrics[name]["ndcg@10"] == mean_metrics(report.ranks()[rows])["ndcg@10"]
    assert "short_gaps" not in run(floors=False).metrics


def test_slices():
    report = run(floors=False)
    counts = report.counts
    assert counts["novel"] + counts["repeat"] == counts["head"] + counts["tail"] == counts["users"]
    assert counts["repeat"] >= toy.USERS // 7 and counts["cold"] >= toy.USERS // 11
    assert report.metrics["repeat"]["hr@20"] == 0.0  # masked histories hide repeats
    masked_not = run(dataclasses.replace(SMALL, mask_seen="none"), floors=False)
    assert masked_not.metrics["repeat"]["hr@20"] > 0.0
    weighted = sum(report.counts[name] * report.metrics[name]["mrr"] for name in ("head", "tail")) / counts["users"]
    assert weighted == pytest.approx(report.metrics["all"]["mrr"])


def test_json_has_the_promised_keys_and_survives_the_disk(tmp_path):
    report = run(name="toy")
    content = report.to_json()
    assert {"dataset", "protocol", "metrics", "interval", "floors", "counts", "seconds", "audit"} <= set(content)
    assert set(content["dataset"]) == {"name", "fingerprint", "users", "items"}
    assert set(content["protocol"]) == {"split", "candidates", "mask_seen", "tie"}
    keys = {"hr@1", "hr@5", "hr@10", "hr@20", "ndcg@5", "ndcg@10", "ndcg@20", "mrr", "coverage@10"}
    assert set(content["metrics"]) == {"all", "novel", "repeat", "cold", "head", "tail"}
    assert set(content["metrics"]["all"]) == keys | {"novelty@10", "popularity_lift@10"}
    assert list(content["floors"]) == ["popularity", "repeat_last", "transition", "text_knn", "text_transition"]
    for figures in [content["metrics"]["novel"], *content["floors"].values()]:
        assert set(figures) == keys
    assert set(content["interval"]) == keys - {"coverage@10"}
    path = tmp_path / "run" / "evaluation.json"
    report.save(path)
    written = json.loads(path.read_text())
    assert written.keys() - content.keys() == {"digest", "users_sha256"} and content.items() <= written.items()
    assert Report.load(path).to_json() == content
    np.testing.assert_array_equal(Report.load(path).ranks(), report.ranks())
    assert sorted(file.name for file in path.parent.iterdir()) == ["evaluation.json", "evaluation.users.parquet"]


def test_a_changed_figure_or_rank_is_refused(tmp_path):
    run(floors=False).save(path := tmp_path / "evaluation.json")
    text = path.read_text()
    digit = text.index('"ndcg@10": 0.') + len('"ndcg@10": 0.')
    path.write_text(text[:digit] + str((int(text[digit]) + 1) % 10) + text[digit + 1 :])
    with pytest.raises(InputError, match=r"evaluation\.json is damaged"):
        Report.load(path)
    path.write_text(text)
    users = tmp_path / "evaluation.users.parquet"
    users.write_bytes(users.read_bytes()[:-9] + b"x" + users.read_bytes()[-8:])
    with pytest.raises(InputError, match=r"users\.parquet is damaged"):
        Report.load(path)


def test_a_file_that_is_no_report_is_refused(tmp_path):
    (tmp_path / "x.json").write_text("[1]")
    with pytest.raises(InputError, match="no evaluation report"):
        Report.load(tmp_path / "x.json")
    with pytest.raises(InputError, match="does not exist"):
        Report.load(tmp_path / "y.json")


def rendered(renderable) -> str:
    out = io.StringIO()
    Console(width=140, file=out).print(renderable)
    return out.getvalue()


def test_the_table_prints_floors_above_the_model():
    text = rendered(run(name="toy model").table())
    places = [
        text.index(name) for name in ("popularity", "repeat_last", "transition", "text_knn", "toy model", "novel (")
    ]
    assert places == sorted(places)
    assert "history masked" in text and DATA.fingerprint[:12] in text and "SAMPLED" not in text


@pytest.mark.parametrize("candidates", ["uniform100", "popularity100"])
def test_sampled_candidates_say_that_they_are_not_comparable(candidates):
    report = run(dataclasses.replace(SMALL, candidates=candidates))
    assert "not comparable" in report.to_json()["protocol"]["warning"]
    assert "SAMPLED CANDIDATES" in rendered(report.table())
    assert "coverage@10" not in report.metrics["all"]
    full = run(floors=False)
    assert (report.ranks() <= full.ranks()).all()


def test_constant_scores_earn_nothing_beyond_the_order_of_ids():
    constant = {name: np.ones_like(table) for name, table in PARAMS.items()}
    report = run(params=constant, floors=False)
    # All items tie, so the list is the unseen items by id, for everyone.
    expected = []
    for row, target in enumerate(SPLIT.test.targets):
        seen = set(SPLIT.test.histories.history(row).tolist())
        ahead = sum(item not in seen for item in range(1, target))
        expected.append(int(MISS) if target in seen else 1 + ahead)
    np.testing.assert_array_equal(report.ranks(), expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_an_error_that_names_users(bad):
    damaged = {name: table.copy() for name, table in PARAMS.items()}
    only = SPLIT.test.histories.history(5)[-1]
    damaged["inputs"][only] = bad
    with pytest.raises(NonFiniteScoresError, match="not finite") as error:
        run(params=damaged, floors=False)
    users = [u for u in range(toy.USERS) if only in SPLIT.test.histories.history(u)[-toy.VIEW.max_length :]]
    assert repr(DATA.user_ids[users[0]]) in str(error.value)
    assert f"{len(users)} user" in str(error.value)


def test_a_model_of_another_catalog_is_refused():
    with pytest.raises(InputError, match="knows 7 items"):
        evaluate(toy.TwoTables(7), PARAMS, DATA, SPLIT, toy.VIEW, SMALL)


@pytest.mark.parametrize(
    "change", [{"candidates": "half"}, {"split": "train"}, {"mask_seen": "window"}, {"k": 5}, {"bootstrap": -1}]
)
def test_a_bad_protocol_is_refused(change):
    with pytest.raises(InputError, match=f"Evaluate.{next(iter(change))}"):
        Evaluate(**change)


def test_validation_is_the_same_figure_on_a_fixed_sample():
    full = SMALL.validate(MODEL, PARAMS, SAMPLE, None)
    assert full == pytest.approx(mean_metrics(np.array(expected_ranks(True))))
    sample = SMALL.validate(MODEL, PARAMS, SAMPLE, 10)
    assert sample == SMALL.validate(MODEL, PARAMS, SAMPLE, 10) != full


def test_systems_with_several_seeds_are_compared():
    other = MODEL.init(None, None, None) | {"inputs": PARAMS["inputs"][::-1].copy()}
    groups = {"one": [run(floors=False), run(floors=False)], "two": [run(params=other, floors=False)]}
    comparison = compare(groups)
    assert comparison["systems"]["one"]["mrr"]["std"] == 0.0 and comparison["systems"]["one"]["mrr"]["runs"] == 2
    (test,) = comparison["tests"]
    assert test["systems"] == ["one", "two"] and 0 < test["p_t"] <= 1
    assert "paired t" in rendered(comparison_table(comparison))
    with pytest.raises(InputError, match="cannot be compared"):
        compare({"one": groups["one"], "two": [run(dataclasses.replace(SMALL, mask_seen="none"), floors=False)]})


def test_validation_compiles_once():
    SMALL.validate(MODEL, PARAMS, SAMPLE, None)
    compiled = ranking._ranked._cache_size()
    other = {name: table + 1 for name, table in PARAMS.items()}
    SMALL.validate(MODEL, other, SAMPLE, None)
    assert ranking._ranked._cache_size() == compiled


def test_a_catalog_is_prepared_once_for_all_batches_and_anew_for_other_parameters(monkeypatch):
    model, calls, prepared = toy.Prepared(DATA.n_items), [], ranking._prepared
    monkeypatch.setattr(ranking, "_prepared", lambda of, *more: calls.append(of.model) or prepared(of, *more))
    assert SMALL.users_per_batch < len(SPLIT.test) / 2
    for number, params in enumerate((PARAMS, {**PARAMS, "outputs": -PARAMS["outputs"]}), start=1):
        found = evaluate(model, params, DATA, SPLIT, toy.VIEW, SMALL, floors=False)
        np.testing.assert_array_equal(found.ranks(), run(params=params, floors=False).ranks())
        assert calls.count(model) == number
    recommend(model, PARAMS, DATA, toy.VIEW, [["i0"], ["i1"], ["i2"]], users_per_batch=1)
    assert calls.count(model) == 3


def test_the_length_of_lists_is_a_cut_off_too():
    report, usual = run(dataclasses.replace(SMALL, k=15), floors=True), run(floors=False)
    ranks = np.array(expected_ranks(True))
    assert report.metrics["all"]["hr@15"] == (ranks <= 15).mean()
    more = {"hr@15", "ndcg@15"}
    assert set(report.metrics["all"]) - set(usual.metrics["all"]) == set(report.interval) - set(usual.interval) == more
    assert more <= set(report.floors["popularity"] or {})
    assert report.values("ndcg@15").mean() == pytest.approx(report.metrics["all"]["ndcg@15"])
    assert usual.metrics["all"].items() <= report.metrics["all"].items()
    console = Console(file=io.StringIO(), width=200)
    console.print(report.table())
    assert "hr@20  ndcg@5  ndcg@10  hr@15  ndcg@15" in " ".join(console.file.getvalue().split()).replace(" ", "  ")
