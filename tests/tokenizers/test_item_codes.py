"""Item codes: what is refused, and the folder they are kept in."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from recjax.tokenizers.item_codes import ItemCodes, load_codes, load_description, load_state
from recjax.typing import InputError
from tests.damage import flipped

CODES = np.array([[0, 0], [3, 1], [2, 0]])


def test_saved_and_loaded(tmp_path):
    codes = ItemCodes(CODES, (4, 2), ordered=True)
    state = {"preparation": {"mean": np.ones(3, np.float32)}, "centroids": np.arange(6.0).reshape(2, 3)}
    codes.save(tmp_path / "codes", state, moved=2)
    found = load_codes(tmp_path / "codes")
    np.testing.assert_array_equal(found.codes, CODES)
    assert found.codes.dtype == np.int32
    assert (found.sizes, found.ordered, found.n_items, found.slots, found.tuples) == ((4, 2), True, 2, 2, 8)
    restored = load_state(tmp_path / "codes")
    np.testing.assert_array_equal(restored["preparation"]["mean"], state["preparation"]["mean"])
    np.testing.assert_array_equal(restored["centroids"], state["centroids"])
    assert load_description(tmp_path / "codes")["moved"] == 2
    names = {path.name for path in (tmp_path / "codes").iterdir()}
    assert names == {"codes.safetensors", "codes.json", "tokenizer.safetensors"}


def test_a_folder_that_is_not_of_one_piece(tmp_path):
    ItemCodes(CODES, (4, 2), True).save(tmp_path)
    old = (tmp_path / "codes.json").read_text()
    ItemCodes(CODES[::1] * [[1, 0]], (4, 2), True).save(tmp_path)
    (tmp_path / "codes.json").write_text(old)
    with pytest.raises(InputError, match="does not hold the codes that"):
        load_codes(tmp_path)
    (tmp_path / "codes.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="is damaged"):
        load_codes(tmp_path)
    (tmp_path / "codes.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(InputError, match="not a description of item codes"):
        load_codes(tmp_path)
    with pytest.raises(InputError, match="holds no item codes"):
        load_codes(tmp_path / "absent")


def test_no_flipped_bit_is_used(tmp_path):
    state = {"preparation": {"mean": np.arange(3, dtype=np.float32)}, "centroids": np.arange(6.0).reshape(2, 3)}
    ItemCodes(CODES, (4, 2), ordered=True).save(tmp_path, state, moved=2)

    def content():
        codes, held = load_codes(tmp_path), load_state(tmp_path)
        described = {key: load_description(tmp_path)[key] for key in ("sizes", "ordered", "moved", "fingerprint")}
        arrays = [codes.codes, held["preparation"]["mean"], held["centroids"]]
        return codes.sizes, codes.ordered, described, [array.tolist() for array in arrays]

    expected, refused = content(), 0
    files = sorted(tmp_path.iterdir())
    for file in files:
        for where in flipped(file, 150):
            try:
                assert content() == expected, where
            except InputError as error:
                assert str(tmp_path) in str(error)
                refused += 1
    assert len(files) == 3 and refused > 350


def test_a_folder_of_an_earlier_version_has_no_digests(tmp_path):
    state = {"centroids": np.arange(6.0).reshape(2, 3)}
    ItemCodes(CODES, (4, 2), True).save(tmp_path, state)
    description = json.loads((tmp_path / "codes.json").read_text())
    del description["digest"]
    (tmp_path / "codes.json").write_text(json.dumps(description))
    save_file({"codes": CODES.astype(np.int32)}, tmp_path / "codes.safetensors")
    save_file(state, tmp_path / "tokenizer.safetensors")
    np.testing.assert_array_equal(load_codes(tmp_path).codes, CODES)
    np.testing.assert_array_equal(load_state(tmp_path)["centroids"], state["centroids"])


@pytest.mark.parametrize(
    ("codes", "sizes", "message"),
    [
        ([[0, 0], [4, 0]], (4, 2), "item 1 has code 4 in slot 0, expected 0 to 3"),
        ([[0, 0], [0, -1]], (4, 2), "item 1 has code -1 in slot 1"),
        ([[1, 0]], (4, 2), "codes of padding"),
        ([[0, 0]], (4,), r"shape \(1, 2\), expected \[items \+ 1, 1\]"),
    ],
)
def test_codes_that_cannot_be(codes, sizes, message):
    with pytest.raises(InputError, match=message):
        ItemCodes(np.array(codes), sizes, ordered=False)
