"""Settings that make a shipped recipe small enough for a test."""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import jax
import pytest

from recjax.data.embedded import generate
from recjax.data.embedded.synthetic import synthetic
from recjax.parallel.mesh import MeshShape
from recjax.recipes import SHORT

TINY = (
    "model.width=8",
    "model.layers=1",
    "model.max_length=12",
    "data.view.max_length=12",
    *(f"{key}={text}" for key, text in SHORT.items()),
)
SETTINGS = [part for setting in TINY for part in ("--set", setting)]


def on_one_device(patch: pytest.MonkeyPatch) -> None:
    """Meshes are of the first device alone, for which steps compile in half the time; sharded ones have their tests."""
    build = MeshShape.build
    patch.setattr(MeshShape, "build", lambda self, devices=None: build(self, devices or jax.devices()[:1]))


def few_users(patch: pytest.MonkeyPatch) -> None:
    """Embedded catalogs are whole, but one in sixteen of their users goes there."""
    patch.setattr(generate, "generate", lru_cache(lambda name: synthetic(name, users=250)))


def tiny_datasets(folder: Path, names: Iterable[str]) -> Path:
    """Writes the same small dataset (120 users, 100 items) in the uniform form under every name."""
    raw = synthetic(users=120, items=100)
    for name in names:
        (folder / name).mkdir(parents=True)
        raw.interactions.write_csv(folder / name / "interactions.csv")
        raw.catalog.write_csv(folder / name / "items.csv")
    return folder
