"""The evidence model against a slow reference in NumPy, and its counts without a user's own events."""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

from recjax.data import transitions
from recjax.data.batches.loader import query_batches
from recjax.data.batches.views import Batch
from recjax.data.dataset import Dataset
from recjax.data.features import evidence
from recjax.data.features.evidence import FADING, FOLLOWED, PRECEDED, catalog_prior
from recjax.data.features.evidence import USERS as OWNERS
from recjax.data.splits import NO_SPLIT, LeaveOneOut, unsplit
from recjax.evaluate.host_ranking import Rules, rank_scored
from recjax.evaluate.ranking import rank_users
from recjax.evaluate.text_transition import TextTransitions
from recjax.models.evidence import DEPENDS, FEATURES
from recjax.models.parts import signals
from recjax.models.parts.signals import POSTERIORS, SIGNALS, STRENGTHS
from recjax.recommender import Recommender
from recjax.train import pretrained
from recjax.train.pretrained import load_pretrained, untrained
from recjax.train.run import Run
from recjax.typing import InputError
from tests.tiny import on_one_device

ITEMS, USERS, DAY = 14, 40, 86_400
WORDS = ("red", "green", "blue", "cup", "plate", "bowl")


def shop(users: int = USERS) -> Dataset:
    """A catalog in which item 14 has no text and few have events, and its log."""
    random = np.random.default_rng(3)
    lengths = random.integers(3, 9, users)
    items = np.minimum(random.geometric(0.25, lengths.sum()), ITEMS - 2).astype(np.int32)
    titles = [f"{WORDS[item % 3]} {WORDS[3 + item % 2]} number" for item in range(ITEMS - 1)]
    catalog = pl.DataFrame({"item_id": [f"i{item}" for item in range(1, ITEMS + 1)], "title": [*titles, None]})
    return Dataset(
        name="shop",
        user_ids=[f"u{user}" for user in range(users)],
        item_ids=["", *catalog["item_id"].to_list()],
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        items=items,
        timestamps=np.arange(len(items), dtype=np.int64) * 9 * DAY,
        values=None,
        catalog=catalog,
        description={},
        fingerprint=f"shop {users}",
    )


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECJAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        on_one_device(patch)
        yield


def opened(dataset: Dataset, **options: Any) -> Run:
    """With untrained weights, that are not weighed against others by how they rank."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrained, "_fitting", lambda *_: ((), untrained()))
        return load_pretrained(dataset, **options)


@cache
def of_shop() -> Run:
    return opened(shop())


def random_gate() -> dict[str, Any]:
    return {"gate": np.random.default_rng(1).normal(size=(len(DEPENDS), len(FEATURES))).astype(np.float32)}


def counted(sequences: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Counts by loops over sequences."""
    found = {name: np.zeros((ITEMS + 1, ITEMS + 1)) for name in ("following", "together")}
    events = np.zeros(ITEMS + 1)
    for sequence in sequences:
        for place, item in enumerate(sequence):
            events[item] += 1
            for gap, weight in enumerate(FADING, 1):
                if place >= gap and sequence[place - gap] != item:
                    found["following"][sequence[place - gap], item] += weight
        for one in set(sequence.tolist()):
            for other in set(sequence.tolist()):
                found["together"][one, other] += 1
    return {**found, "events": events}


def reference(
    counts: dict[str, np.ndarray], prior: np.ndarray, history: np.ndarray, seconds: np.ndarray, gate: np.ndarray
) -> np.ndarray:
    """Scores of items 1..ITEMS, history masked by nan."""
    c, pairs, events = counts["following"], counts["together"], counts["events"]
    n, share = c.sum(axis=1), events / events.sum()
    signals = np.zeros((ITEMS + 1, len(SIGNALS)))
    days = (seconds[-1] - seconds[::-1]) / DAY
    fading = [0.8**age * (0.2 + 0.8 * np.exp(-ago / 60)) for age, ago in enumerate(days)]
    for age, a in enumerate(history[::-1]):
        popular = 0.5 if prior[a].any() else 1.0
        for b in range(1, ITEMS + 1):
            cosine = 0.0 if a == b or not pairs[a, b] else pairs[a, b] / np.sqrt(pairs[a, a] * pairs[b, b])
            follow, precede = c[a, b] / max(n[a], 1e-12), c[b, a] / max(c[:, a].sum(), 1e-12)
            short, long = 0.5**age, fading[age]
            whole = popular * share[b] + (1 - popular) * prior[a, b]
            posterior = [w * (c[a, b] + k * whole) / (n[a] + k) for k in STRENGTHS for w in (short, long)]
            each = [short * follow, long * follow, short * cosine, long * cosine, short * prior[a, b]]
            signals[b] += [*each, long * prior[a, b], short * precede, *posterior]
    # The largest is taken of unseen items, but for popularity, which counts where nothing links to the item too.
    unseen = np.setdiff1d(np.arange(1, ITEMS + 1), history)
    largest = np.maximum(signals[unseen].max(axis=0), 1e-12)
    for at, (k, slow) in zip(POSTERIORS, product(STRENGTHS, (False, True)), strict=True):
        weights = [(fading[age] if slow else 0.5**age) * k / (n[a] + k) for age, a in enumerate(history[::-1])]
        shares = sum(w * (0.5 if prior[a].any() else 1.0) for w, a in zip(weights, history[::-1], strict=True))
        largest[at] = max(largest[at], shares * share.max())
    scaled = signals / largest
    popularity = np.log1p(events) / np.log1p(events.max())
    features = np.concatenate([scaled, np.sqrt(scaled), popularity[:, None]], axis=1)
    nearest = (np.arange(ITEMS + 1) == prior.argmax(axis=1)[:, None]) & (prior > 0)  # one link: a catalog of few items
    trust = ((c * nearest).sum() + 0.5) / (c.sum() + 10)
    scores = features @ (np.array([1, np.log1p(n[history[-1]]) / 5, trust]) @ gate)
    scores[history] = np.nan
    return scores[1:]


def test_scores_are_those_of_the_slow_reference():
    run, params = of_shop(), random_gate()
    train = run.split.train
    counts = counted([np.asarray(train.history(row)) for row in range(len(train))])
    prior = catalog_prior(run.dataset).toarray()
    queries, rows = next(query_batches(run.split.test, run.config.data.view, ITEMS, 16))
    scores, lists, _ = compiled(run, queries, params, 5)
    for row, example in enumerate(rows.tolist()):
        history = np.asarray(run.split.test.histories.history(example))
        seconds = np.asarray(
            run.split.test.histories.timestamps[run.split.test.histories.stops[example] - len(history) :]
        )
        expected = reference(counts, prior, history, seconds[: len(history)], np.asarray(params["gate"], np.float64))
        unseen = ~np.isnan(expected)
        np.testing.assert_allclose(scores[row][unseen], expected[unseen], rtol=2e-4, atol=2e-4)
        best = sorted(np.flatnonzero(unseen), key=lambda item: (-scores[row, item], item))[:5]
        assert lists[row].tolist() == [item + 1 for item in best]


def test_untrained_it_is_the_smoothed_transitions_of_the_floor(monkeypatch, tmp_path):
    """At the floor's distances of counted pairs."""
    monkeypatch.setattr(evidence, "FADING", transitions.GAPS)
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path))  # the shared cache knows nothing of other distances
    run = opened(shop())
    floor = TextTransitions.fit(run.split.train, ITEMS, catalog_prior(run.dataset))
    expected = rank_scored(floor.scores, run.split.test, ITEMS, Rules(k=0)).ranks
    found = rank_users(run.model, run.params, run.split.test, run.config.data.view, str, run.items).ranks
    assert (found == expected).mean() > 0.9  # the rest are ties that rounding breaks


def test_the_loss_sees_no_event_of_its_own_user():
    """Links and sums without a user's events are those of a log that never had the user."""
    whole = shop()
    user = 5
    events = whole.history(user)
    others = np.ones(len(whole.items), bool)
    others[whole.offsets[user] : whole.offsets[user + 1]] = False
    offsets = np.concatenate([[0], np.cumsum(np.delete(np.diff(whole.offsets), user))])
    names = [name for name in whole.user_ids if name != f"u{user}"]
    without = replace(
        whole,
        user_ids=names,
        offsets=offsets,
        items=whole.items[others],
        timestamps=whole.timestamps[others],
        fingerprint="without",
    )
    one, other = (opened(each, all_events=True) for each in (whole, without))
    history, length = events[None], np.array([len(events)])
    model: Any = one.model
    links = jax.jit(model.links)
    left = jax.device_get(links(one.items, history, length, None, history))
    expected = jax.device_get(links(other.items, history, length))
    for name, values in expected.values.items():
        dense = [np.zeros((left.recent.shape[1], ITEMS + 1)) for _ in range(2)]
        for array, links, found in zip(dense, (left, expected), (left.values[name], values), strict=True):
            np.put_along_axis(array, np.asarray(links.ids[name][0]), np.asarray(found[0]), axis=1)
            array[:, 0] = 0
        np.testing.assert_allclose(dense[0], dense[1], atol=1e-5)
    there = np.asarray(left.recent[0]) > 0
    for column in (FOLLOWED, PRECEDED, OWNERS):
        np.testing.assert_allclose(left.totals[0, there, column], expected.totals[0, there, column], atol=1e-5)


def test_a_row_s_own_target_is_not_among_the_counts_that_predict_it():
    """One user, whose events alone link anything: without them nothing points anywhere, so there is no loss."""
    dataset = shop(1)
    bare = replace(dataset, catalog=dataset.catalog.with_columns(title=pl.lit(None, pl.String)), fingerprint="bare")
    run = opened(bare, all_events=True)
    events = dataset.history(0)
    tokens = len(events) - 1
    ones = np.ones((1, tokens), np.int32)
    batch = Batch(events[None, :-1], ones, ones, events[None, 1:], ones.astype(np.float32))  # pyright: ignore
    sums = jax.jit(run.model.loss)(run.params, batch, run.items, None)[1]
    assert [float(part) for part in sums["loss"]] == [0.0, 0.0]
    unseen = np.zeros((1, 0), np.int32)

    model: Any = run.model

    @jax.jit
    def listed(own: Any) -> Any:
        links = model.links(run.items, batch.items, jnp.array([tokens]), None, own)
        return model.features(links, unseen, run.items).listed

    assert np.asarray(listed(np.zeros_like(events)[None])).any() and not np.asarray(listed(events[None])).any()


@pytest.mark.parametrize("dense", [0, 100])
def test_links_of_an_item_meet_at_the_first_of_them(dense, monkeypatch):
    monkeypatch.setattr(signals, "DENSE", dense)
    ids = np.random.default_rng(0).integers(0, 20, 64).astype(np.int32)
    found = jax.jit(partial(signals.first_of_each, rows=21))(ids)
    np.testing.assert_array_equal(found, [ids.tolist().index(item) for item in ids])


def test_a_catalog_without_any_event_is_ranked_by_its_texts():
    run = opened(shop(0))
    assert run.split.name == NO_SPLIT and not len(run.split.test)
    with pytest.raises(InputError, match="train part is empty"):
        LeaveOneOut().split(run.dataset)
    alike = np.asarray(run.items.relation("text").ids)[1]
    queries = next(query_batches(history_of([1]), run.config.data.view, ITEMS, 8))[0]
    _, lists, scores = compiled(run, queries, run.params, 3)
    assert set(lists[0]) <= set(alike[alike > 0]) and np.isfinite(scores[0]).all()


def compiled(run: Run, queries: Any, params: Any, k: int) -> tuple[np.ndarray, ...]:
    """Scores of all items, and lists with theirs."""

    @jax.jit
    def both(params: Any, queries: Any, items: Any) -> Any:
        scoring = run.model.scoring(params, queries, items)
        asked = jnp.tile(jnp.arange(1, ITEMS + 1), (len(queries.items), 1))
        return scoring.scores(asked), *scoring.topk(queries.seen, k)

    return jax.tree.map(np.asarray, both(params, queries, run.items))


def history_of(items: list[int]) -> Any:
    everything = unsplit(shop(), "")
    return replace(
        everything.train.take(np.array([0])),
        items=np.array(items, np.int32),
        starts=np.zeros(1, np.int64),
        stops=np.full(1, len(items)),
        timestamps=np.zeros(len(items), np.int64),
    )


def test_items_alike_are_those_listed_after_the_item_alone(tmp_path):
    model = Recommender(of_shop(), tmp_path)
    alike, listed = model.similar(["i3", "i9"], k=3), model.recommend([["i3"], ["i9"]], k=3)
    assert alike["similar_id"].to_list() == listed["item_id"].to_list() and alike["item_id"][0] == "i3"
    with pytest.raises(InputError, match="zz"):
        model.similar(["zz"])


def test_a_sentence_encoder_reads_the_texts_in_place_of_the_table():
    named = f"pretrained:{Path(__file__).parents[1] / 'text' / 'twins' / 'bert'}"
    assert pretrained.is_pretrained(named) and pretrained.named_parts("pretrained") == (None, None)
    read = opened(shop(), encoder=pretrained.named_parts(named)[0])
    weights = [np.asarray(run.items.relation("text").values) for run in (of_shop(), read)]
    assert not np.allclose(*weights) and np.allclose(weights[1].sum(axis=1)[1:ITEMS], 1.0, atol=1e-5)
    with pytest.raises(InputError, match="names no sentence encoder"):
        pretrained.named_parts("pretrained:")
    with pytest.raises(InputError, match="no sentence encoder at"):
        opened(shop(), encoder="./nothing")


def test_published_weights_are_those_of_their_record():
    found = pretrained.weights()
    assert found["gate"].shape == (len(DEPENDS), len(FEATURES)) and np.isfinite(found["gate"]).all()
    record = json.loads(pretrained.WEIGHTS.with_suffix(".json").read_text())
    assert not {"amazon-beauty-2014", "amazon-arts-cdsr", "microlens-50k"} & {*record["trained_on"]}


def test_other_weights_are_refused(tmp_path):
    path = tmp_path / pretrained.WEIGHTS.name
    path.write_bytes(pretrained.WEIGHTS.read_bytes() + b" ")
    path.with_suffix(".json").write_text(pretrained.WEIGHTS.with_suffix(".json").read_text())
    with pytest.raises(InputError, match="damaged"):
        pretrained.weights(path)
    path.unlink()
    with pytest.raises(InputError, match="incomplete"):
        pretrained.weights(path)
