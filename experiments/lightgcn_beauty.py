"""recjax train lightgcn_beauty

LightGCN (He et al., SIGIR 2020) on Amazon Beauty (2014, 5-core), over the graph of items that the same users had: what
behaviour says where the order of events is left out. A user is the mean of the items so far, so it is an encoder beside
SASRec and a source of vectors of behaviour for LETTER and SETRec. The control, without the graph:

    --set model.layers=0

Expected:  not run to its end: ndcg@10 0.0231 [0.0216, 0.0246], hr@10 0.0459 after 500 steps (--set train.epochs=none
           --set train.steps=500), the control 0.0225, which is not shown to differ: -0.0006 [-0.0018, 0.0007], one
           seed
Time:      2 minutes for those
Hardware:  1 CPU core (AMD EPYC)
"""

from recjax.config import RunConfig
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Shifted
from recjax.data.features.relations import CoOccurrence
from recjax.evaluate.protocol import Evaluate
from recjax.models.lightgcn import LightGCN
from recjax.parallel.mesh import MeshShape
from recjax.train.loop import Train
from recjax.train.optimiser import Adam


def config() -> RunConfig:
    return RunConfig(
        name="lightgcn_beauty",
        data=Data("amazon-beauty-2014", view=Shifted(max_length=50), rows=64),
        items={"together": CoOccurrence(count=20)},
        model=LightGCN(width=64, layers=3),
        optim=Adam(learning_rate=5e-3),
        mesh=MeshShape(),
        train=Train(epochs=60, evaluate_every=200, validation_users=2000, patience=4),
        evaluate=Evaluate(),
    )


def tiny() -> dict[str, int]:
    return {"model.width": 8, "model.layers": 1, "data.view.max_length": 12}
