"""Ranges of one event column: prefixes, windows and sessions against plain loops; nothing copied."""

import itertools

import numpy as np
import pytest

from recjax.data.batches.histories import Histories, prefixes, sessions, windows
from recjax.typing import InputError
from tests.data.handmade import histories

LENGTHS = [1, 2, 3, 0, 7, 12]


def as_lists(source: Histories) -> list[tuple[int, list[int]]]:
    return [(int(source.users[i]), source.history(i).tolist()) for i in range(len(source))]


@pytest.mark.parametrize(("least", "longest"), [(1, None), (2, None), (4, None), (2, 5), (3, 3)])
def test_prefixes(least, longest):
    source = histories(LENGTHS)
    expected = [
        (user, whole[:stop][-(longest or stop) :])
        for user, whole in as_lists(source)
        for stop in range(least, len(whole) + 1)
    ]
    found = prefixes(source, least, longest)
    assert as_lists(found) == expected
    assert found.items is source.items and found.timestamps is source.timestamps


def test_prefixes_of_a_million_events_take_two_columns_of_places_and_the_users():
    source = histories(np.full(5_000, 200))
    found = prefixes(source)
    assert len(found) == 995_000
    assert found.starts.nbytes + found.stops.nbytes == 2 * 8 * len(found)
    assert found.users.nbytes == 4 * len(found)
    assert found.items is source.items and found.timestamps is source.timestamps


@pytest.mark.parametrize(("length", "step"), [(3, 1), (5, 2), (4, 4), (20, 3)])
def test_windows_end_with_their_history_and_leave_no_event_out(length, step):
    source = histories(LENGTHS)
    found = windows(source, length, step)
    for user, whole in as_lists(source):
        mine = [window for owner, window in as_lists(found) if owner == user]
        assert sorted({item for window in mine for item in window}) == whole
        ends = [window[-1] for window in mine]
        assert ends == sorted(ends) and (not whole or ends[-1] == whole[-1])
        assert all(later - earlier == step for earlier, later in itertools.pairwise(ends))
        assert all(len(window) == length for window in mine[1:])
        assert not whole or len(mine) == 1 + -(-max(len(whole) - length, 0) // step)


def test_sessions_are_runs_of_one_time_stamp_that_no_two_histories_share():
    lengths, times = np.array([4, 0, 3, 1]), np.array([5, 5, 6, 7, 7, 7, 8, 8])
    items = np.arange(1, 9, dtype=np.int32)
    found = sessions(Histories.concatenated(lengths, items, times, np.arange(4)))
    assert as_lists(found) == [(0, [1, 2]), (0, [3]), (0, [4]), (2, [5, 6]), (2, [7]), (3, [8])]
    assert found.items is items
    assert len(sessions(histories([0, 0]))) == 0
    recent = sessions(Histories.concatenated(lengths, items, times, np.arange(4)).take(np.array([2, 0]), last=3))
    assert as_lists(recent) == [(2, [5, 6]), (2, [7]), (0, [2]), (0, [3]), (0, [4])]


def test_compact_copies_only_what_does_not_lie_one_after_another():
    source = histories(LENGTHS)
    assert source.compact() is source
    overlapping = prefixes(source)
    whole = overlapping.compact()
    assert as_lists(whole) == as_lists(overlapping)
    assert len(whole.items) == overlapping.lengths.sum() and whole.compact() is whole
    assert as_lists(overlapping.take(np.array([5, 0]), last=2)) == [
        (user, items[-2:]) for user, items in (as_lists(overlapping)[5], as_lists(overlapping)[0])
    ]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: prefixes(histories([3]), 0), "prefixes from 0 to None events"),
        (lambda: prefixes(histories([3]), 4, 3), "prefixes from 4 to 3 events"),
        (lambda: windows(histories([3]), 2, 3), "windows of 2 events every 3"),
    ],
)
def test_impossible_parts_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
