"""The record of read events against a plain one, over random days with repeats."""

import collections

import numpy as np

from recjax.evaluate.seen import NEVER, SeenEvents

USERS, ITEMS, MOST = 5, 12, 4


class Plain:
    """Every event of a user, forever."""

    def __init__(self):
        self.events = collections.defaultdict(list)

    def repeated(self, rows, items, times):
        left = {row: collections.Counter(events) for row, events in self.events.items()}
        found = []
        for row, item, time in zip(rows.tolist(), items.tolist(), times.tolist(), strict=True):
            last = max((before for before, _ in self.events[row]), default=None)
            again = last is not None and (time < last or (time == last and left[row][time, item] > 0))
            if last is not None:
                left[row][time, item] -= 1
            found.append(again)
        return np.array(found, bool)

    def add(self, rows, items, times):
        for row, item, time in zip(rows.tolist(), items.tolist(), times.tolist(), strict=True):
            self.events[row].append((time, item))

    def last_items(self, row):
        items = [item for _, item in self.events[row]]
        distinct = list(dict.fromkeys(reversed(items)))[:MOST]
        return distinct[::-1]


def test_as_a_record_of_everything():
    rng, seen, plain = np.random.default_rng(0), SeenEvents(MOST), Plain()
    seen.grow(USERS)
    for day in range(30):
        rows = rng.integers(0, USERS, 12)
        times = np.sort(rng.integers(3 * day - 2, 3 * day + 4, 12))
        items = rng.integers(1, ITEMS, 12)
        again = seen.repeated(rows, items, times)
        np.testing.assert_array_equal(again, plain.repeated(rows, items, times))
        rows, items, times = rows[~again], items[~again], times[~again]
        seen.add(rows, items, times)
        plain.add(rows, items, times)
        restored = SeenEvents(MOST)
        restored.restore(seen.arrays())
        seen = restored
        assert seen.repeated(rows, items, times).all()
    found = seen.items(np.arange(USERS), USERS + 1)
    assert found.shape == (USERS + 1, 4)
    for row in range(USERS):
        assert found[row].tolist() == plain.last_items(row)
        assert seen.lengths[row] == len(plain.events[row])


def test_without_events_and_without_times():
    seen = SeenEvents()
    assert seen.arrays()["seen"].shape == (0,)
    SeenEvents().restore(seen.arrays())
    seen.grow(2)
    assert seen.items(np.array([0, 1]), 2).shape == (2, 1) and seen.full(np.array([0])) == 0
    seen.add(np.array([1, 1]), np.array([3, 3]), None)
    assert seen.last.tolist() == [NEVER, NEVER] and seen.lengths.tolist() == [0, 2]
    assert not seen.repeated(np.array([1]), np.array([3]), np.array([5])).any()


def test_a_log_whose_times_are_all_the_same_does_not_grow():
    seen = SeenEvents(MOST)
    seen.grow(1)
    for item in range(1, 20):
        seen.add(np.array([0]), np.array([item]), np.array([0]))
    assert len(seen.arrays()["latest"]) == MOST
