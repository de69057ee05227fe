"""Item vectors: padding and missing texts are explicit, and the file is read only for the same content."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recjax.text.encoder import SentenceEncoder
from recjax.text.hashed import Hashed
from recjax.text.vectors import item_vectors
from recjax.typing import InputError
from tests.damage import flipped

TWIN = Path(__file__).parent / "twins" / "bert"
CATALOG = pl.DataFrame({"title": ["red chair", None, "blue chair", "\u200b", "red chair"]})


class Forbidden(SentenceEncoder):
    def encode(self, texts, *, progress=False):
        raise AssertionError("the vectors are in the cache")


@pytest.mark.parametrize("config", [Hashed(width=4), SentenceEncoder(str(TWIN), max_tokens=12)])
def test_rows_are_items(config):
    found = item_vectors(config, CATALOG)
    assert found.vectors.dtype == np.float32 and found.vectors.shape[0] == 6
    assert found.known.tolist() == [False, True, False, True, False, True]
    assert not found.vectors[~found.known].any()
    np.testing.assert_array_equal(found.vectors[1], found.vectors[5])
    assert np.abs(found.vectors[1] - found.vectors[3]).max() > 1e-3
    assert not item_vectors(config, CATALOG.select(pl.lit("1").alias("item_id"))).known.any()


def test_the_file_is_used_for_the_same_content_only(tmp_path):
    folder = shutil.copytree(TWIN, tmp_path / "encoder")
    cache = tmp_path / "cache" / "text"
    config, cached = (kind(str(folder), max_tokens=12) for kind in (SentenceEncoder, Forbidden))
    first = item_vectors(config, CATALOG, cache)
    (file,) = cache.iterdir()
    again = item_vectors(cached, CATALOG, cache)
    np.testing.assert_array_equal(again.vectors, first.vectors)
    np.testing.assert_array_equal(again.known, first.known)
    assert again.fingerprint == first.fingerprint
    for other in (
        lambda: item_vectors(cached, CATALOG.reverse(), cache),
        lambda: item_vectors(replace(cached, template="a {title}"), CATALOG, cache),
        lambda: item_vectors(replace(cached, max_tokens=10), CATALOG, cache),
    ):
        with pytest.raises(AssertionError, match="in the cache"):
            other()
    file.write_bytes(file.read_bytes()[:100])  # damaged: made again
    np.testing.assert_array_equal(item_vectors(config, CATALOG, cache).vectors, first.vectors)
    np.testing.assert_array_equal(item_vectors(cached, CATALOG, cache).vectors, first.vectors)
    assert [entry.name for entry in cache.iterdir()] == [file.name]
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\x00\x00\x00\x3f")
    with pytest.raises(AssertionError, match="in the cache"):
        item_vectors(cached, CATALOG, cache)


def test_a_cache_with_a_flipped_bit_is_made_again_and_said(tmp_path, caplog):
    first = item_vectors(Hashed(width=4), CATALOG, tmp_path)
    (file,) = tmp_path.iterdir()
    for where in flipped(file, 100):
        caplog.clear()
        found = item_vectors(Hashed(width=4), CATALOG, tmp_path)
        np.testing.assert_array_equal(found.vectors, first.vectors)
        np.testing.assert_array_equal(found.known, first.known)
        assert "making it again" in caplog.text or not caplog.text, where
    caplog.clear()
    for where in flipped(file, 40):
        if where.endswith(f"byte {file.stat().st_size - 1} of {file.name}"):
            item_vectors(Hashed(width=4), CATALOG, tmp_path)
    assert "is damaged" in caplog.text


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    found = item_vectors(Hashed(width=4), CATALOG, tmp_path / "file" / "cache")
    assert found.known.sum() == 3 and "cannot be written" in caplog.text


def test_bad_settings():
    with pytest.raises(InputError, match="width is 0"):
        Hashed(width=0)
    with pytest.raises(InputError, match="batch_tokens is 0"):
        SentenceEncoder("x", batch_tokens=0)
