"""Finding datasets by name and path, and the cache of prepared ones."""

import os

import pytest

from recjax.data import importers
from recjax.data.embedded.synthetic import synthetic
from recjax.data.prepare.build import build
from recjax.data.prepare.preparation import Preparation
from recjax.data.store.prepared import find, save
from recjax.typing import InputError
from tests.data.samples import random_logs


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder with one uniform dataset "small", $RECJAX_DATA pointing at it, and an empty cache."""
    monkeypatch.setenv("RECJAX_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path / "cache"))
    raw = random_logs(0)
    folder = tmp_path / "data" / "small"
    folder.mkdir(parents=True)
    raw.interactions.write_csv(folder / "interactions.csv")
    raw.catalog.write_csv(folder / "items.csv")
    return tmp_path / "data"


@pytest.fixture
def reads(monkeypatch):
    """Counts how often raw files are read."""
    calls = []
    read = importers.read
    monkeypatch.setattr(
        importers, "read", lambda path, *rest, **named: calls.append(path) or read(path, *rest, **named)
    )
    return calls


def test_prepares_at_first_use_and_reads_the_cache_after(shelf, reads):
    first = find("small")
    assert first.fingerprint == build(random_logs(0)).fingerprint
    assert first.name == "small"
    assert find("small").fingerprint == first.fingerprint
    assert len(reads) == 1
    assert find(str(shelf / "small")).fingerprint == first.fingerprint
    assert len(reads) == 1


def test_other_options_and_changed_files_are_prepared_anew(shelf, reads):
    plain = find("small")
    core = find("small", Preparation(k_core=8))
    assert core.n_interactions < plain.n_interactions and len(reads) == 2
    path = shelf / "small" / "interactions.csv"
    path.write_text(path.read_text() + "new,i1,7\n")
    grown = find("small")
    assert grown.n_interactions == plain.n_interactions + 1 and len(reads) == 3


def test_a_damaged_cache_is_made_again(shelf, reads, tmp_path):
    expected = find("small").fingerprint
    for file in (tmp_path / "cache").rglob("*.array_record-*"):
        file.write_bytes(b"")
    assert find("small").fingerprint == expected
    assert find("small").fingerprint == expected
    assert len(reads) == 2


def test_a_cache_that_cannot_be_written_costs_only_the_cache(shelf, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert find("small").n_users > 0


def test_prepared_folders_are_used_as_they_are(shelf, tmp_path):
    dataset = build(random_logs(1), Preparation(k_core=3))
    save(dataset, shelf / "ready")
    assert find("ready").fingerprint == dataset.fingerprint
    assert find(str(shelf / "ready"), Preparation(k_core=3)).fingerprint == dataset.fingerprint
    with pytest.raises(InputError, match="already prepared with"):
        find("ready", Preparation(k_core=4))
    save(dataset, tmp_path / "cache" / "kept")
    assert find("kept").fingerprint == dataset.fingerprint


def test_several_folders_are_searched_in_order(shelf, tmp_path, monkeypatch):
    other = tmp_path / "other"
    dataset = build(random_logs(2))
    save(dataset, other / "small")
    save(dataset, other / "more")
    monkeypatch.setenv("RECJAX_DATA", os.pathsep.join([str(shelf), str(other)]))
    assert find("more").fingerprint == dataset.fingerprint
    assert find("small").fingerprint != dataset.fingerprint


def test_a_folder_of_the_working_directory_is_found_by_its_name(shelf, monkeypatch):
    monkeypatch.delenv("RECJAX_DATA")
    monkeypatch.chdir(shelf)
    assert find("small").n_users > 0


def test_unknown_names_say_where_was_looked_and_what_is_there(shelf, monkeypatch):
    with pytest.raises(InputError) as error:
        find("smal")
    message = str(error.value)
    assert f"looked in {shelf}, which has: small" in message
    assert "did you mean 'small'?" in message
    assert "embedded: synthetic" in message
    with pytest.raises(InputError, match="did you mean 'synthetic'"):
        find("sinthetic")
    with pytest.raises(InputError, match="no such file or folder"):
        find(str(shelf / "absent"))
    with pytest.raises(InputError, match="name is empty"):
        find("")
    monkeypatch.delenv("RECJAX_DATA")
    with pytest.raises(InputError, match=r"\$RECJAX_DATA is not set"):
        find("ml-1m")


def test_embedded_dataset_needs_no_files(shelf):
    assert find("synthetic").fingerprint == build(synthetic("synthetic")).fingerprint


def test_parts_in_folders_are_part_of_the_key(shelf, reads):
    whole = find("small")
    lines = (shelf / "small" / "interactions.csv").read_text().splitlines()
    half = len(lines) // 2
    for number, rows in enumerate((lines[1:half], lines[half:])):
        folder = shelf / "parts" / f"half={number}"
        folder.mkdir(parents=True)
        (folder / "part-00000.csv").write_text("\n".join([lines[0], *rows]) + "\n")
    (shelf / "parts" / "items.csv").write_text((shelf / "small" / "items.csv").read_text())
    assert find("parts").fingerprint == whole.fingerprint == find("parts").fingerprint and len(reads) == 2
    last = shelf / "parts" / "half=1" / "part-00000.csv"
    last.write_text(last.read_text() + "new,i1,7\n")
    assert find("parts").n_interactions == whole.n_interactions + 1 and len(reads) == 3
