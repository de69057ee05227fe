"""Views made of other views: samples of prefixes, windows and baskets, user numbers, and how they compose."""

import dataclasses

import numpy as np
import pytest

from recjax.config import from_json, to_json
from recjax.data.batches.denoising import Corrupted
from recjax.data.batches.derived import Baskets, Numbered, Prefixes, Shuffled, Users, Windows
from recjax.data.batches.hash_random import draw
from recjax.data.batches.histories import Histories, shuffled
from recjax.data.batches.loader import Loader
from recjax.data.batches.partners import Partnered
from recjax.data.batches.views import Batch, Cloze, Shifted
from recjax.data.prepare.build import build
from recjax.data.splits import LeaveOneOut
from recjax.typing import InputError
from tests.data.handmade import histories, samples
from tests.data.samples import random_logs

LENGTHS = (draw(3, np.arange(40)) % np.uint64(12)).astype(np.int64) + 1  # all fit into Shifted(12)
N_ITEMS = int(LENGTHS.sum())


def epoch(source: Histories, view, rows: int = 4, number: int = 0, packed: bool = True, **settings) -> list[Batch]:
    """The rows of an epoch, one a batch."""
    loader = Loader(source, view, 1, None, 0, N_ITEMS, packed=packed, **settings)
    rows = loader.packing.rows
    return [loader.host_batch(step) for step in range(number * rows, (number + 1) * rows)]


def pairs(batches: list[Batch]) -> list[tuple[tuple[int, ...], int, int]]:
    """(items so far, position, target) of every position with a loss."""
    return sorted(
        (tuple(items[: place + 1].tolist()), int(positions[place]), int(targets[place]))
        for batch in batches
        for items, positions, targets, weights in samples(batch)
        for place in np.flatnonzero(weights)
    )


def test_prefixes_with_one_target_are_the_positions_of_whole_histories():
    source = histories(LENGTHS)
    whole = pairs(epoch(source, Shifted(12, align="left")))
    assert pairs(epoch(source, Prefixes(Shifted(12, align="left", targets=1)))) == whole
    assert pairs(epoch(source, Prefixes(Shifted(12, align="left", targets=1)), packed=False)) == whole
    assert pairs(epoch(source, Prefixes(Shifted(12, align="left", targets=1), least=4))) == [
        pair for pair in whole if len(pair[0]) >= 3
    ]


def test_longest_cuts_what_a_prefix_begins_with():
    found = pairs(epoch(histories([6]), Prefixes(Shifted(12, align="left", targets=1), least=3, longest=3)))
    assert found == [((1, 2), 1, 3), ((2, 3), 1, 4), ((3, 4), 1, 5), ((4, 5), 1, 6)]


def test_windows_use_histories_that_are_too_long_for_the_view():
    source = histories([9, 30, 2])
    found = {target for _, _, target in pairs(epoch(source, Windows(Shifted(5), step=5)))}
    assert found == set(range(1, 42)) - {1, 10, 40}  # all but the first of each history


def test_shuffled_histories_have_their_events_in_any_order_and_queries_a_part_of_them_all():
    source, view = histories([9, 40, 2]), Shuffled(Cloze(12, mask_prob=0.01, align="left"))
    found = shuffled(source, 0, source.users)
    for row in range(3):
        assert sorted(found.history(row)) == source.history(row).tolist()
        assert (
            found.timestamps[found.starts[row] : found.stops[row]] == source.timestamps[found.history(row) - 1]
        ).all()
    assert found.history(1).tolist() != source.history(1).tolist()
    plain, mixed = (each.queries(source, 12, 51).items[1, :11] for each in (view.view, view))
    assert set(plain.tolist()) == set(range(39, 50)) and len(set(mixed.tolist())) == 11
    assert mixed.min() < 25 and set(mixed.tolist()) <= set(range(10, 50))
    alone = source.take(np.array([1]))  # the query of a history depends on no other
    np.testing.assert_array_equal(view.queries(alone, 12, 51).items[0, :11], mixed)
    every = [item for _, _, item in pairs(epoch(source, Shuffled(Windows(Shifted(5), step=5))))]
    assert set(every) < set(range(1, 52)) and len(every) == len(set(every))


def test_baskets_are_the_runs_of_one_time_stamp():
    source = histories([4, 3])
    source.timestamps[:] = [5, 5, 6, 6, 6, 6, 7]
    found = pairs(epoch(source, Baskets(Shifted(5, align="left"))))
    assert found == [((1,), 0, 2), ((3,), 0, 4), ((5,), 0, 6)]


def test_views_compose_in_any_order():
    source = histories(LENGTHS)
    clean = {tuple(sample[2].tolist()) for batch in epoch(source, Prefixes(Shifted(12))) for sample in samples(batch)}
    noisy = [sample for batch in epoch(source, Corrupted(Prefixes(Shifted(12)), 0.5)) for sample in samples(batch)]
    assert {tuple(sample[2].tolist()) for sample in noisy} == clean
    changed = np.mean(np.concatenate([items[1:] != targets[:-1] for items, _, targets, _ in noisy]))
    assert 0.3 < changed < 0.7
    masked = [sample for batch in epoch(source, Prefixes(Cloze(12))) for sample in samples(batch)]
    assert len(masked) == len(noisy)
    view = Corrupted(Users(Prefixes(Shifted(12, align="left", times=True))), 0.5)
    assert (view.max_length, view.align, view.times, view.packing) == (12, "left", True, True)
    queries = [v.queries(source, 12, N_ITEMS) for v in (view, Shifted(12, align="left", times=True))]
    np.testing.assert_array_equal(queries[0].items, queries[1].items)
    assert view.query_lengths(LENGTHS).tolist() == np.minimum(LENGTHS, 12).tolist()


def test_samples_are_numbered_in_their_order():
    loader = Loader(histories(LENGTHS), Numbered(Users(Shifted(12))), 8, 20, 0, N_ITEMS)
    used, found = np.flatnonzero(LENGTHS > 1), {}
    for step in range(loader.steps(1)):
        batch = loader.host_batch(step)
        real = batch.segments > 0
        assert set(batch.more) == {"users", "samples"}
        found |= dict(zip(batch.more["samples"][real].tolist(), batch.more["users"][real].tolist(), strict=True))
    assert [found[number] for number in range(len(used))] == (used + 7).tolist()


def test_user_numbers_go_with_the_tokens_or_with_the_rows():
    source = histories(LENGTHS)
    owner = np.concatenate([[0], np.repeat(source.users, LENGTHS)])  # of each item
    batch = Loader(source, Users(Prefixes(Shifted(12))), 8, 30, 0, N_ITEMS).host_batch(2)
    np.testing.assert_array_equal(batch.more["users"], owner[batch.items])
    assert batch.segments.max() > 1
    batch = Loader(source, Users(Shifted(12)), 8, None, 0, N_ITEMS, packed=False).host_batch(2)
    np.testing.assert_array_equal(batch.more["users"], owner[batch.items[:, 0]])


@pytest.mark.parametrize(
    "view",
    [Prefixes(Shifted(8, targets=1)), Windows(Shifted(4), 3, 2), Corrupted(Prefixes(Cloze(8))), Users(Shifted(8))],
)
def test_no_held_out_event_is_trained_on(view):
    dataset = build(random_logs(2, users=20, events=200))
    rows = np.arange(dataset.n_interactions)
    dataset = dataclasses.replace(dataset, timestamps=rows, items=(rows + 1).astype(np.int32))  # an item an event
    split = LeaveOneOut().split(dataset)
    held_out = {*split.validation.targets.tolist(), *split.test.targets.tolist()}
    loader = Loader(split.train, view, 4, None, 0, dataset.n_interactions)
    for step in range(loader.steps(1)):
        assert not held_out & set(loader.host_batch(step).targets.ravel().tolist())


def test_configurations_of_views_survive_json():
    view = Corrupted(Partnered(Prefixes(Shifted(8, targets=1), least=3)), 0.1)
    assert from_json(to_json(view)) == view


def test_a_view_that_needs_rows_of_its_own_says_so():
    with pytest.raises(InputError, match=r"the view Corrupted needs a row for each sample: set data\.pack=false"):
        Loader(histories([5, 6]), Corrupted(Partnered(Shifted(8))), 1, None, 0, 11)
    with pytest.raises(InputError, match="none of the 2 training histories has two events or more"):
        Loader(histories([1, 1]), Prefixes(Shifted(8)), 1, None, 0, 11)
