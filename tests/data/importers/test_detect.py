"""Finding out the format, and saying which ones there are."""

import json
from pathlib import Path

import pytest

from recjax.data.importers import FORMATS, read
from recjax.typing import InputError
from tests.data.importers.damaged import GOOD, table


def test_formats_of_the_real_files(native_data: Path, uniform_data: Path) -> None:
    expected = {
        native_data / "ml-100k" / "u.data": "movielens (u.data)",
        native_data / "recbole-ml-100k": "recbole",
        native_data / "amazon-2018" / "All_Beauty_5.json.gz": "amazon",
        native_data / "s3rec" / "LastFM.txt": "sequences",
        uniform_data / "lastfm": "table",
    }
    assert {path: read(path).notes["format"] for path in expected} == expected


def test_notes_are_json(native_data: Path) -> None:
    for path in ("ml-100k", "recbole-ml-100k", "s3rec/LastFM.txt", "amazon-2018/Gift_Cards_5.json.gz"):
        assert json.loads(json.dumps(read(native_data / path).notes))["rows_read"] > 0


def test_unknown_content_names_the_formats(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("nothing here")
    with pytest.raises(InputError) as caught:
        read(tmp_path)
    assert "no dataset in a known format (there: README.md)" in str(caught.value)
    assert all(f"{name}: " in str(caught.value) for name in FORMATS)
    (tmp_path / "ml-1m.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match="unpack the archive first"):
        read(tmp_path)


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file or folder"):
        read(tmp_path / "nowhere")
    path = table(tmp_path, GOOD)
    with pytest.raises(InputError, match=r"no format 'recbol', expected one of movielens, .*did you mean 'recbole'"):
        read(path, format="recbol")
    with pytest.raises(InputError, match="no recbole files"):
        read(path, format="recbole")
    (tmp_path / "u.data").write_text("1\t2\t3\t4\n")
    with pytest.raises(InputError, match=r"columns can be named for tables only; .* read as movielens"):
        read(tmp_path, columns={"user_id": "x"})


def test_a_format_may_be_named_and_so_may_the_dataset(tmp_path: Path) -> None:
    table(tmp_path, GOOD)
    (tmp_path / "u.data").write_text("1\t2\t3\t4\n")
    assert read(tmp_path).notes["format"] == "movielens (u.data)"
    logs = read(tmp_path, format="table", name="mine")
    assert (logs.name, logs.interactions.height) == ("mine", len(GOOD))
