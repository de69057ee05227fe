"""Partners of samples: same target, never oneself, from training events alone; altered copies; all draws pure."""

from collections import Counter

import numpy as np
import pytest

from recjax.data.batches.alterations import Crop, Mask, Reorder, Substitute
from recjax.data.batches.derived import Prefixes, Users
from recjax.data.batches.histories import Histories
from recjax.data.batches.loader import Loader
from recjax.data.batches.partners import AlteredCopy, Partnered, SameTarget
from recjax.data.batches.views import Batch, Cloze, Shifted
from recjax.typing import InputError
from tests.data.handmade import histories

RNG = np.random.default_rng(0)
LENGTHS = RNG.integers(1, 10, 30)
N_ITEMS = 12
TOTAL = int(LENGTHS.sum())
SOURCE = Histories.concatenated(
    LENGTHS, RNG.integers(1, N_ITEMS + 1, TOTAL).astype(np.int32), np.arange(TOTAL) + 100, np.arange(30)
)
PREFIXES = Prefixes(Shifted(8, targets=1, times=True))


def loader(view, rows: int = 4, source: Histories = SOURCE, n_items: int = N_ITEMS, **settings) -> Loader:
    return Loader(source, view, rows, None, 0, n_items, packed=False, **settings)


def rows(loader: Loader, number: int = 0) -> list[Batch]:
    """Single rows of an epoch of a loader of one row a batch."""
    count = loader.packing.rows
    return [loader.host_batch(step) for step in range(number * count, (number + 1) * count)]


def target(row: Batch) -> int:
    return int(np.asarray(row.targets)[np.asarray(row.weights) > 0][0])


def sequence(items, segments) -> list[int]:
    return np.asarray(items)[0, np.asarray(segments)[0] > 0].tolist()


def test_a_partner_is_another_prefix_with_the_same_target():
    everything = loader(PREFIXES, 1)
    count = Counter(SOURCE.items[stop - 1] for stop in everything.samples.histories.stops)
    prefixes = [(row.timestamps.max(), target(row)) for row in rows(everything)]  # times tell events apart
    seen, drawn = set(), Counter()
    for epoch in range(12):
        for row in rows(loader(Partnered(PREFIXES), 1), epoch):
            own = (row.timestamps.max(), target(row))
            assert row.more["partner_weights"].tolist() == [float(count[own[1]] > 1)]
            if count[own[1]] == 1:
                assert not row.more["partner_segments"].any() and not row.more["partner_items"].any()
                continue
            other = row.more["partner_timestamps"].max()
            assert other != own[0] and (other, own[1]) in prefixes
            positions = row.more["partner_positions"][row.more["partner_segments"] > 0]
            assert positions.tolist() == list(range(8 - len(positions), 8))
            seen.add(own)
            drawn[own[0], other] += 1
    assert len(seen) > 50
    common, often = count.most_common(1)[0]
    mine = [sum(pair[0] == time for pair in drawn) for time, own in seen if own == common]
    assert min(mine) > 3, f"each of the {often - 1} others can be drawn"


def test_a_sample_without_another_of_its_target_has_no_partner():
    batch = loader(Partnered(Prefixes(Shifted(8))), 1, histories([3, 4]), 7).host_batch(0)  # no item twice
    assert batch.more["partner_weights"].tolist() == [0.0]


def test_the_partner_of_a_drawn_position_is_a_prefix_that_ends_in_its_target():
    view = Partnered(Shifted(5, times=True), SameTarget(slots=True))
    count, places = Counter(SOURCE.items.tolist()), Counter()
    firsts = set(SOURCE.starts.tolist())  # first events are no one's target
    count -= Counter(SOURCE.items[SOURCE.starts].tolist())
    for epoch in range(3):
        for row in rows(loader(view, 1), epoch):
            place = int(row.more["partner_places"][0])
            target, length = int(row.targets[0, place]), int((row.segments > 0).sum())
            assert place < length and target > 0
            places[place] += 1
            assert row.more["partner_weights"][0] == (count[target] > 1)
            if count[target] > 1:
                # The event after the partner's last one is another occurrence of the target.
                after = int(row.more["partner_timestamps"].max()) - 100 + 1
                assert SOURCE.items[after] == target and after not in firsts
                assert after != int(row.timestamps[0, place]) - 100 + 1
    assert set(places) == set(range(5))


def test_partners_come_from_training_events_alone():
    for row in rows(loader(Partnered(PREFIXES), 1)):
        times = row.more["partner_timestamps"][row.more["partner_segments"] > 0]
        assert ((times >= 100) & (times < 100 + TOTAL)).all()
        owner = np.repeat(SOURCE.users, LENGTHS)[times - 100]
        assert len(set(owner.tolist())) <= 1, "the events of one user"


@pytest.mark.parametrize("view", [Partnered(PREFIXES), Partnered(PREFIXES, AlteredCopy()), Users(Partnered(PREFIXES))])
def test_partners_depend_on_seed_epoch_and_sample_alone(view):
    def by_sample(rows_a_batch: int) -> dict:
        found, many = {}, loader(view, rows_a_batch)
        for step in range(2 * many.packing.rows // rows_a_batch):
            batch = many.host_batch(step)
            for row in range(rows_a_batch):
                epoch = (step * rows_a_batch + row) // many.packing.rows
                key = (epoch, batch.timestamps[row].max(), (batch.segments[row] > 0).sum())
                found[key] = {name: array[row].tobytes() for name, array in batch.more.items()}
        return found

    one, other = by_sample(1), by_sample(5)
    assert all(one[key] == other[key] for key in other)
    epochs = [[one[key] for key in sorted(one) if key[0] == epoch] for epoch in (0, 1)]
    assert epochs[0] != epochs[1]


def test_crops_are_runs_of_the_sample():
    for row in rows(loader(Partnered(PREFIXES, AlteredCopy((Crop(0.6),))), 1)):
        whole, part = (
            sequence(row.timestamps, row.segments),
            sequence(row.more["partner_timestamps"], row.more["partner_segments"]),
        )
        assert len(part) == max(1, int(0.6 * len(whole)))
        assert part == whole[whole.index(part[0]) :][: len(part)]
        positions = sequence(row.more["partner_positions"], row.more["partner_segments"])
        assert positions == list(range(8 - len(part), 8))
        items = sequence(row.more["partner_items"], row.more["partner_segments"])
        assert items == SOURCE.items[np.array(part) - 100].tolist()


def test_masks_are_of_the_share_and_reordering_moves_a_run():
    masked_places, moved = Counter(), 0
    for row in rows(loader(Partnered(PREFIXES, AlteredCopy((Mask(0.3),))), 1)):
        whole, part = sequence(row.items, row.segments), sequence(row.more["partner_items"], row.segments)
        changed = [place for place, item in enumerate(part) if item == 0]
        assert len(changed) == int(0.3 * len(whole))
        assert all(item in (0, old) for item, old in zip(part, whole, strict=True))
        masked_places.update(changed)
    assert len(masked_places) > 4
    for row in rows(loader(Partnered(PREFIXES, AlteredCopy((Reorder(0.5),))), 1)):
        whole, part = sequence(row.items, row.segments), sequence(row.more["partner_items"], row.segments)
        assert sorted(part) == sorted(whole)
        different = [place for place in range(len(whole)) if whole[place] != part[place]]
        assert not different or different[-1] - different[0] < int(0.5 * len(whole))
        moved += bool(different)
        np.testing.assert_array_equal(row.more["partner_timestamps"], row.timestamps)
    assert moved > 20


def test_substitutes_are_related_items():
    related = np.zeros((N_ITEMS + 1, 3), np.int32)
    related[1:7, 0], related[1:7, 1] = np.arange(1, 7) % 6 + 1, 12  # items from 7 on are related to none
    view = Partnered(PREFIXES, AlteredCopy((Substitute(0.5),)))
    changed = Counter()
    for row in rows(loader(view, 1, relations={"neighbours": related})):
        for old, new in zip(row.items[0], row.more["partner_items"][0], strict=True):
            assert new == old or (new in related[old] and new > 0)
            changed[bool(old > 0 and old < 7), bool(new != old)] += 1
    assert changed[False, True] == 0
    assert changed[True, True] / (changed[True, True] + changed[True, False]) == pytest.approx(0.5, abs=0.1)
    with pytest.raises(InputError, match="draws from the relation 'neighbours' of items; there are: none"):
        loader(view)
    with pytest.raises(InputError, match=r"shape \(3, 2\), expected \(13, k\)"):
        loader(view, relations={"neighbours": np.zeros((3, 2), np.int32)})


def test_two_partners_are_drawn_apart():
    view = Partnered(Partnered(Prefixes(Shifted(8, targets=1)), AlteredCopy(), "first"), AlteredCopy(), "second")
    batch = loader(view, 40).host_batch(0)
    assert sorted(batch.more) == sorted(
        f"{name}_{part}" for name in ("first", "second") for part in ("items", "segments", "positions", "weights")
    )
    assert (batch.more["first_items"] != batch.more["second_items"]).any(axis=1).mean() > 0.5
    plain = loader(Prefixes(Shifted(8, targets=1)), 40).host_batch(0)
    for name in ("items", "segments", "positions", "targets", "weights"):
        np.testing.assert_array_equal(getattr(batch, name), getattr(plain, name))


def test_impossible_partners_are_refused():
    assert not Partnered(Shifted(8), SameTarget()).packing
    for view in (Prefixes(Shifted(8)), Cloze(8)):
        with pytest.raises(InputError, match=f"slots needs a next-item view .* not {type(view).__name__}"):
            loader(Partnered(view, SameTarget(slots=True)))
    with pytest.raises(InputError, match=r"AlteredCopy.ways is \(\), expected one alteration or more"):
        AlteredCopy(())
    with pytest.raises(InputError, match=r"share is 1\.5"):
        Crop(1.5)
