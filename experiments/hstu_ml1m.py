"""recjax train hstu_ml1m

HSTU (Zhai et al., ICML 2024) on MovieLens-1M under full cross-entropy. Their own full-ranking figures are 0.1720, and
0.1893 for 8 blocks with 128 sampled negatives; both know the time of the event to predict, which this model does not.

Expected:  ndcg@10 0.1814 (test split, leave-one-out, full ranking, history masked)
Time:      1 hour 55 minutes of training, most of it on one core shared with other work
Hardware:  2 CPU cores
"""

from recjax.config import RunConfig
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Shifted
from recjax.evaluate.protocol import Evaluate
from recjax.mixers.hstu import HSTU
from recjax.models.next_item import NextItem
from recjax.models.parts.objectives import FullSoftmax
from recjax.parallel.mesh import MeshShape
from recjax.train.loop import Train
from recjax.train.optimiser import Adam


def config() -> RunConfig:
    length = 200
    return RunConfig(
        name="hstu_ml1m",
        # 64 packed rows hold about as many events as 128 users of this dataset.
        data=Data("ml-1m", view=Shifted(max_length=length, times=True), rows=64),
        model=NextItem(
            mixers=(HSTU(heads=2, max_length=length),),
            width=64,
            layers=4,
            inner=0,
            dropout=0.2,
            max_length=length,
            loss=FullSoftmax(),
        ),
        optim=Adam(learning_rate=1e-3, warmup_steps=100, schedule="cosine", hold=0.5),
        mesh=MeshShape(),
        train=Train(epochs=40, evaluate_every=154, validation_users=2048, ema=0.99),
        evaluate=Evaluate(),
    )


def tiny() -> dict[str, int]:
    return {"model.width": 8, "model.layers": 1, "model.max_length": 12, "data.view.max_length": 12}
