"""recjax train sasrec_synthetic

SASRec under full cross-entropy on the embedded dataset: a model of item ids, trained on the catalog that it ranks.

Expected:  ndcg@10 0.261 (test split, leave-one-out, full ranking, history masked)
Time:      2 minutes 49 seconds
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
    length = 50
    return RunConfig(
        name="sasrec_synthetic",
        data=Data("synthetic", view=Shifted(max_length=length), rows=32),
        model=SASRec(width=64, layers=2, heads=2, dropout=0.2, max_length=length, loss=FullSoftmax()),
        optim=Adam(learning_rate=4e-3),
        mesh=MeshShape(),
        train=Train(epochs=60, evaluate_every=200, validation_users=1000, ema=0.99),
        evaluate=Evaluate(),
    )


def tiny() -> dict[str, int]:
    return {"model.width": 8, "model.layers": 1, "model.max_length": 12, "data.view.max_length": 12}
