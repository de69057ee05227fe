"""A small run of a real model on an embedded dataset, and the datasets that it needs."""

import os
from pathlib import Path
from typing import Any

from recjax.config import RunConfig
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Shifted
from recjax.data.embedded.synthetic import synthetic
from recjax.evaluate.protocol import Evaluate
from recjax.models.sasrec import SASRec
from recjax.parallel.mesh import MeshShape
from recjax.train.loop import Train
from recjax.train.optimiser import AdamW


def write_datasets(root: Path) -> dict[str, str]:
    """Writes datasets `small` and `other`; the environment in which they are found."""
    for seed, name in enumerate(("small", "other")):
        raw = synthetic(users=80, items=100, seed=seed)
        (root / name).mkdir()
        raw.interactions.write_csv(root / name / "interactions.csv")
        raw.catalog.write_csv(root / name / "items.csv")
    return {"RECJAX_DATA": str(root), "RECJAX_CACHE": f"{root}{os.sep}cache"}


def real_config(**train: Any) -> RunConfig:
    """Nine steps of SASRec."""
    settings = {"steps": 9, "evaluate_every": 3, "validation_users": 40, "log_every": 3, "ema": 0.5, "keep": 5, **train}
    return RunConfig(
        name="small",
        data=Data("small", view=Shifted(max_length=12), rows=16),
        model=SASRec(width=8, layers=1, max_length=12),
        optim=AdamW(learning_rate=0.01),
        mesh=MeshShape(),
        train=Train(**settings),
        evaluate=Evaluate(users_per_batch=16),
    )
