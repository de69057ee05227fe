"""What makes a shipped recipe small enough for a test."""

from collections.abc import Iterable
from pathlib import Path

import jax
import pytest

from recjax.data.synthetic import synthetic
from recjax.parallel.mesh import MeshShape

TINY = (
    "model.width=8",
    "model.layers=1",
    "model.max_length=12",
    "data.view.max_length=12",
    "data.rows=8",
    "train.steps=4",
    "train.epochs=none",
    "train.evaluate_every=2",
    "train.validation_users=20",
    "optim.warmup_steps=0",
    "evaluate.bootstrap=20",
)
SETTINGS = [part for setting in TINY for part in ("--set", setting)]


def on_one_device(patch: pytest.MonkeyPatch) -> None:
    """Meshes are of the first device alone, for which steps compile in half the time; sharded ones have their tests."""
    build = MeshShape.build
    patch.setattr(MeshShape, "build", lambda self, devices=None: build(self, devices or jax.devices()[:1]))


def tiny_datasets(folder: Path, names: Iterable[str]) -> Path:
    """Writes the same small dataset (120 users, 100 items) in the uniform form under every name."""
    raw = synthetic(users=120, items=100)
    for name in names:
        (folder / name).mkdir(parents=True)
        raw.interactions.write_csv(folder / name / "interactions.csv")
        raw.catalog.write_csv(folder / name / "items.csv")
    return folder
