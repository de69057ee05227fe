"""recjax train sasrec_sports

SASRec under sampled softmax on Amazon Sports and Outdoors (2014, 5-core): one block and 256 uniform negatives, as the
SASRec baseline of eSASRec (RecSys 2025) has it, whose figure is 0.0314, but more dropout.

Expected:  ndcg@10 0.0312 (test split, leave-one-out, full ranking, history masked)
Time:      14 minutes beside other work
Hardware:  2 CPU cores
"""

from recjax.config import RunConfig
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Shifted
from recjax.evaluate.protocol import Evaluate
from recjax.models.parts.objectives import SampledSoftmax
from recjax.models.sasrec import SASRec
from recjax.parallel.mesh import MeshShape
from recjax.train.loop import Train
from recjax.train.optimiser import Adam


def config() -> RunConfig:
    length = 50
    return RunConfig(
        name="sasrec_sports",
        # A packed row of 50 positions holds about eight users.
        data=Data("amazon-sports-2014", view=Shifted(max_length=length), rows=128),
        model=SASRec(width=256, layers=1, heads=1, dropout=0.4, max_length=length, loss=SampledSoftmax(negatives=256)),
        optim=Adam(learning_rate=1e-3),
        mesh=MeshShape(),
        train=Train(epochs=60, evaluate_every=64, patience=4),
        evaluate=Evaluate(),
    )


def tiny() -> dict[str, int]:
    return {"model.width": 8, "model.layers": 1, "model.max_length": 12, "data.view.max_length": 12}
