"""recjax ablate quick_encoders

Attention against state spaces in three minutes: next-item models of one width on ml-100k, one block of each kind. It
shows what an ablation gives: none differs from attention in 200 steps, and all are below the transition floor. Longer,
and of equal size: `encoders_ml1m` and `encoders_beauty`.

Expected:  ndcg@10 attention 0.0885, lru 0.0872, rg-lru 0.0886, s5 0.0888 (floor transition 0.1063)
Time:      3 minutes on idle cores: 4.6 minutes of processor time, measured beside other work
Hardware:  2 CPU cores
"""

from recjax.config import RunConfig
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Shifted
from recjax.evaluate.protocol import Evaluate
from recjax.models.next_item import NextItem
from recjax.models.parts.objectives import FullSoftmax
from recjax.parallel.mesh import MeshShape
from recjax.train.loop import Train
from recjax.train.optimiser import AdamW

ENCODERS = {"attention": "attention(positions=rotary)", "lru": "lru", "rg-lru": "rg_lru", "s5": "s5"}


def config() -> RunConfig:
    length = 100
    return RunConfig(
        name="quick_encoders",
        data=Data("ml-100k", view=Shifted(max_length=length), rows=32),
        model=NextItem(width=64, layers=1, heads=2, dropout=0.2, max_length=length, loss=FullSoftmax()),
        optim=AdamW(learning_rate=3e-3, weight_decay=0.01, ssm_rate=0.5, clip=1.0, warmup_steps=20, schedule="cosine"),
        mesh=MeshShape(),
        train=Train(steps=200, evaluate_every=50),
        evaluate=Evaluate(),
    )


def tiny() -> dict[str, int]:
    return {"model.width": 8, "model.max_length": 12, "data.view.max_length": 12}


def sweep() -> dict[str, dict[str, str]]:
    return {name: {"model.mixer": pattern} for name, pattern in ENCODERS.items()}
