"""recjax train gsasrec_ml1m

gSASRec on MovieLens-1M: 256 negatives, gBCE with t = 0.75, an untied output table (Petrov & Macdonald, RecSys 2023),
whose own figure is 0.1726.

Expected:  ndcg@10 0.1617 (test split, leave-one-out, full ranking, history masked)
Time:      1 hour 45 minutes beside other work
Hardware:  2 CPU cores
"""

from recjax.config import RunConfig
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Shifted
from recjax.evaluate.protocol import Evaluate
from recjax.models.gsasrec import GSASRec
from recjax.models.parts.objectives import GBCE
from recjax.parallel.mesh import MeshShape
from recjax.train.loop import Train
from recjax.train.optimiser import Adam


def config() -> RunConfig:
    length = 200
    return RunConfig(
        name="gsasrec_ml1m",
        # 64 packed rows hold about as many events as 128 users of this dataset.
        data=Data("ml-1m", view=Shifted(max_length=length), rows=64),
        model=GSASRec(width=128, layers=2, heads=1, dropout=0.5, max_length=length, loss=GBCE(negatives=256, t=0.75)),
        optim=Adam(learning_rate=1e-3, schedule="cosine", hold=0.73),
        mesh=MeshShape(),
        train=Train(epochs=150, evaluate_every=154, validation_users=2048, ema=0.995),
        evaluate=Evaluate(),
    )


def tiny() -> dict[str, int]:
    return {"model.width": 8, "model.layers": 1, "model.max_length": 12, "data.view.max_length": 12}
