"""recjax train sasrec_ml1m

SASRec under full cross-entropy on MovieLens-1M: the recipe of "Turning Dross Into Gold Loss" (Klenitskiy & Vasilev,
RecSys 2023), whose own figure is 0.1821.

Expected:  ndcg@10 0.1752 (test split, leave-one-out, full ranking, history masked)
Time:      1 h 43 for 74 epochs, on cores shared with other work
Hardware:  2 CPU cores
"""

from recjax.config import RunConfig
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Shifted
from recjax.evaluate.protocol import Evaluate
from recjax.models.parts.objectives import FullSoftmax
from recjax.models.sasrec import SASRec
from recjax.parallel.mesh import MeshShape
from recjax.train.loop import Train
from recjax.train.optimiser import Adam


def config() -> RunConfig:
    length = 200
    return RunConfig(
        name="sasrec_ml1m",
        # 64 packed rows hold about as many events as 128 users of this dataset.
        data=Data("ml-1m", view=Shifted(max_length=length), rows=64),
        model=SASRec(width=64, layers=2, heads=1, dropout=0.1, max_length=length, loss=FullSoftmax()),
        optim=Adam(learning_rate=1e-3),
        mesh=MeshShape(),
        train=Train(epochs=100, patience=10),
        evaluate=Evaluate(),
    )


def tiny() -> dict[str, int]:
    return {"model.width": 8, "model.layers": 1, "model.max_length": 12, "data.view.max_length": 12}
