"""Files of arrays: round trip, damage, files of earlier versions, and digests of JSON."""

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from recjax import array_files
from recjax.array_files import DamagedFileError
from recjax.files import file_digest, sealed, unsealed
from recjax.typing import InputError
from tests.damage import flipped

RNG = np.random.default_rng(0)
ARRAYS = {
    "floats": RNG.normal(size=(5, 3)).astype(np.float32),
    "half": RNG.normal(size=4).astype(ml_dtypes.bfloat16),
    "numbers": np.arange(7, dtype=np.int64)[::-1],
    "flags": np.array([True, False, True]),
    "scalar": np.float32(2.5),
    "empty": np.zeros((0, 4), np.int32),
}


def same(found, expected):
    assert set(found) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def test_round_trip(tmp_path):
    path = tmp_path / "a.safetensors"
    array_files.write(path, ARRAYS, {"key": "ü\n"})
    found = array_files.read(path)
    same(found.arrays, {name: np.asarray(array) for name, array in ARRAYS.items()})
    assert found.metadata == {"key": "ü\n"} and found.checked
    assert list(tmp_path.iterdir()) == [path]
    (tmp_path / "any").touch()
    assert path.stat().st_mode == (tmp_path / "any").stat().st_mode


def test_no_flipped_bit_is_used(tmp_path):
    path, refused = tmp_path / "a.safetensors", 0
    array_files.write(path, ARRAYS, {"key": "value"})
    expected = array_files.read(path).arrays
    for _ in flipped(path, 600):
        try:
            found = array_files.read(path)
        except DamagedFileError as error:
            assert "a.safetensors is damaged" in str(error) and "\n" not in str(error)
            refused += 1
        else:
            same(found.arrays, expected)
    assert refused > 550


@pytest.mark.parametrize("content", [b"", b"junk", b"\xff" * 64])
def test_other_damage(tmp_path, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match="is damaged"):
        array_files.read(path)
    with pytest.raises(FileNotFoundError):
        array_files.read(tmp_path / "absent")
    with pytest.raises(InputError, match="cannot be read"):
        array_files.read(tmp_path)


def test_two_arrays_of_one_size_that_change_places_are_damage(tmp_path):
    path = tmp_path / "a.safetensors"
    array_files.write(path, {"a": np.zeros(3), "b": np.ones(3)})
    digest = array_files.read(path)
    assert digest.checked
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        metadata = file.metadata()
    save_file({"a": np.ones(3), "b": np.zeros(3)}, path, metadata)
    with pytest.raises(DamagedFileError, match="not what was written"):
        array_files.read(path)


def test_a_file_without_a_digest_says_so(tmp_path):
    save_file({"a": np.ones(3)}, tmp_path / "old.safetensors")
    found = array_files.read(tmp_path / "old.safetensors")
    assert not found.checked and found.arrays["a"].tolist() == [1, 1, 1]


def test_json_entries_with_a_digest(tmp_path):
    entries = {"sizes": (1, 2), "names": {2: "b", 10: "a"}, "share": 0.1, "text": "ü", "none": None}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(sealed(entries), indent=2))
    as_read = json.loads(json.dumps(entries))
    assert unsealed(json.loads(path.read_text()), path) == as_read
    assert unsealed(as_read, path) == as_read  # written before there were digests
    for _ in flipped(path, 200):
        try:
            held = json.loads(path.read_bytes())
        except ValueError:
            continue
        try:
            found = unsealed(held, path)
        except InputError as error:
            assert "a.json is damaged" in str(error)
        else:
            assert {key: found[key] for key in as_read} == as_read
    assert len(file_digest(path)) == 64
