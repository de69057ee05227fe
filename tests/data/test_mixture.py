"""Mixtures: shares kept at every step, batches a function of the step, catalogs told apart."""

import numpy as np
import pytest

from recjax.data.batches.loader import Loader
from recjax.data.batches.mixture import MixedLoader, Mixture
from recjax.data.batches.views import Shifted
from recjax.data.items import DENSITY, VECTORS, bare_items, by_catalog, joined, on_devices, text_items
from recjax.data.splits import LeaveOneOut
from recjax.typing import InputError
from tests.evaluate import toy


def _loaders(rows: int = 4) -> list[Loader]:
    loaders = []
    for seed, items in enumerate((30, 40, 50)):
        data = toy.dataset(users=60, items=items, seed=seed)
        train = LeaveOneOut().split(data).train
        loaders.append(Loader(train, Shifted(max_length=6), rows, None, seed, n_items=data.n_items))
    return loaders


def test_each_loader_gets_its_share_at_every_step():
    mixed = MixedLoader(_loaders(), [5.0, 3.0, 2.0])
    sources = np.array([mixed.source(step) for step in range(2_000)])
    for loader, share in enumerate((0.5, 0.3, 0.2)):
        drawn = np.cumsum(sources[:, 0] == loader)
        assert np.abs(drawn - share * np.arange(1, 2_001)).max() <= 1.0
        own = sources[sources[:, 0] == loader, 1]
        np.testing.assert_array_equal(own, np.arange(len(own)))


def test_a_step_means_the_same_whatever_was_asked_before():
    one, other = MixedLoader(_loaders(), [1.0, 2.0, 3.0]), MixedLoader(_loaders(), [1.0, 2.0, 3.0])
    late = one.source(5_000)
    sources = [other.source(step) for step in range(5_001)]
    assert sources[5_000] == late
    assert [one.source(step) for step in range(50)] == sources[:50]


def test_batches_come_from_their_loader_with_their_catalog():
    loaders = _loaders()
    tables = [
        text_items(np.full((loader.n_items + 1, 2), loader.n_items), np.ones(loader.n_items + 1)) for loader in loaders
    ]
    table, starts = joined(tables)
    mixed = MixedLoader(loaders, [1.0, 1.0, 1.0])
    catalogs = by_catalog(on_devices(table), starts, [loader.n_items for loader in loaders])
    for step, batch in enumerate(mixed.iterate(0, 9)):
        which, number = mixed.source(step)
        expected = loaders[which].batch(number)
        np.testing.assert_array_equal(batch.items, expected.items)
        np.testing.assert_array_equal(batch.items, mixed.batch(step).items)
        assert mixed.catalog(step) == which
        catalog = catalogs[mixed.catalog(step)]
        assert int(catalog.size) == loaders[which].n_items
        items = np.asarray(batch.items)
        vectors = np.asarray(catalog[VECTORS])[np.asarray(catalog.rows(items))]
        # Every item finds its own catalog's rows; padding finds row 0.
        assert (vectors[items > 0] == loaders[which].n_items).all()
        np.testing.assert_array_equal(
            vectors[items == 0], np.broadcast_to(np.asarray(catalog[VECTORS])[0], (int((items == 0).sum()), 2))
        )


def test_joined_tables_keep_every_row():
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(size + 1, 3)).astype(np.float32) for size in (4, 7)]
    table, starts = joined([text_items(part, np.ones(len(part)), density=part[:, 0]) for part in parts])
    for part, start in zip(parts, starts, strict=True):
        np.testing.assert_array_equal(table[VECTORS][start + 1 : start + len(part)], part[1:])
        np.testing.assert_array_equal(table[DENSITY][start + 1 : start + len(part)], part[1:, 0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"datasets": ()}, "expected names of datasets"),
        ({"datasets": ("a", "a")}, "expected each dataset once"),
        ({"datasets": ("a", "b"), "held_out": "b"}, "which would not hold it out"),
        ({"datasets": ("a",), "temperature": 2.0}, "temperature"),
    ],
)
def test_bad_mixtures(settings, message):
    with pytest.raises(InputError, match=message):
        Mixture(**settings)


def test_tables_that_do_not_fit():
    with pytest.raises(InputError, match="different widths"):
        joined([text_items(np.ones((3, 2)), np.ones(3)), text_items(np.ones((3, 4)), np.ones(3))])
    with pytest.raises(InputError, match="only some have density, known, vectors"):
        joined([bare_items(2), bare_items(2, {"vectors": 0, "known": 0, "density": 0})])
    with pytest.raises(InputError, match="rows of vectors"):
        text_items(np.ones((3, 2)), np.ones(4))


def test_lists_say_which_catalog_they_are_of():
    line = Mixture(("films", "books"), held_out="games").ranked("games")
    assert line.startswith("the items are those of games,") and line.endswith("trained on films, books too")
