"""recjax ablate history_length --seeds 3

How far back is worth looking? Attention and an LRU on MovieLens-1M with the last 50 to 2,000 events of a history (one
user in four has more than 200, the longest has 2,277). All train for as many steps, and a step has as many events.

Expected:  ndcg@10 attention 0.1563 with 50 events, 0.1575 with 200 (one seed;
           tables in experiments/ablations/README.md)
Time:      4 to 7 minutes a cell
Hardware:  2 CPU cores, a cell on each
"""

from recjax.config import RunConfig
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Shifted
from recjax.evaluate.protocol import Evaluate
from recjax.models.next_item import NextItem
from recjax.parallel.mesh import MeshShape
from recjax.train.loop import Train
from recjax.train.optimiser import AdamW

EVENTS = 8_000
"""Positions of a batch."""


def config() -> RunConfig:
    return RunConfig(
        name="history_length",
        data=Data("ml-1m", view=Shifted(max_length=200), rows=EVENTS // 200),
        model=NextItem(mixer="attention(positions=rotary)", width=64, layers=2, heads=2, dropout=0.2, max_length=200),
        optim=AdamW(
            learning_rate=3e-3,
            weight_decay=0.01,
            ssm_rate=0.5,
            clip=5.0,
            warmup_steps=100,
            schedule="cosine",
            hold=0.4,
        ),
        mesh=MeshShape(),
        # Steps, not epochs: histories that are cut short have fewer events to pass over.
        train=Train(steps=650, evaluate_every=130, validation_users=2048, ema=0.99),
        evaluate=Evaluate(),
    )


def tiny() -> dict[str, int]:
    return {"model.width": 8, "model.layers": 1, "model.max_length": 12, "data.view.max_length": 12}


def sweep() -> dict[str, dict[str, str]]:
    return {
        f"{name}-{length}": {
            "model.mixer": mixer,
            "model.max_length": str(length),
            "data.view.max_length": str(length),
            "data.rows": str(EVENTS // length),
        }
        for length in (50, 200, 500, 1_000, 2_000)
        for name, mixer in (("attention", "attention(positions=rotary)"), ("lru", "lru"))
    }
