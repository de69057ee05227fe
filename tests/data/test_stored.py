"""Histories that stay in their shards: the same batches, from the records of a process's own rows alone."""

import json
import shutil

import jax
import numpy as np
import pytest

from recjax.data.batches.derived import Baskets, Prefixes
from recjax.data.batches.loader import Data, Loader, open_data, query_batches
from recjax.data.batches.partners import Partnered
from recjax.data.batches.views import Cloze, Shifted
from recjax.data.prepare.build import build
from recjax.data.splits import ByUser, GlobalTime, LeaveOneOut, few_shot
from recjax.data.store.columns import StoredColumn
from recjax.data.store.prepared import find, load, load_unread, save
from recjax.data.transitions import item_counts
from recjax.typing import InputError
from tests.damage import flipped
from tests.data.samples import random_logs

PROCESSES, ROWS = 4, 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("stored") / "dataset"
    save(build(random_logs(0, users=200, events=2_000)), folder)
    return folder


def equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def loader(dataset, view):
    return Loader(LeaveOneOut().split(dataset).train, view, ROWS, 20, 0, dataset.n_items)


def reads(dataset, monkeypatch):
    """The users whose records are read from now on, as a list that grows."""
    found: list[int] = []
    shards = dataset.items.shards
    getitems = type(shards._source).__getitems__
    monkeypatch.setattr(
        type(shards._source), "__getitems__", lambda self, users: found.extend(users) or getitems(self, users)
    )
    return found


def test_of_n_processes_each_reads_the_records_of_its_own_rows(folder, monkeypatch):
    view = Shifted(10, times=True)
    whole = loader(load(folder), view)
    expected, plan = whole._fill(3, np.arange(ROWS)), whole._plan(0)
    everything: list[int] = []
    for process in range(PROCESSES):
        rows = np.arange(ROWS).reshape(PROCESSES, -1)[process]
        own = np.concatenate([plan.members[plan.offsets[row] : plan.offsets[row + 1]] for row in 3 * ROWS + rows])
        with monkeypatch.context() as patch:
            dataset = load_unread(folder)
            mine = loader(dataset, view)  # the split has asked each user for two events; the batches come after
            read = reads(dataset, patch)
            equal(mine._fill(3, rows), jax.tree.map(lambda array, rows=rows: array[rows], expected))
        assert sorted(read) == sorted(own.tolist()), "each record once, and no other"
        everything += read
    assert len(everything) == len(set(everything)) < 200 / 3


@pytest.mark.parametrize("view", [Shifted(10, times=True), Cloze(10)])
def test_batches_and_queries_are_those_of_a_resident_dataset(folder, view):
    here, stored = load(folder), load_unread(folder)
    equal(loader(stored, view).host_batch(5), loader(here, view).host_batch(5))
    one, other = (query_batches(LeaveOneOut().split(d).validation, view, d.n_items, 64) for d in (stored, here))
    for (queries, rows), (expected, expected_rows) in zip(one, other, strict=True):
        equal(queries, expected)
        np.testing.assert_array_equal(rows, expected_rows)


@pytest.mark.parametrize("view", [Partnered(Prefixes(Shifted(10, times=True))), Baskets(Shifted(10))])
def test_samples_are_those_of_a_resident_dataset(folder, view):
    one, other = (
        Loader(LeaveOneOut().split(opened(folder)).train, view, ROWS, 20, 0, 20, packed=view.packing)
        for opened in (load, load_unread)
    )
    assert isinstance(other.samples.histories.items, StoredColumn)
    for step in (0, 30):
        equal(one.host_batch(step), other.host_batch(step))


@pytest.mark.parametrize("split", [LeaveOneOut(), GlobalTime(), ByUser()])
def test_splits_are_those_of_a_resident_dataset(folder, split):
    here, stored = load(folder), load_unread(folder)
    one, other = few_shot(split.split(stored), 0.5), few_shot(split.split(here), 0.5)
    assert (one.name, one.notes) == (other.name, other.notes)
    assert isinstance(one.train.items, StoredColumn)
    for found, expected in ((one.train, other.train), (one.test.histories, other.test.histories)):
        for field in ("starts", "stops", "items", "timestamps", "users"):
            np.testing.assert_array_equal(getattr(found, field), getattr(expected, field), strict=True)
        np.testing.assert_array_equal(found.history(3), expected.history(3))
    np.testing.assert_array_equal(one.test.targets, other.test.targets, strict=True)
    np.testing.assert_array_equal(one.test.repeats(), other.test.repeats())
    np.testing.assert_array_equal(item_counts(one.train.items, 20), item_counts(other.train.items, 20), strict=True)
    assert list(stored.user_ids) == here.user_ids and stored.user_ids[-1] == here.user_ids[-1]
    assert stored.fingerprint == here.fingerprint and stored.item_ids == here.item_ids


def test_what_cannot_stay_in_shards_is_said(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path / "cache"))
    raw = random_logs(0)
    (tmp_path / "raw").mkdir()
    raw.interactions.write_csv(tmp_path / "raw" / "interactions.csv")
    with pytest.raises(InputError, match=r"is not prepared, and only prepared .*data\.resident=false"):
        open_data(Data(str(tmp_path / "raw"), resident=False))
    assert open_data(Data(str(folder), resident=False))[0].n_users == find(str(folder)).n_users
    save(build(raw), tmp_path / "old")
    (tmp_path / "old" / "offsets.i64").unlink()
    with pytest.raises(InputError, match=r"was prepared without offsets\.i64.*prepare it again"):
        load_unread(tmp_path / "old")
    assert load(tmp_path / "old").n_users == 30  # whole, it needs them not
    save(build(raw), tmp_path / "torn")
    shard = next((tmp_path / "torn").glob("*array_record*"))
    shard.write_bytes(shard.read_bytes()[:65_536])
    with pytest.raises(InputError, match="cannot read the prepared dataset"):
        np.asarray(load_unread(tmp_path / "torn").items)


def test_no_flipped_bit_is_used(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "x")
    here, refused = load(folder), 0
    read = {file for file in (tmp_path / "x").iterdir() if file.name not in ("dataset_info.json", "features.json")}
    for file in sorted(read):  # the others tell TFDS what is there
        for where in flipped(file, 150 if "array_record" in file.name else 40):
            try:
                found = load_unread(tmp_path / "x")
                for name in ("offsets", "items", "timestamps"):
                    np.testing.assert_array_equal(np.asarray(getattr(found, name)), getattr(here, name), where)
            except InputError as error:
                assert str(tmp_path / "x") in str(error) and "\n" not in str(error)
                refused += 1
                continue
            assert found.fingerprint == here.fingerprint and found.description == here.description
            assert list(found.user_ids) == here.user_ids and found.catalog.equals(here.catalog), where
    assert refused > 150


def test_a_dataset_of_an_earlier_version_is_checked_by_its_records(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "x")
    header = json.loads((tmp_path / "x" / "dataset.json").read_text())
    del header["digest"], header["files"]
    (tmp_path / "x" / "dataset.json").write_text(json.dumps(header))
    np.testing.assert_array_equal(np.asarray(load_unread(tmp_path / "x").items), load(folder).items)
    offsets = np.fromfile(tmp_path / "x" / "offsets.i64", "<i8")
    offsets[7] += 1
    offsets.tofile(tmp_path / "x" / "offsets.i64")
    with pytest.raises(InputError, match=r"records are of other lengths than offsets\.i64 says"):
        load_unread(tmp_path / "x").items.shards.take(np.array([7]))
