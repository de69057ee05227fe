"""recjax train mamba2_ml1m

Mamba-2 (Dao & Gu 2024) as a next-item model on MovieLens-1M, after Mamba4Rec (Liu et al. 2024): one block, states of 32
numbers a channel, no position embeddings; trained at every position with full cross-entropy, for twenty epochs with a
decaying rate.

Expected:  ndcg@10 0.1720 (test split, leave-one-out, full ranking, history masked)
Time:      22 minutes
Hardware:  1 CPU core
"""

from recjax.config import RunConfig
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Shifted
from recjax.evaluate.protocol import Evaluate
from recjax.models.next_item import NextItem
from recjax.parallel.mesh import MeshShape
from recjax.train.loop import Train
from recjax.train.optimiser import Adam


def config() -> RunConfig:
    length = 200
    return RunConfig(
        name="mamba2_ml1m",
        data=Data("ml-1m", view=Shifted(max_length=length), rows=64),
        model=NextItem(mixer="mamba2(states=32)", width=64, layers=1, dropout=0.2, max_length=length),
        optim=Adam(learning_rate=2e-3, clip=5.0, warmup_steps=100, schedule="cosine", hold=0.4),
        mesh=MeshShape(),
        train=Train(epochs=20, evaluate_every=154, validation_users=2048, ema=0.99),
        evaluate=Evaluate(),
    )


def tiny() -> dict[str, int]:
    return {"model.width": 8, "model.layers": 1, "model.max_length": 12, "data.view.max_length": 12}
