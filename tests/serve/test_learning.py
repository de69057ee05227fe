"""The model that comes with recjax behind HTTP, and events that count for everybody."""

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from recjax.data.dataset import Dataset
from recjax.serve import programs, worker
from recjax.serve.limits import Limits
from recjax.serve.served import of_run
from recjax.train.pretrained import load_pretrained
from recjax.typing import InputError
from tests.serve.site import running

ITEMS, WORDS = 20, ("red", "green", "blue", "cup", "plate", "bowl")
LIMITS = Limits(k=5, users=4)


def shop(sequences: list[list[int]]) -> Dataset:
    """A catalog and the log of some users."""
    lengths = [len(each) for each in sequences]
    titles = [f"{WORDS[item % 3]} {WORDS[3 + item % 2]} {item % 5}" for item in range(ITEMS)]
    return Dataset(
        name="shop",
        user_ids=[f"u{user}" for user in range(len(sequences))],
        item_ids=["", *(f"i{item}" for item in range(1, ITEMS + 1))],
        offsets=np.cumsum([0, *lengths]).astype(np.int64),
        items=np.array([item for each in sequences for item in each], np.int32),
        timestamps=np.arange(sum(lengths), dtype=np.int64),
        values=None,
        catalog=pl.DataFrame({"item_id": [f"i{item}" for item in range(1, ITEMS + 1)], "title": titles}),
        description={},
        fingerprint=f"shop {sequences}",
    )


def sequences() -> list[list[int]]:
    """Histories with repeats, of which one is longer than what counts as had together."""
    random = np.random.default_rng(5)
    return [np.minimum(random.geometric(0.2, n), ITEMS).tolist() for n in (4, 6, 1, 9, 7, 60, 3)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path))


def linked(items: Any, name: str) -> list[dict[int, float]]:
    relation = items.relation(name)
    rows = zip(np.asarray(relation.ids), np.asarray(relation.values), strict=True)
    return [{int(i): float(v) for i, v in zip(ids, values, strict=True) if v > 0} for ids, values in rows][: ITEMS + 1]


def test_events_that_are_sent_count_as_if_they_had_been_in_the_log(monkeypatch):
    monkeypatch.setattr(programs, "SIZES", (1,))  # fewer programs to compile
    monkeypatch.setattr(worker, "SIZES", (1,))
    log, sent = sequences()[:4], sequences()[4:]
    whole = load_pretrained(shop(sequences()), all_events=True)
    before = load_pretrained(shop(log), all_events=True, one_query=True)
    with running(of_run(before, count_events=True), LIMITS) as site:
        assert site.ask("GET", "/v1/model")[1]["counts_events"] is True
        listed = site.listed(history=["i3", "i1"], k=5)
        for user, items in enumerate(sent):
            times = range(100, 100 + len(items))
            events = [{"item_id": f"i{item}", "timestamp": time} for item, time in zip(items, times, strict=True)]
            for part in filter(None, (events[:2], events[2:5], events[5:])):
                site.ask("POST", f"/v1/users/n{user}/events", {"events": part})
            answer = site.ask("POST", f"/v1/users/n{user}/events", {"events": events})[1]  # all of them once more
            assert answer["events"] == answer["skipped"] == len(items)
        found = site.service.programs.items
        for name in ("following", "preceding", "together"):
            assert linked(found, name) == linked(whole.items, name)
        totals = [np.asarray(items["totals"])[: ITEMS + 1] for items in (found, whole.items)]
        np.testing.assert_allclose(*totals, rtol=1e-6)
        assert site.listed(history=["i3", "i1"], k=5) != listed
        history = [f"i{item}" for item in sent[0]]
        assert site.listed("/v1/users/n0/recommend", k=5) == site.listed(history=history, k=5)


def test_models_without_counts_cannot_count():
    run = load_pretrained(shop(sequences()), all_events=True)
    assert of_run(run).counting is None
    with pytest.raises(InputError, match=r"Evidence ranks by no counts of events; `pretrained` does"):
        of_run(replace(run, items=replace(run.items, relations={})), count_events=True)
    with pytest.raises(InputError, match="needs the log that is counted: say which with --data"):
        of_run(replace(run, events=None), count_events=True)
