"""Text spaces: similarities add up, word sketches keep dot products, density counts neighbours."""

import numpy as np
import polars as pl
import pytest

from recjax.text import space
from recjax.text.hashed import Hashed
from recjax.text.sketch import Sketch
from recjax.text.space import Channel, TextSpace, density
from recjax.typing import InputError
from tests.damage import flipped

WORDS = ["rose", "cream", "night", "soap", "lavender", "hair", "oil", "mask", "hand", "face", "gel", "mint"]


def _titles(count: int = 80) -> list[str]:
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, rng.integers(2, 6), replace=False)) for _ in range(count)]


def test_a_wide_sketch_keeps_the_similarities_of_tf_idf():
    from sklearn.feature_extraction.text import TfidfVectorizer

    titles = _titles()
    exact = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2).fit_transform(titles)
    found = Sketch(2**15).encode(titles)
    # The two differ where two words share a column and in the words dropped before or after scaling.
    assert np.corrcoef((found @ found.T).ravel(), (exact @ exact.T).toarray().ravel())[0, 1] > 0.995
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=0.05)


def test_a_word_has_the_same_column_in_every_catalog():
    one = Sketch(64).encode(["rose cream", "rose soap", "mint"])
    other = Sketch(64).encode(["unlike these", "rose water", "rose tea", "unlike those"])
    assert set(np.flatnonzero(one[1])) <= set(np.flatnonzero(other[1]))


def test_leading_words():
    found = Sketch(256, leading=1).encode(["acme soap", "acme oil", "other soap", "other oil"])
    np.testing.assert_allclose(found @ found.T, [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]], atol=1e-6)


def test_similarities_of_channels_add_up(tmp_path):
    catalog = pl.DataFrame({"item_id": [str(n) for n in range(81)], "title": [*_titles(), None]})
    channels = (Channel(Hashed(16), 1.0), Channel(Sketch(64), 0.25, whiten=False))
    both = TextSpace(channels).vectors(catalog, tmp_path)
    parts = [TextSpace((channel,)).vectors(catalog).vectors for channel in channels]
    np.testing.assert_allclose(both.vectors @ both.vectors.T, sum(part @ part.T for part in parts), atol=1e-5)
    assert both.widths == (16, 64)
    assert both.vectors.shape == (82, 80)
    assert not both.known[[0, -1]].any() and both.known[1:-1].all()
    assert not both.vectors[[0, -1]].any()


def test_density_is_the_mean_similarity_to_the_nearest():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(50, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    known = np.arange(50) % 9 != 0
    found = density(vectors, known, neighbours=3)
    similar = vectors[known] @ vectors[known].T
    np.fill_diagonal(similar, -np.inf)
    expected = np.sort(similar, axis=1)[:, -3:].mean(axis=1)
    np.testing.assert_allclose(found[known], expected / expected.mean(), rtol=1e-5)
    assert (found[~known] == 1).all()
    sampled = density(vectors, known, neighbours=3, sample=25)
    assert np.isfinite(sampled).all() and abs(sampled[known].mean() - 1) < 1e-5


def test_a_density_is_kept_under_what_it_was_made_of(tmp_path, monkeypatch):
    vectors, known = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32), np.arange(50) > 0
    first = density(vectors, known, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(space, "_density", None)
        np.testing.assert_array_equal(density(vectors, known, tmp_path), first)
    (file,) = tmp_path.iterdir()
    for where in flipped(file, 60):
        np.testing.assert_array_equal(density(vectors, known, tmp_path), first, where)
    others = [(vectors + 1, known, {}), (vectors, np.arange(50) > 1, {}), (vectors, known, {"neighbours": 3})]
    for other, which, settings in others:
        np.testing.assert_array_equal(density(other, which, tmp_path, **settings), density(other, which, **settings))
        assert (density(other, which, **settings) != first).any()
    assert len(list(tmp_path.iterdir())) == 4


def test_bad_settings():
    with pytest.raises(InputError, match="weight"):
        Channel(Sketch(), 0.0)
    with pytest.raises(InputError, match="expected at least one encoder"):
        TextSpace(())
    with pytest.raises(InputError, match="width"):
        Sketch(0)
