"""Several targets a user: against ir-measures, a slow reference on any mesh, and counting on real baskets."""

import dataclasses

import ir_measures
import jax
import numpy as np
import polars as pl
import pytest
from ir_measures import RR, R, Success, nDCG
from jax.sharding import AxisType

from recjax.data.batches.loader import find
from recjax.data.importers import RawLogs
from recjax.data.prepare.build import build
from recjax.data.splits import LeaveOneOut
from recjax.data.store.locate import locate
from recjax.data.target_sets import LastBasket
from recjax.evaluate.evaluator import EvaluationData
from recjax.evaluate.metrics import MISS, SET_ACCURACY, set_metrics, user_metrics
from recjax.evaluate.protocol import Evaluate, evaluate
from recjax.evaluate.rank_sets import RankSets
from recjax.evaluate.report import Report
from recjax.evaluate.set_floors import SET_FLOORS, baskets_ago, personal_scorers
from recjax.evaluate.set_ranking import SetRankings, TargetSets, rank_sets, rank_sets_scored
from recjax.typing import InputError
from tests.evaluate import toy
from tests.evaluate.test_protocol import rendered

MEASURES = {"recall": R, "ndcg": nDCG, "hr": Success}
TREC = {f"{name}@{k}": measure @ k for name, measure in MEASURES.items() for k in (1, 5, 10, 20)}
TREC["mrr"] = RR


def baskets(users: int = 41, items: int = 30):
    """Users with three to six baskets of one to nine events, among them repeats inside a basket."""
    rng = np.random.default_rng(0)
    rows = [
        (f"u{user}", f"i{item}", time)
        for user in range(users)
        for time in range(rng.integers(3, 7))
        for item in rng.integers(0, items, rng.integers(1, 10)) ** 2 // items
    ]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    return build(RawLogs("baskets", events, pl.DataFrame({"item_id": [f"i{item}" for item in range(items)]}), {}))


DATA = baskets()
SPLIT = LastBasket().split(DATA)
MODEL = toy.TwoTables(DATA.n_items)
PARAMS = MODEL.init(None, None, None)
CONFIG = RankSets(users_per_batch=16, bootstrap=50)


def run(config=CONFIG, **options) -> Report:
    return evaluate(MODEL, PARAMS, DATA, SPLIT, toy.VIEW, config, **options)


def ranked(mask_seen: bool) -> SetRankings:
    options = {"mask_seen": mask_seen, "users_per_batch": 16, "k": 10}
    return rank_sets(MODEL, PARAMS, SPLIT.test, toy.VIEW, str, None, **options)


def orders(row: int) -> tuple[list[int], set[int], set[int]]:
    """All items of example `row` from best to worst, its history and its targets."""
    history = SPLIT.test.histories.history(row)
    scores = toy.scores(PARAMS, history)
    order = sorted(range(1, DATA.n_items + 1), key=lambda item: (-scores[item], item))
    assert SPLIT.test.sets is not None
    return order, set(history.tolist()), set(SPLIT.test.sets.history(row).tolist())


def test_metrics_agree_with_ir_measures():
    rng = np.random.default_rng(1)
    qrels, runs, ranks, users = {}, {}, [], []
    for user in range(60):
        targets = rng.choice(40, rng.integers(1, 26), replace=False)
        order = rng.permutation(40)[: rng.integers(20, 41)]  # some targets are not listed
        place = {item: 1 + index for index, item in enumerate(order.tolist())}
        ranks += [place.get(item, MISS) for item in targets.tolist()]
        users += [user] * len(targets)
        qrels[str(user)] = {f"d{item}": 1 for item in targets}
        runs[str(user)] = {f"d{item}": 1.0 / rank for item, rank in place.items()}
    found = set_metrics(np.array(ranks), np.array(users), 60)
    theirs = ir_measures.calc_aggregate(list(TREC.values()), qrels, runs)
    assert set(found) == set(SET_ACCURACY) == set(TREC)
    for name, measure in TREC.items():
        assert found[name].mean() == pytest.approx(theirs[measure], abs=1e-9), name


def test_one_target_a_user_gives_the_metrics_of_one_target():
    ranks = np.array([1, 4, 11, MISS])
    several, one = set_metrics(ranks, np.arange(4), 4), user_metrics(ranks)
    for name in ("hr@5", "ndcg@5", "ndcg@20", "mrr"):
        np.testing.assert_allclose(several[name], one[name])
    assert np.isnan(set_metrics(ranks, np.array([0, 0, 2, 2]), 3)["ndcg@5"][1])


def test_targets_are_distinct_and_know_repeats():
    sets = TargetSets.of(SPLIT.test)
    for row in range(len(SPLIT.test)):
        _, history, targets = orders(row)
        mine = slice(sets.offsets[row], sets.offsets[row + 1])
        assert sets.items[mine].tolist() == sorted(targets)
        assert sets.repeat[mine].tolist() == [item in history for item in sorted(targets)]
    assert SPLIT.test.sets is not None and len(sets.items) < len(SPLIT.test.sets.items)


@pytest.mark.parametrize("mask_seen", [False, True])
def test_ranks_equal_a_slow_reference(mask_seen):
    found = ranked(mask_seen)
    whole, seen, unseen = [], [], []
    for row in range(len(SPLIT.test)):
        order, history, targets = orders(row)
        few = [item for item in order if item not in history]
        own = [item for item in order if item in history]
        for item in sorted(targets):
            among = few if mask_seen else order
            whole.append(1 + among.index(item) if item in among else MISS)
            unseen.append(1 + few.index(item) if item in few else None)
            seen.append(1 + own.index(item) if item in own else None)
        assert found.lists[row].tolist() == ((few if mask_seen else order) + [0] * 10)[:10]
    np.testing.assert_array_equal(found.whole, whole)
    repeat = found.sets.repeat
    assert found.unseen[~repeat].tolist() == [rank for rank in unseen if rank is not None]
    if not mask_seen:
        assert found.seen[repeat].tolist() == [rank for rank in seen if rank is not None]


def test_scores_of_the_host_rank_as_the_model_does():
    def score(histories):
        every = [toy.scores(PARAMS, histories.history(row)) for row in range(len(histories))]
        return np.stack(every)[:, : DATA.n_items + 1]

    for mask_seen in (False, True):
        ours = ranked(mask_seen)
        theirs = rank_sets_scored(score, SPLIT.test, DATA.n_items, mask_seen=mask_seen, k=10)
        for name in ("whole", "unseen", "seen", "lists"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


def test_the_same_on_eight_devices():
    single = run().to_json()
    mesh = jax.make_mesh((2, 4, 1), ("data", "model", "seq"), axis_types=(AxisType.Auto,) * 3)
    with jax.set_mesh(mesh):
        many = run().to_json()
    single.pop("seconds"), many.pop("seconds")
    assert single == many


def test_a_report_of_sets(tmp_path):
    report = run(name="toy")
    assert set(report.metrics) == {"all", "repeat", "novel", "repeat_among_seen", "novel_among_unseen"}
    assert tuple(report.floors) == SET_FLOORS and set(report.interval) == set(SET_ACCURACY)
    assert report.counts["users"] == len(SPLIT.test)
    assert report.metrics["novel_among_unseen"]["ndcg@10"] >= report.metrics["novel"]["ndcg@10"]
    masked = run(dataclasses.replace(CONFIG, mask_seen="history", baselines=("item_knn", "vector_transition")))
    assert masked.floors["item_knn"] and masked.floors["vector_transition"] is None
    assert set(masked.metrics) == {"all", "repeat", "novel"} and masked.metrics["repeat"]["hr@20"] == 0
    assert masked.metrics["novel"] == report.metrics["novel_among_unseen"]
    low, high = report.interval["ndcg@10"]
    assert low < report.metrics["all"]["ndcg@10"] < high
    report.save(tmp_path / "evaluation.json")
    back = Report.load(tmp_path / "evaluation.json")
    assert back.to_json() == report.to_json()
    ours, theirs = back.values("ndcg@10"), back.values("ndcg@10", "personal_top")
    assert ours is not None and ours.mean() == pytest.approx(report.metrics["all"]["ndcg@10"])
    assert theirs is not None and theirs.mean() == pytest.approx(report.floors["personal_top"]["ndcg@10"])
    text = rendered(report.table())
    assert "recall@10" in text and "personal_recent" in text and "novel: the best floor is" in text


def test_validation_measures_a_sample_of_the_validation_part():
    data = EvaluationData(DATA, SPLIT, toy.VIEW)
    found = CONFIG.validate(MODEL, PARAMS, data, None)
    assert tuple(found) == CONFIG.metrics
    report = run(RankSets("validation", bootstrap=0), floors=False)
    assert report.metrics["all"] == found | {"coverage@10": report.metrics["all"]["coverage@10"]}
    assert CONFIG.validate(MODEL, PARAMS, data, 9) != found


def test_an_evaluator_of_one_target_refuses_several():
    with pytest.raises(InputError, match=r"several targets a user, but Evaluate looks at one: .*RankSets"):
        run(Evaluate())
    one = evaluate(MODEL, PARAMS, DATA, LeaveOneOut().split(DATA), toy.VIEW, CONFIG, floors=False)
    assert one.metrics["all"]["recall@5"] == one.metrics["all"]["hr@5"]


def test_personal_floors_by_hand():
    rows = [("a", item, time) for item, time in zip("pqpqrs", (1, 1, 2, 3, 3, 4), strict=True)]
    rows += [("b", item, time) for time, item in enumerate("ttts")]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    data = build(RawLogs("hand", events, pl.DataFrame({"item_id": list("pqrst")}), {}))
    split = LastBasket().split(data)
    histories = split.test.histories.take(np.arange(1))  # p q | p | q r, then s
    assert baskets_ago(histories).tolist() == [3, 3, 2, 1, 1]
    makers = personal_scorers(split, "test", data.n_items)
    p, q, r, s, t = data.item_index(list("pqrst"))
    top, recent, last = (makers[name]()(histories)[0] for name in ("personal_top", "personal_recent", "last_basket"))
    np.testing.assert_allclose(top[[p, q, r, s, t]], [2, 2, 1, 0, 0], atol=1e-5)
    np.testing.assert_allclose(recent[[p, q, r]], [3**-0.5 + 2**-0.5, 3**-0.5 + 1, 1], atol=1e-5)
    np.testing.assert_allclose(last[[p, q, r, s, t]], [0, 1, 1, 0, 0], atol=1e-5)
    assert top[t] > 0 and top[s] == 0  # by popularity before the test, which holds no s


@pytest.fixture(scope="module")
def online_retail():
    """The last baskets of a gift shop; skips where the dataset is not at hand."""
    try:
        locate("online-retail")
    except InputError:
        pytest.skip("needs the dataset online-retail in a folder of RECJAX_DATA")
    return LastBasket().split(data := find("online-retail")), data


def test_floors_on_real_baskets(online_retail):
    split, data = online_retail
    makers = personal_scorers(split, "test", data.n_items)
    expected = {"personal_top": (0.1946, 0.2855), "personal_recent": (0.1954, 0.2841), "last_basket": (0.1539, 0.2335)}
    for name, (recall, ndcg) in expected.items():
        found = rank_sets_scored(makers[name](), split.test, data.n_items, mask_seen=False, k=10)
        values = set_metrics(found.whole, found.sets.rows, len(split.test))
        assert values["recall@10"].mean() == pytest.approx(recall, abs=1e-3)
        assert values["ndcg@10"].mean() == pytest.approx(ndcg, abs=1e-3)
