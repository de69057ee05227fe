"""Prediction sets against lists made by hand, and their coverage on exchangeable users."""

import dataclasses

import numpy as np
import pytest
from scipy.special import log_softmax

from recjax.evaluate.conformal import PredictionSets, coverage_margin, measured, threshold
from recjax.evaluate.evaluator import EvaluationData
from recjax.evaluate.protocol import evaluate
from recjax.evaluate.report import compare
from recjax.settings import SettingError
from tests.evaluate import toy
from tests.evaluate.test_protocol import rendered

DATA = toy.dataset(users=200)
SPLIT = toy.split(DATA)
MODEL = toy.TwoTables(DATA.n_items)
PARAMS = MODEL.init(None, None, None)
PLACE = EvaluationData(DATA, SPLIT, toy.VIEW)
SMALL = {"users_per_batch": 32, "bootstrap": 20}


def run(config, params=PARAMS, **options):
    return evaluate(MODEL, params, DATA, SPLIT, toy.VIEW, config, **options)


@pytest.mark.parametrize("score", ["probability", "rank"])
def test_sets_are_the_items_that_score_no_worse(score):
    thresholds = (0.5, 3.0, np.inf)
    scores, sizes = measured(MODEL, PARAMS, SPLIT.test, PLACE, thresholds, score=score)
    for row, target in enumerate(SPLIT.test.targets):
        history = SPLIT.test.histories.history(row)
        plain = toy.scores(PARAMS, history)[1:].astype(float)
        plain[history - 1] = -np.inf
        order = np.argsort(-plain, kind="stable")
        places = np.empty(len(order))
        places[order] = np.arange(1, len(order) + 1)
        own = np.where(np.isfinite(plain), -log_softmax(plain) if score == "probability" else places, np.inf)
        assert scores[row] == pytest.approx(own[target - 1])
        assert sizes[row].tolist() == [(own <= most + 1e-9).sum() for most in thresholds]


def test_exchangeable_users_are_covered_as_stated_and_more_by_larger_sets():
    levels, halves = (0.5, 0.7, 0.9), 20
    scores = measured(MODEL, PARAMS, SPLIT.test, PLACE)[0]
    scores = scores[np.isfinite(scores)]
    half, found = len(scores) // 2, np.zeros((halves, 3))
    for split in range(halves):
        mixed = np.random.default_rng(split).permutation(scores)
        for number, level in enumerate(levels):
            found[split, number] = (mixed[half:] <= threshold(mixed[:half], level)).mean()
            assert abs(found[split, number] - level) <= coverage_margin(level, half, len(scores) - half) + 2 / half
    assert (np.diff(found, axis=1) >= 0).all()


def test_the_user_who_comes_next_counts():
    """Without the + 1, nine of the ten equally likely places of the next user would be eight."""
    found = [
        scores[-1] <= threshold(scores[:-1], 0.9)
        for scores in np.random.default_rng(0).random((4000, 10))  # nine known users and the next one
    ]
    assert np.mean(found) == pytest.approx(0.9, abs=0.015)


def test_a_report_has_a_row_for_each_level_and_floors_beside_it():
    report = run(PredictionSets(levels=(0.5, 0.8), calibrate="test", **SMALL))
    assert set(report.metrics) == {"all", "80%"} and set(report.metrics["all"]) == {"excluded", "coverage", "size"}
    assert report.counts == {"users": 100, "80%": 100} and set(report.floors) == {"popularity", "transition"}
    figures = report.metrics["all"]
    assert figures["excluded"] == pytest.approx(1 - figures["size"] / DATA.n_items)
    assert figures["size"] < report.metrics["80%"]["size"] and "best floor" in rendered(report.table())
    assert compare({"a": [report], "b": [report]})["tests"][0]["difference"] == 0


def test_coverage_that_time_has_taken_is_said():
    """Validation targets that the model ranks first say nothing of the test's."""
    examples = SPLIT.validation
    best = np.array([np.argmax(toy.scores(PARAMS, examples.histories.history(row))) for row in range(len(examples))])
    easy = dataclasses.replace(SPLIT, validation=dataclasses.replace(examples, targets=best.astype(np.int32)))
    config = PredictionSets(levels=(0.9,), mask_seen="none", **SMALL)
    report = config.evaluate(MODEL, PARAMS, dataclasses.replace(PLACE, split=easy), floors=False)
    assert report.metrics["all"]["coverage"] < 0.7
    assert "below the stated coverage" in rendered(report.table())


def test_levels_are_shares():
    with pytest.raises(SettingError, match="levels"):
        PredictionSets(levels=(90.0,))
