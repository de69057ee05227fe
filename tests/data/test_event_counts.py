"""Counts that grow event by event."""

import numpy as np
import pytest

from recjax.data.batches.histories import Histories
from recjax.data.event_counts import EventCounts
from recjax.data.features.evidence import TOGETHER, following_counts, together_counts
from recjax.data.transitions import item_counts
from recjax.typing import InputError

ITEMS = 9


def histories_of(sequences: dict[int, list[int]]) -> Histories:
    users = np.array(sorted(sequences))
    lengths = np.array([len(sequences[user]) for user in users], np.int64)
    items = np.array([item for user in users for item in sequences[user]], np.int32)
    return Histories.concatenated(lengths, items, np.zeros(len(items), np.int64), users)


@pytest.mark.parametrize("start", [0, 2])
def test_events_one_by_one_give_the_counts_of_the_whole_log(start):
    random = np.random.default_rng(start)
    log = {user: random.integers(1, ITEMS + 1, 40 * user + 8).tolist() for user in range(4)}
    assert len(log[3]) > TOGETHER
    counts = EventCounts(histories_of({user: events[: start * 20] for user, events in log.items()}), ITEMS)
    for user, events in log.items():
        for item in events[start * 20 :]:
            counts.add(user, item)
    counts.add(7, 3)
    whole = histories_of({**log, 7: [3]})
    expected = following_counts(whole, ITEMS)
    np.testing.assert_allclose(counts.transitions.toarray(), expected.toarray(), rtol=1e-12)
    np.testing.assert_array_equal(counts.together.toarray(), together_counts(whole, ITEMS).toarray())
    np.testing.assert_array_equal(counts.events, item_counts(whole.items, ITEMS))
    for item in range(1, ITEMS + 1):
        row = expected.toarray()[item]
        assert counts.following(item) == pytest.approx({other: row[other] for other in np.flatnonzero(row)})


def test_an_unknown_item_is_refused():
    counts = EventCounts(histories_of({0: [1, 2]}), ITEMS)
    with pytest.raises(InputError, match="no item 10"):
        counts.add(0, 10)
