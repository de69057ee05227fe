import numpy as np
import pytest

from recjax.data.batches.loader import Loader
from recjax.data.batches.views import Cloze, NextSession, Placement, Shifted
from recjax.data.splits import Histories
from recjax.typing import InputError
from tests.data.handmade import histories, samples

LENGTHS = [1, 2, 3, 5, 9, 10, 11, 12, 30, 4, 2, 1, 7]
N_ITEMS = sum(LENGTHS)


def epoch(view, seed=0, number=0):
    """All samples of an epoch, by history (told by the item with the smallest id in items and targets)."""
    source = histories(LENGTHS)
    loader = Loader(source, view, 1, None, seed, N_ITEMS)
    rows = loader.packing.rows
    by_history = {}
    for step in range(number * rows, (number + 1) * rows):
        for sample in samples(loader.host_batch(step)):
            known = np.where(sample[2] > 0, sample[2], sample[0])
            history = int(np.searchsorted(source.starts, known[0] - 1, side="right") - 1)
            assert history not in by_history
            by_history[history] = sample
    return source, by_history


@pytest.mark.parametrize("align", ["right", "left"])
def test_shifted_is_next_item_at_every_position(align):
    source, by_history = epoch(Shifted(10, align=align))
    assert sorted(by_history) == [h for h, length in enumerate(LENGTHS) if length > 1]
    for history, (items, positions, targets, weights) in by_history.items():
        recent = source.history(history)[-11:]
        assert items.tolist() == recent[:-1].tolist()
        assert targets.tolist() == recent[1:].tolist()
        assert (weights == 1).all()
        places = np.arange(len(items))
        assert positions.tolist() == (places if align == "left" else places + 10 - len(items)).tolist()


def test_cloze_masks_some_items_and_predicts_just_those():
    source, by_history = epoch(Cloze(10, mask_prob=0.4, last_copy=False))
    for history, (items, positions, targets, weights) in by_history.items():
        recent = source.history(history)[-10:]
        masked = items == N_ITEMS + 1
        assert masked.any()
        assert np.where(masked, targets, items).tolist() == recent.tolist()
        assert (targets[~masked] == 0).all()
        assert (weights == masked).all()
        assert positions[-1] == 9


def atomic_folder(lengths, epochs, start=0):
    """A placement that only tells `masks` which samples there are."""
    count = len(lengths)
    index = np.arange(start, start + count)
    return Placement(index, np.asarray(lengths), index, index, np.broadcast_to(epochs, (count,)), 1, 1)


def test_cloze_masks_the_stated_share_and_never_nothing():
    lengths = np.full(2000, 50)
    share = Cloze(50, mask_prob=0.2, last_copy=False).masks(atomic_folder(lengths, 0), seed=0).mean()
    assert share == pytest.approx(0.2, abs=0.01)
    lengths = np.full(2000, 3)
    masks = Cloze(50, mask_prob=0.05, last_copy=False).masks(atomic_folder(lengths, 0), seed=0).reshape(-1, 3)
    assert masks.any(axis=1).all()
    assert masks.mean(axis=0) == pytest.approx(np.full(3, 1 / 3), abs=0.05)


def test_cloze_masks_depend_on_seed_epoch_and_history_alone():
    view, lengths = Cloze(20), np.full(100, 20)
    masks = view.masks(atomic_folder(lengths, 3), seed=1)
    apart = [view.masks(atomic_folder([20], 3, start=history), seed=1) for history in range(100)]
    assert (masks == np.concatenate(apart)).all()
    assert (masks != view.masks(atomic_folder(lengths, 4), seed=1)).any()
    assert (masks != view.masks(atomic_folder(lengths, 3), seed=2)).any()
    rows = np.unique(masks.reshape(100, 20), axis=0)
    assert len(rows) > 80


def test_row_length_changes_the_packing_but_not_the_masks():
    source = histories([8] * 40)
    view = Cloze(8, mask_prob=0.3)

    def masks(row_length, rows):
        loader = Loader(source, view, rows, row_length, 0, 320)
        found = {}
        for step in range(loader.packing.rows // rows):
            for items, _, targets, _ in samples(loader.host_batch(step)):
                found[int(np.where(targets > 0, targets, items)[0])] = (targets > 0).tolist()
        return found

    assert masks(8, 1) == masks(16, 5)
    assert len(masks(8, 1)) == 40


def test_each_history_has_one_last_only_sample_for_ten_random_ones():
    view = Cloze(10, mask_prob=0.5)
    last_only = np.zeros((11, 13), bool)
    for number in range(11):
        _, by_history = epoch(view, number=number)
        for history, (_, _, targets, _) in by_history.items():
            last_only[number, history] = (history + number) % 11 == 10
            if last_only[number, history]:
                assert (targets[:-1] == 0).all() and targets[-1] > 0
    long = np.array(LENGTHS) > 1
    assert (last_only.sum(axis=0)[long] == 1).all()
    random = [epoch(view, number=number)[1][8][2] for number in range(11) if (8 + number) % 11 != 10]
    assert len({tuple(targets) for targets in random}) > 8


def test_without_last_copy_no_sample_is_forced():
    view = Cloze(50, mask_prob=0.5, last_copy=False)
    lengths = np.full(22, 50)
    assert view.masks(atomic_folder(lengths, 0), seed=0).reshape(22, 50).sum(axis=1).min() > 5


@pytest.mark.parametrize("align", ["right", "left"])
def test_shifted_queries_are_the_most_recent_items(align):
    source = histories([3, 12])
    queries = Shifted(10, align=align, times=True).queries(source, 10, N_ITEMS)
    assert queries.lengths.tolist() == [3, 10]
    assert queries.items.tolist() == [[1, 2, 3] + [0] * 7, list(range(6, 16))]
    assert queries.positions[0].tolist() == ([7, 8, 9] if align == "right" else [0, 1, 2]) + [0] * 7
    assert queries.timestamps[0].tolist() == [1001, 1002, 1003] + [0] * 7


def test_cloze_queries_end_in_the_mask_at_the_position_it_is_trained_at():
    queries = Cloze(10, times=True).queries(histories([3, 12, 9]), 10, 24)
    assert queries.lengths.tolist() == [4, 10, 10]
    assert queries.items[0].tolist() == [1, 2, 3, 25] + [0] * 6
    assert queries.items[1].tolist() == [*range(7, 16), 25]
    assert queries.items[2].tolist() == [*range(16, 25), 25]
    assert queries.positions[:, :4].tolist() == [[6, 7, 8, 9], [0, 1, 2, 3], [0, 1, 2, 3]]
    assert queries.timestamps[0].tolist() == [1001, 1002, 1003, 1003] + [0] * 6


@pytest.mark.parametrize("view", [Shifted(6, times=True), Cloze(6, times=True)])
def test_times_go_with_the_input_items(view):
    source = histories([4, 9])
    batch = Loader(source, view, 2, 12, 0, 13).host_batch(0)
    real = batch.segments > 0
    events = np.where(batch.items == 14, batch.targets, batch.items)
    assert (batch.timestamps[real] == events[real] + 1000).all()
    assert (batch.timestamps[~real] == 0).all()
    assert batch.timestamps.dtype == np.int32


def test_times_beyond_int32_are_refused():
    source = histories([4])
    source.timestamps[:] = 1_600_000_000_000  # milliseconds
    with pytest.raises(InputError, match="1600000000000 is no time in unix seconds"):
        Shifted(6, times=True).queries(source, 6, 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Shifted(1), "max_length is 1, expected 2 or more"),
        (lambda: Shifted(align="middle"), "align is 'middle', expected one of 'right', 'left'"),
        (lambda: Cloze(mask_prob=1.0), "mask_prob is 1.0, expected a number between 0 and 1"),
        (lambda: Cloze(random_copies=0), "random_copies is 0, expected 1 or more"),
    ],
)
def test_impossible_views_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_next_session_has_every_event_and_predicts_those_after_the_first_session():
    lengths, times = np.array([5, 3, 1, 12]), [0, 0, 1, 1, 4, 7, 7, 7, 3, *[1] * 4, *range(2, 10)]
    source = Histories.concatenated(lengths, np.arange(1, 22, dtype=np.int32), np.array(times), np.arange(4))
    loader = Loader(source, NextSession(10, times=True), 1, 15, 0, 21)
    batch = loader.host_batch(0)
    assert loader.packing.rows == 1 and loader.skipped == 2  # the second and the third have one session
    found = {sample[0][0]: [column.tolist() for column in sample] for sample in samples(batch)}
    assert found[1] == [[1, 2, 3, 4, 5], [0, 0, 1, 1, 2], [0, 0, 3, 4, 5], [0, 0, 1, 1, 1]]
    assert found[12][:3] == [list(range(12, 22)), [0, 0, *range(1, 9)], [0, 0, *range(14, 22)]]
    flat = np.asarray(batch.timestamps)[np.asarray(batch.items) > 0]
    assert sorted(flat.tolist()) == sorted([*times[:5], *times[11:]])
    queries = NextSession(10).queries(source, 12, 21)
    assert queries.items[1].tolist() == [6, 7, 8] + [0] * 9 and not queries.positions[1].any()
    assert queries.positions[3].tolist() == [0, 0, *range(1, 9), 0, 0] and queries.lengths.tolist() == [5, 3, 1, 10]
