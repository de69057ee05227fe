"""Learning of the evidence model's weights on other catalogs."""

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from recjax.data.dataset import Dataset
from recjax.data.splits import LeaveOneOut, unsplit
from recjax.train.evidence import CountedCatalog, at_share, counted, learn, questions, selected, without_texts
from recjax.train.fitting_weights import PLAIN, fitting, plain_weights
from recjax.train.pretrained import evidence_config, untrained

ITEMS, USERS, LENGTH = 30, 40, 8


def shop(seed: int, helpful: bool = False) -> Dataset:
    """A catalog in which item i is followed by item i + 3; its texts point there, or elsewhere, to i ± 15."""
    random = np.random.default_rng(seed)
    starts = random.integers(0, ITEMS, USERS)
    items = (starts[:, None] + 3 * np.arange(LENGTH)) % ITEMS + 1
    near = [f"word{item} word{(item + 3) % ITEMS}" for item in range(ITEMS)]
    titles = near if helpful else [f"word{item % 15} other{item % 15} {seed}" for item in range(ITEMS)]
    names = [f"i{item}" for item in range(1, ITEMS + 1)]
    return Dataset(
        name=f"shop {seed}",
        user_ids=[f"u{user}" for user in range(USERS)],
        item_ids=["", *names],
        offsets=np.arange(USERS + 1) * LENGTH,
        items=items.ravel().astype(np.int32),
        timestamps=np.arange(items.size, dtype=np.int64),
        values=None,
        catalog=pl.DataFrame({"item_id": names, "title": titles}),
        description={},
        fingerprint=f"shop {seed} {helpful}",
    )


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path))


def catalog(seed: int, helpful: bool = False, **options: Any) -> CountedCatalog:
    dataset = shop(seed, helpful)
    split = LeaveOneOut().split(dataset)
    return counted(evidence_config(dataset.name), dataset, split, split.test, share=0.2, **options)


@pytest.mark.parametrize("shuffled", [False, True])
def test_what_is_learned_is_used_and_what_is_not_falls_back_to_the_untrained_weights(shuffled):
    catalogs, start = [catalog(seed, shuffled) for seed in (0, 1)], untrained()
    asked = [questions(each, shuffled=shuffled) for each in catalogs]
    tried = {l2: learn(asked, start, l2) for l2 in (1e-3,)}
    (l2, weights), table = selected(tried, start, [catalog(seed, shuffled) for seed in (2, 3)])
    assert set(table) == set(tried)
    if shuffled:
        assert l2 is None and weights is start
    else:
        assert l2 in tried and table[l2][0] > 0.05


def chosen(dataset: Dataset, learned: dict[str, np.ndarray]) -> str | None:
    split = unsplit(dataset, "all events count")
    config = evidence_config(dataset.name)
    found = counted(config, dataset, split, split.test)
    place = fitting(learned, found.model, found.items, split.train, config.data.view)
    return None if place < 0 else PLAIN[place]


def test_weights_that_do_not_fit_a_catalog_give_way_to_a_plain_signal():
    assert str(chosen(shop(0), plain_weights("text 0.5"))).startswith("following")
    assert chosen(shop(0), plain_weights("following 0.5")) is None


def test_a_choice_sees_no_event_of_the_user_who_is_asked():
    dataset = shop(0)
    alone = replace(dataset, items=np.random.default_rng(0).permutation(USERS * LENGTH).astype(np.int32) + 1)
    names = [f"i{item}" for item in range(1, USERS * LENGTH + 1)]  # no item is of two users
    titles = [f"word{item % 40}" for item in range(len(names))]
    alone = replace(alone, item_ids=["", *names], catalog=pl.DataFrame({"item_id": names, "title": titles}))
    assert chosen(replace(alone, fingerprint="alone"), plain_weights("text 0.5")) is None


def test_a_stronger_pull_stays_nearer_to_the_untrained_weights():
    start, asked = untrained(), [questions(catalog(0))]
    far, near = (np.abs(learn(asked, start, l2)["gate"] - start["gate"]).max() for l2 in (1e-2, 1e2))
    assert near < 0.05 < far


def test_stages_count_fewer_users_and_read_fewer_texts():
    dataset = shop(0)
    split = LeaveOneOut().split(dataset)
    assert [len(at_share(split, share).train) for share in (0.0, 0.1, 1.0)] == [0, 4, 40]
    bare = without_texts(dataset, 0.5)
    left = bare.catalog["title"].drop_nulls().len()
    assert 5 < left < 25 and bare.fingerprint != dataset.fingerprint and bare.catalog["item_id"].null_count() == 0
    none = counted(evidence_config("shop"), dataset, split, split.test, share=0.0, users=7)
    assert len(none.examples) == 7 and np.isfinite(none.ndcg(untrained())).all()
    assert float(np.asarray(none.items["totals"])[:, :4].sum()) == 0
