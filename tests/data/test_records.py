"""Prepared datasets on disk: round trip, atomic writes, damage, and reading without TensorFlow."""

import json
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from recjax.data.prepare.build import build
from recjax.data.prepare.preparation import Preparation
from recjax.data.store import records
from recjax.data.store.prepared import load, save
from recjax.data.store.records import serialize
from recjax.typing import InputError
from tests.data.samples import logs, random_logs


@pytest.fixture
def rated():
    rows = [("ü", "a", 1, 4.0), ("ü", "b", 1, None), ("v", "a", 3, 2.0)]
    catalog = pl.DataFrame({"item_id": ["a", "b"], "title": ['é, "quoted"\n', None], "price": [1.5, None]})
    return build(logs(rows, catalog))


def same(one, other):
    assert one.fingerprint == other.fingerprint and one.name == other.name
    assert one.user_ids == other.user_ids and one.item_ids == other.item_ids
    for field in ("offsets", "items", "timestamps"):
        found, expected = getattr(one, field), getattr(other, field)
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype
    assert (one.values is None) == (other.values is None)
    if one.values is not None:
        np.testing.assert_array_equal(one.values, other.values)
    assert one.catalog.equals(other.catalog)
    assert one.description == other.description


def test_round_trip(tmp_path, rated):
    save(rated, tmp_path / "deep" / "rated")
    same(load(tmp_path / "deep" / "rated"), rated)
    assert [entry.name for entry in (tmp_path / "deep").iterdir()] == ["rated"]  # no scratch folder is left


def test_round_trip_of_random_logs_without_ratings(tmp_path):
    dataset = build(random_logs(0), Preparation(k_core=3))
    save(dataset, tmp_path / "x")
    same(load(tmp_path / "x"), dataset)


def test_one_arrayrecord_record_a_user_that_tfds_itself_can_read(tmp_path, rated):
    import tensorflow_datasets as tfds

    save(rated, tmp_path / "x")
    assert len(list((tmp_path / "x").glob("*.array_record-*"))) == 1
    source = tfds.builder_from_directory(str(tmp_path / "x")).as_data_source(split="users")
    assert len(source) == rated.n_users
    record = source[0]
    assert record["user_id"].decode() == "ü"
    np.testing.assert_array_equal(record["items"], rated.history(0))
    np.testing.assert_array_equal(record["values"], [4.0, np.nan])


def test_a_missing_shard_is_said(tmp_path, rated, monkeypatch):
    monkeypatch.setattr(records, "shard_bounds", lambda users, size: [1, users])
    save(rated, tmp_path / "x")
    same(load(tmp_path / "x"), rated)
    for shard in sorted((tmp_path / "x").glob("*.array_record-*"), reverse=True):
        shard.unlink()
        with pytest.raises(InputError, match=r"x: shards are missing, there are \["):
            load(tmp_path / "x")


def test_fields_of_a_record_are_sorted_so_that_bytes_depend_on_the_content_alone():
    values = np.ones(3)
    record = serialize("u", values, values, values)
    places = [record.index(name) for name in (b"items", b"timestamps", b"user_id", b"values")]
    assert places == sorted(places)


def test_only_the_first_users_of_a_large_dataset(tmp_path):
    dataset = build(random_logs(0))
    save(dataset, tmp_path / "x")
    part = load(tmp_path / "x", most=100)
    assert part.user_ids == dataset.user_ids[:10] and part.fingerprint == dataset.fingerprint
    np.testing.assert_array_equal(part.items, dataset.items[: dataset.offsets[10]])
    same(load(tmp_path / "x", most=300), dataset)


def test_tensorflow_is_never_imported(tmp_path, rated):
    save(rated, tmp_path / "x")
    code = (
        "import sys\n"
        "from recjax.data.store.prepared import load, save\n"
        "from pathlib import Path\n"
        "folder = Path(sys.argv[1])\n"
        "dataset = load(folder)\n"
        "save(dataset, folder.with_name('y'))\n"
        "assert 'tensorflow' not in sys.modules\n"
        "print(dataset.fingerprint)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [rated.fingerprint]


def test_saving_again_replaces_and_a_foreign_folder_is_left_alone(tmp_path, rated):
    other = build(random_logs(0))
    save(rated, tmp_path / "x")
    save(other, tmp_path / "x")
    assert load(tmp_path / "x").fingerprint == other.fingerprint
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="not a prepared dataset: it will not be overwritten"):
        save(rated, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    save(rated, tmp_path / "empty")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["empty", "mine", "x"]


def test_a_failed_save_leaves_nothing_behind(tmp_path, rated, monkeypatch):
    monkeypatch.setattr(pl.DataFrame, "write_parquet", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save(rated, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_damage_is_told(tmp_path, rated):
    def prepared(name):
        save(rated, tmp_path / name)
        return tmp_path / name

    with pytest.raises(InputError, match="is not a prepared dataset"):
        load(tmp_path)
    folder = prepared("no shards")
    for file in folder.glob("*.array_record-*"):
        file.unlink()
    with pytest.raises(InputError, match="cannot read the prepared dataset"):
        load(folder)
    folder = prepared("torn header")
    header = (folder / "dataset.json").read_text()
    (folder / "dataset.json").write_text(header[: len(header) // 2])
    with pytest.raises(InputError, match=r"is damaged|is not JSON"):
        load(folder)
    folder = prepared("other version")
    (folder / "dataset.json").write_text(json.dumps(json.loads(header) | {"format": "recjax dataset 99"}))
    with pytest.raises(InputError, match=r"format 'recjax dataset 99', expected .*: prepare it again"):
        load(folder)
    folder = prepared("edited catalog")
    pl.read_parquet(folder / "catalog.parquet").with_columns(title=pl.lit("x")).write_parquet(
        folder / "catalog.parquet"
    )
    with pytest.raises(InputError, match=r"is damaged: catalog\.parquet is not what was written"):
        load(folder)
    header = json.loads((folder / "dataset.json").read_text())
    del header["digest"], header["files"]  # as earlier versions wrote it
    (folder / "dataset.json").write_text(json.dumps(header))
    with pytest.raises(InputError, match="is damaged: its fingerprint is"):
        load(folder)
