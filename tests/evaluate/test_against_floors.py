"""A model beside its floors: ranks that are stored, and what is said of a model that is below the best."""

import dataclasses
import io

import numpy as np
import pytest
from rich.console import Console

from recjax.evaluate.floors import BASELINES, FLOORS, rank_floors
from recjax.evaluate.host_ranking import Rules
from recjax.evaluate.intervals import paired_values
from recjax.evaluate.metrics import user_metrics
from recjax.evaluate.protocol import Evaluate, evaluate
from recjax.evaluate.report import Report, compare, comparison_table
from recjax.typing import InputError
from tests.evaluate import toy

DATA = toy.dataset()
SPLIT = toy.split(DATA)
MODEL = toy.TwoTables(DATA.n_items)


@pytest.fixture(scope="module")
def report() -> Report:
    protocol = Evaluate(users_per_batch=16, bootstrap=20, baselines=BASELINES)
    return evaluate(MODEL, MODEL.init(None, None, None), DATA, SPLIT, toy.VIEW, protocol, name="toy")


def rendered(renderable) -> str:
    out = io.StringIO()
    Console(width=160, file=out).print(renderable)
    return out.getvalue()


def renamed(report: Report, floor: str, ndcg: float) -> Report:
    """The report with one floor alone, whose ranks are not stored."""
    return dataclasses.replace(report, floors={floor: {"ndcg@10": ndcg}})


def test_every_floor_and_baseline_is_stored_with_its_ranks(report: Report, tmp_path):
    report.save(tmp_path / "evaluation.json")
    back = Report.load(tmp_path / "evaluation.json")
    assert tuple(back.floors) == FLOORS + BASELINES
    assert back.floors["vector_transition"] is None  # this model reads no vectors
    for name in ("repeat_last", "text_transition", "item_knn"):
        found = rank_floors(DATA, SPLIT, "test", SPLIT.test, Rules(), only=(name,))[name]
        np.testing.assert_array_equal(back.values("mrr", name), user_metrics(found.ranks)["mrr"])
    assert back.users is not None and back.users["rank_repeat_last"].null_count() == len(SPLIT.test)


def test_a_report_without_floors_says_nothing_of_them(report: Report):
    bare = dataclasses.replace(report, floors={})
    assert bare.against_floors() is None and "floor" not in rendered(bare.table())
    assert dataclasses.replace(report, users=None).values("mrr", "popularity") is None


def test_the_difference_to_the_best_floor_is_paired_over_users(report: Report):
    best = max(report.floors, key=lambda name: (report.floors[name] or {"ndcg@10": 0})["ndcg@10"])
    floor, ours = report.values("ndcg@10", best), report.values("ndcg@10")
    assert floor is not None and ours is not None
    test = paired_values(floor, ours, "ndcg@10")
    low, high = test["interval"]
    line = report.against_floors()
    place = "below" if test["difference"] < 0 else "above"
    assert line == (
        f"{place} the best floor, {best}: ndcg@10 {test['difference']:+.4f} [{low:+.4f}, {high:+.4f}], "
        f"p = {test['p_t']:.2g} (paired t)"
    )
    assert line in rendered(report.table())


def test_above_equal_and_below(report: Report):
    own = report.metrics["all"]["ndcg@10"]
    for ndcg, place in ((own / 2, "above"), (own, "equal to"), (2 * own, "below")):
        assert str(renamed(report, "ease", ndcg).against_floors()).startswith(f"{place} the best floor, ease: ndcg@10 ")


def test_a_comparison_names_the_systems_below(report: Report):
    own = report.metrics["all"]["ndcg@10"]
    other = dataclasses.replace(report, floors={}, metrics={"all": report.metrics["all"] | {"ndcg@10": 3 * own}})
    found = compare({"toy": [renamed(report, "transition", 2 * own)], "better": [other]})
    assert found["best_floor"] == ("transition", 2 * own)
    assert f"below the best floor, transition (ndcg@10 {2 * own:.4f}): toy\n" in rendered(comparison_table(found))
    assert compare({"a": [other], "b": [other]})["best_floor"] is None


def test_an_unknown_baseline_is_refused_before_anything_is_ranked():
    with pytest.raises(InputError, match=r"Evaluate\.baselines is \('bpr',\), expected some of item_knn"):
        Evaluate(baselines=("bpr",))
