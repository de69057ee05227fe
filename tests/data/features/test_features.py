"""Features of items: each against a plain one; fitted once, saved with the run, applied to a catalog never seen."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import polars as pl
import pytest

from recjax.config import RunConfig, from_json, override_all, to_json
from recjax.data.batches.histories import Histories
from recjax.data.batches.loader import Data
from recjax.data.features.behaviour import Behaviour
from recjax.data.features.columns import Attribute, Codes, VectorFile, Words
from recjax.data.features.feature import Source
from recjax.data.features.relations import CoOccurrence, Neighbours, SessionCoOccurrence, Transitions
from recjax.data.importers import RawLogs
from recjax.data.items import Relation, bare_items
from recjax.data.prepare.build import build
from recjax.data.splits import LeaveOneOut
from recjax.evaluate.protocol import Evaluate
from recjax.models.sasrec import SASRec
from recjax.parallel.mesh import MeshShape
from recjax.text.hashed import Hashed
from recjax.tokenizers.rq_kmeans import RQKMeans
from recjax.tokenizers.rq_vae import RQVAE
from recjax.train import catalogs
from recjax.train.loop import Train
from recjax.train.optimiser import Adam
from recjax.typing import InputError
from tests.train.toy import OneDevice

HISTORIES = (["a", "b", "c", "d", "x", "y"], ["a", "b", "e", "x", "y"], ["c", "b", "a", "e", "d"], ["e", "a", "b", "d"])
TITLES = {"a": "Red Lamp", "b": "red chair", "c": None, "d": "blue lamp", "e": "red lamp", "x": "desk", "y": "rare"}


def source(name: str = "shop", histories=HISTORIES, titles=TITLES) -> Source:
    rows = [(f"u{u}", item, time) for u, items in enumerate(histories) for time, item in enumerate(items)]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    brands = ["Acme" if item in "ab" else "Other" if item in "cx" else None for item in titles]
    catalog = pl.DataFrame({"item_id": list(titles), "title": list(titles.values()), "brand": brands})
    data = build(RawLogs(name, events, catalog, {}))
    return Source(data, LeaveOneOut().split(data).train, bare_items(data.n_items))


SHOP = source()
IDS = SHOP.dataset.item_ids


def with_vectors(seed: int = 0) -> Source:
    vectors = np.random.default_rng(seed).normal(size=(len(IDS), 4)).astype(np.float32)
    vectors[[0, IDS.index("c")]] = 0
    return replace(SHOP, items=SHOP.items.adding({"vectors": vectors}))


def links(relation: Relation, item: str) -> dict[str, float]:
    row = IDS.index(item)
    return {IDS[i]: float(v) for i, v in zip(relation.ids[row], relation.values[row], strict=True) if i}


def test_transitions_are_shares_of_what_came_next_in_training():
    found = Transitions(count=3).make(SHOP, {})
    # Training events: a b c d | a b e | c b a | e a: next at 1, 2, 3 behind counts 1, 1/2, 1/4; backwards nothing.
    total = 2 + 0.5 + 0.25 + 0.5  # b twice next to a; c two and d three behind; e two behind
    assert links(found, "a") == pytest.approx({"b": 2 / total, "c": 0.5 / total, "e": 0.5 / total})
    assert "x" not in links(found, "a") and links(found, "y") == {}  # held-out events count nowhere


def test_cooccurrence_is_the_cosine_of_the_users():
    found = CoOccurrence(count=7).make(SHOP, {})
    users = [set(SHOP.train.history(i).tolist()) for i in range(len(SHOP.train))]
    for item in IDS[1:]:
        row = IDS.index(item)
        expected = {}
        for other in range(1, len(IDS)):
            both, one, two = (sum(wanted <= user for user in users) for wanted in ({row, other}, {row}, {other}))
            if other != row and both:
                expected[IDS[other]] = both / np.sqrt(one * two)
        assert links(found, item) == pytest.approx(expected)
        assert (np.diff(found.values[row]) <= 1e-6).all()


def test_cooccurrence_in_sessions_is_a_share_of_what_the_item_had_beside_it():
    items = np.array([1, 2, 1, 2, 3, 4, 1, 5], np.int32)
    train = Histories.concatenated(np.array([5, 3]), items, np.array([0, 0, 1, 1, 1, 1, 2, 2]), np.arange(2))
    found = SessionCoOccurrence(count=3).make(replace(SHOP, train=train), {})
    # Sessions: 1 2 | 1 2 3 | 4 | 1 5.
    assert dict(zip(found.ids[1].tolist(), found.values[1].tolist(), strict=True)) == pytest.approx(
        {2: 2 / 4, 3: 1 / 4, 5: 1 / 4}
    )
    assert found.ids[3].tolist() == [1, 2, 0] and found.values[3].tolist() == [0.5, 0.5, 0]
    assert not found.ids[4].any()


def test_neighbours_are_the_nearest_by_cosine():
    given = with_vectors()
    found, vectors = Neighbours(count=3).make(given, {}), np.asarray(given.items["vectors"], np.float64)
    for row in range(1, len(IDS)):
        length = np.linalg.norm(vectors, axis=1)
        with np.errstate(invalid="ignore"):
            similar = vectors @ vectors[row] / (length * length[row])
        order = [i for i in np.argsort(-similar, kind="stable") if i not in (0, row, IDS.index("c"))][:3]
        assert found.ids[row].tolist() == ([0, 0, 0] if IDS[row] == "c" else order)
    with pytest.raises(InputError, match="made of the column 'vectors'"):
        Neighbours().make(SHOP, {})


def test_attributes_and_words_number_what_training_catalogs_have():
    brand = Attribute("brand", vocabulary=1)
    state = brand.fit([SHOP], 0)
    assert dict(zip(IDS, brand.make(SHOP, state).tolist(), strict=True)) == {
        "": 0, "a": 1, "b": 1, "c": 0, "d": 0, "e": 0, "x": 0, "y": 0,
    }  # fmt: skip
    words = Words(count=2, vocabulary=4)
    state = words.fit([SHOP], 0)  # "lamp" and "red" three times each
    found = dict(zip(IDS, words.make(SHOP, state).tolist(), strict=True))
    assert found["a"] == found["e"] == [3, 2] and found["b"] == [3, 1] and found["c"] == [0, 0] and found["y"] == [1, 0]
    other = source("other", (["q", "p", "q"],), {"p": "Lamp red", "q": None})
    assert words.make(other, state)[other.dataset.item_ids.index("p")].tolist() == [2, 3]
    with pytest.raises(InputError, match="no catalog column 'colour'; it has: item_id, title"):
        Attribute("colour").fit([SHOP], 0)


def test_codes_of_any_vectors_are_those_of_the_tokenizer():
    given = with_vectors()
    codes = Codes(RQKMeans(slots=2, clusters=4))
    state = codes.fit([given], 0)
    found = codes.make(given, state)
    assert found.shape == (len(IDS), 2 + (codes.tokenizer.collisions == "suffix")) and found.dtype == np.int32
    assert len(codes.sizes(state)) == found.shape[1] and (found < codes.sizes(state)).all()
    np.testing.assert_array_equal(found, codes.make(given, state))


def made(feature: Behaviour, catalog: Source) -> np.ndarray:
    return feature.make(catalog, feature.fit([catalog], 0))


def test_suffixes_rank_by_training_events_where_codes_are_popular():
    shop = with_vectors()
    popular = Codes(RQKMeans(slots=1, clusters=2, collisions="suffix"), popular=True)
    state = popular.fit([shop], 0)
    codes, counts = popular.make(shop, state), np.bincount(shop.train.items, minlength=len(IDS))
    plain = replace(popular, popular=False).make(shop, {name: x for name, x in state.items() if name != "counts"})
    np.testing.assert_array_equal(codes[:, 0], plain[:, 0])
    assert (codes != plain).any()
    for code in range(2):
        bucket = np.flatnonzero(codes[:, 0] == code)
        bucket = bucket[bucket > 0]
        order = bucket[np.argsort(codes[bucket, 1])]
        assert (np.diff(counts[order]) <= 0).all()
    with pytest.raises(InputError, match="no suffix"):
        Codes(RQKMeans(slots=1, clusters=2, collisions="nearest-free"), popular=True)


def test_behaviour_is_kept_with_the_run_that_it_was_fitted_for():
    """Of a catalog with other items and events, those that the first one had have their vectors."""
    other = source("other", (["z", "b", "a", "z"], ["z", "a"]), {"z": "new", "a": "red", "b": "blue"})
    state = Behaviour(width=3).fit([SHOP], 0)
    first, second = (Behaviour(width=3).make(each, state) for each in (SHOP, other))
    assert not second[0].any() and not second[other.dataset.item_ids.index("z")].any()
    for item in "ab":
        np.testing.assert_array_equal(second[other.dataset.item_ids.index(item)], first[IDS.index(item)])
    with pytest.raises(InputError, match="one catalog, but there are 2"):
        Behaviour().fit([SHOP, other], 0)


def test_behaviour_is_the_singular_vectors_of_who_had_what():
    vectors = made(Behaviour(width=3), SHOP)
    events = np.zeros((len(SHOP.train), len(IDS)))
    events[np.repeat(np.arange(len(SHOP.train)), SHOP.train.lengths), np.asarray(SHOP.train.items)] = 1
    degrees = [np.maximum(events.sum(axis=axis, keepdims=True), 1) for axis in (1, 0)]
    _, values, directions = np.linalg.svd(events / np.sqrt(degrees[0] * degrees[1]))
    expected = directions[:3].T * values[:3]
    expected[1:] /= np.maximum(np.linalg.norm(expected[1:], axis=1, keepdims=True), 1e-9)
    had = events.any(axis=0)
    np.testing.assert_allclose(vectors[had] @ vectors[had].T, expected[had] @ expected[had].T, atol=1e-5)
    assert not vectors[~had].any() and np.isin(IDS.index("y"), np.flatnonzero(~had))
    wide = made(Behaviour(width=16), SHOP)
    assert wide.shape == (len(IDS), 16) and not wide[:, len(SHOP.train) - 1 :].any()


def test_codes_are_fitted_with_vectors_of_behaviour():
    """The tokenizer gets the column; codes of a catalog ask for the vectors alone."""
    tokenizer = RQVAE(slots=1, clusters=2, hidden=(4,), width=2, collaborative=1.0, steps=2, collisions="none")
    known = with_vectors()
    known = replace(known, items=known.items.adding({"behaviour": made(Behaviour(2), known)}))
    feature = Codes(tokenizer, behaviour="behaviour")
    state = feature.fit([known], 0)
    expected = tokenizer.fit(known.items["vectors"], _has(known), jax.random.key(0), behaviour=known.items["behaviour"])  # pyright: ignore
    np.testing.assert_array_equal(state["params/codebooks"], expected["params"]["codebooks"])
    assert feature.make(known, state).shape == (len(IDS), 1) and feature.reads == ("vectors", "behaviour")
    with pytest.raises(InputError, match="given no vectors of behaviour"):
        Codes(tokenizer).fit([known], 0)


def _has(source: Source) -> np.ndarray:
    return np.asarray(np.asarray(source.items["vectors"]).any(axis=1))


def test_vectors_come_from_a_file_by_item_id(tmp_path: Path):
    table = pl.DataFrame({"item_id": ["b", "zzz", "a"], "vector": [[1.0, 2.0], [9.0, 9.0], [3.0, 4.0]]})
    table.write_parquet(tmp_path / "vectors.parquet")
    found = VectorFile(str(tmp_path / "vectors.parquet"), 2).make(SHOP, {})
    assert found[IDS.index("b")].tolist() == [1, 2] and found[IDS.index("a")].tolist() == [3, 4]
    assert not found[0].any() and not found[IDS.index("c")].any()
    with pytest.raises(InputError, match="3 of 3 vectors are not 5 numbers wide"):
        VectorFile(str(tmp_path / "vectors.parquet"), 5).make(SHOP, {})
    with pytest.raises(InputError, match="cannot be read"):
        VectorFile(str(tmp_path / "absent.parquet"), 2).make(SHOP, {})


def config(**items) -> RunConfig:
    given = dict(text=Hashed(8), items=items)
    return RunConfig("made", Data("shop"), SASRec(), Adam(), MeshShape(), Train(steps=1), Evaluate(), **given)


def opened(found: Source):
    return [(found.dataset, LeaveOneOut().split(found.dataset))]


def test_a_run_fits_once_saves_and_serves_a_catalog_never_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path / "cache"))
    run, asked = tmp_path / "run", config(brand=Attribute("brand"), near=Neighbours(count=2), next=Transitions(count=4))
    with jax.set_mesh(OneDevice().build()):
        first = catalogs.open_catalogs(asked, opened(SHOP), run)
        assert first is not None and first.sizes == {"brand": (1001,)}
        assert set(first.items.columns) == {"vectors", "codes", "known", "density", "brand"}
        assert first.items.relation("near").ids.shape[1] == 2 and first.relations[0]["next"].shape == (len(IDS), 4)
        fitted = Attribute.fit
        monkeypatch.setattr(Attribute, "fit", lambda *_: pytest.fail("fitted again"))
        made = Neighbours.make
        monkeypatch.setattr(Neighbours, "make", lambda *_: pytest.fail("made again"))
        again = catalogs.open_catalogs(asked, opened(SHOP), run)
        assert again is not None
        jax.tree.map(np.testing.assert_array_equal, first.items, again.items)
        monkeypatch.setattr(Neighbours, "make", made)
        # Another catalog: numbers of brands are those of training, relations its own.
        other = source("other", (["p", "q", "p", "q"],), {"p": "red lamp", "q": "blue"})
        there = catalogs.open_catalogs(asked, opened(other), run)
        assert there is not None
        brands = dict(zip(other.dataset.item_ids, np.asarray(there.items["brand"])[:3].tolist(), strict=True))
        assert brands == {"": 0, "p": 0, "q": 0} and there.items.relation("next").ids[1, 0] == 2
        monkeypatch.setattr(Attribute, "fit", fitted)
        (run / "items" / "brand.safetensors").write_bytes(b"damaged")
        with pytest.raises(InputError, match="damaged"):
            catalogs.open_catalogs(asked, opened(SHOP), run)


def test_features_survive_json_and_are_set_by_key():
    asked = config(near=Neighbours(count=2), words=Words())
    assert from_json(json.loads(json.dumps(to_json(asked)))) == asked
    changed = override_all(asked, ["items.near.count=7", "items.words.vocabulary=50"])
    assert changed.items["near"].count == 7 and changed.items["words"].vocabulary == 50
    with pytest.raises(InputError, match=r"did you mean 'items\.near\.count'"):
        override_all(asked, ["items.near.cuont=7"])
    with pytest.raises(InputError, match="expected a feature of items"):
        catalogs.open_catalogs(config(odd=SASRec()), opened(SHOP), None)
