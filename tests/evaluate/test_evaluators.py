"""Options, clicks and exposure against dense computations; several evaluators of one run."""

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from recjax.evaluate.clicks import Clicks, auc, user_auc
from recjax.evaluate.evaluator import EvaluationData, named, validation
from recjax.evaluate.exposure import Exposure, exposure
from recjax.evaluate.options import Options
from recjax.evaluate.protocol import Evaluate, evaluate
from recjax.evaluate.rank_sets import RankSets
from recjax.evaluate.report import Report, compare, comparison_table
from recjax.typing import InputError
from tests.evaluate import toy
from tests.evaluate.test_protocol import rendered

DATA = toy.dataset(items=60)
SPLIT = toy.split(DATA)
MODEL = toy.TwoTables(DATA.n_items)
PARAMS = MODEL.init(None, None, None)
PLACE = EvaluationData(DATA, SPLIT, toy.VIEW)
SCORES = np.stack([toy.scores(PARAMS, SPLIT.test.histories.history(row)) for row in range(toy.USERS)])
SMALL = {"users_per_batch": 16, "bootstrap": 20}


def run(config, **options) -> Report:
    return evaluate(MODEL, PARAMS, DATA, SPLIT, toy.VIEW, config, **options)


def test_options_are_few_unseen_items_the_same_for_all():
    config = Options(5, **SMALL)
    wrong = config._wrong(SPLIT.test, DATA, SPLIT)
    assert wrong.shape == (toy.USERS, 4) and wrong.all()
    report, best = run(config), []
    for row, target in enumerate(SPLIT.test.targets):
        assert not set(wrong[row]) & {*SPLIT.test.histories.history(row), target}
        best.append(min([target, *wrong[row]], key=lambda item: (-SCORES[row, item], item)) == target)
    assert report.metrics["all"]["hr@1"] == np.mean(best)
    assert set(report.metrics["all"]) == {"hr@1", "hr@5", "mrr"} and report.metrics["all"]["hr@5"] == 1
    assert set(report.floors) >= {"popularity", "transition"} and report.floors["popularity"]["hr@5"] == 1
    assert "5 options" in rendered(report.table())
    assert tuple(config.validate(MODEL, PARAMS, PLACE, 20)) == config.metrics


def test_clicks_are_ordered_pairs():
    config = Clicks(3, **SMALL)
    pairs = config._pairs(SPLIT.test, SPLIT, DATA.n_items)
    scores = np.take_along_axis(SCORES, pairs, axis=1)
    report = run(config)
    positive, negative = scores[:, 0].repeat(3), scores[:, 1:].reshape(-1)
    ordered = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    assert report.metrics["all"]["auc"] == pytest.approx(ordered[:, pairs[:, 1:].reshape(-1) > 0].mean())
    mine = [roc_auc_score([1, 0, 0, 0], row) for row in scores]
    assert report.metrics["all"]["gauc"] == pytest.approx(np.mean(mine))
    assert report.values("gauc") == pytest.approx(mine)
    assert set(report.floors) == {"popularity", "transition"} and "gauc" in rendered(report.table())
    assert tuple(config.validate(MODEL, PARAMS, PLACE, 20)) == config.metrics


def test_missing_negatives_do_not_count():
    scores, pairs = np.array([[2.0, 1.0, 9.0], [1.0, 1.0, 3.0]]), np.array([[5, 6, 0], [5, 6, 7]])
    assert user_auc(scores, pairs).tolist() == [1.0, 0.25]
    assert auc(scores, pairs) == pytest.approx((1 + 1 + 0 + 0.5 + 0.5 + 0) / 6)


def test_exposure_by_hand():
    lists, items = np.array([[3, 1, 2], [1, 4, 0], [2, 3, 1]]), np.array([1, 2])
    has = np.array([[False, True], [False, False], [True, False]])
    # Item 1: ranks 2 and 1 among the first two users; item 2: nowhere and rank 1 among the last two.
    found = exposure(lists, items, has)
    assert found == {"t_hr@3": (1 + 0.5) / 2, "t_ndcg@3": pytest.approx(((1 / np.log2(3) + 1) / 2 + 0.5) / 2)}


def test_exposure_of_a_model_and_of_floors():
    report = run(Exposure(("i3", "i59"), k=7, users_per_batch=16))
    masked = SCORES.copy()
    masked[:, 0] = -np.inf
    hits, users = np.zeros(2), np.zeros(2)
    for row in range(toy.USERS):
        history = SPLIT.test.histories.history(row)
        masked[row, history] = -np.inf
        best = sorted(range(1, DATA.n_items + 1), key=lambda item, row=row: (-masked[row, item], item))[:7]
        for column, item in enumerate(DATA.item_index(["i3", "i59"])):
            hits[column] += item in best and item not in history
            users[column] += item not in history
    assert report.metrics["all"]["t_hr@7"] == pytest.approx((hits / users).mean())
    assert set(report.floors) == {"popularity", "transition"} and "t_hr@7" in rendered(report.table())
    with pytest.raises(InputError, match="x9"):
        run(Exposure(("x9",)))


def test_further_evaluators_are_tasks_of_the_first(tmp_path):
    first, *others = evaluators = (Evaluate(**SMALL), Options(4, **SMALL), Options(9, **SMALL), Exposure(("i3",)))
    assert list(named(evaluators)) == ["Evaluate", "Options", "Options_2", "Exposure"]
    report = run(evaluators, name="toy")
    content, alone = report.to_json(), run(first, name="toy").to_json()
    assert list(content["tasks"]) == ["Options", "Options_2", "Exposure"]
    assert content["tasks"]["Options"]["metrics"] == run(others[0]).metrics
    assert {**content, "tasks": 0, "seconds": 0} == {**alone, "tasks": 0, "seconds": 0} and "tasks" not in alone
    report.save(tmp_path / "evaluation.json")
    back = Report.load(tmp_path / "evaluation.json")
    assert back.to_json() == content
    assert back.figures["Options_2.hr@1"] == report.tasks["Options_2"].metrics["all"]["hr@1"]
    ours, theirs = back.values("Options.hr@1"), back.values("Options.hr@1", "popularity")
    assert ours is not None and theirs is not None
    assert ours.mean() == pytest.approx(back.figures["Options.hr@1"])
    floors = back.floor_figures["popularity"]
    assert floors is not None and theirs.mean() == pytest.approx(floors["Options.hr@1"])
    text = rendered(report.table())
    assert text.index("toy (") < text.index("Options_2") < text.index("t_hr@50")
    compared = compare({"a": [report], "b": [report]}, "Options.hr@1")
    assert compared["tests"][0]["first"] == pytest.approx(back.figures["Options.hr@1"])
    assert "Options.mrr" in rendered(comparison_table(compared))


def test_any_evaluators_metric_can_decide_what_is_best():
    evaluators = (Evaluate(**SMALL), Options(4, **SMALL))
    found = validation(evaluators, "Options.hr@1", MODEL, PLACE, 20)(PARAMS)
    assert found == Evaluate(**SMALL).validate(MODEL, PARAMS, PLACE, 20) | {
        f"Options.{name}": value for name, value in evaluators[1].validate(MODEL, PARAMS, PLACE, 20).items()
    }
    with pytest.raises(InputError, match=r"train.metric is 'recall@5', but validation measures: hr@1, .*Options\.mrr"):
        validation(evaluators, "recall@5", MODEL, PLACE, None)
    validation((RankSets(),), "recall@5", MODEL, PLACE, None)


@pytest.mark.parametrize(
    ("kind", "change"),
    [(Options, {"number": 1}), (Clicks, {"negatives": 0}), (RankSets, {"k": 3}), (RankSets, {"baselines": ("x",)})],
)
def test_bad_settings_are_refused(kind, change):
    with pytest.raises(InputError, match=rf"\w+\.{next(iter(change))}"):
        dataclasses.replace(kind(), **change)
    with pytest.raises(InputError, match=r"Exposure\.items"):
        run(Exposure())
