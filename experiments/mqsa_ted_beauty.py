"""recjax train mqsa_ted_beauty

MQSA-TED on Amazon Beauty (2014, 5-core): SASRec with a second encoder that asks with the mean of the last three inputs,
and item vectors that are taught what users had next after the most frequent fifth of the items. The paper's settings,
but that the teacher teaches four targets of each row and step.

Expected:  not run to its end; in 104 of 5,200 steps the loss falls from 10.3 to 9.6
Time:      not measured
Hardware:  1 CPU core
"""

from recjax.config import RunConfig
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Shifted
from recjax.data.features.relations import Transitions
from recjax.evaluate.protocol import Evaluate
from recjax.models.mqsa_ted import MQSATED
from recjax.parallel.mesh import MeshShape
from recjax.train.loop import Train
from recjax.train.optimiser import Adam


def config() -> RunConfig:
    length = 50
    return RunConfig(
        name="mqsa_ted_beauty",
        # 32 packed rows of 50 positions hold about 256 users, the paper's batch.
        data=Data("amazon-beauty-2014", view=Shifted(max_length=length), rows=32),
        items={"next": Transitions(count=100, gaps=(1.0,))},
        model=MQSATED(width=64, layers=1, heads=1, dropout=0.5, max_length=length, alpha=0.5, window=3, weight=0.1),
        optim=Adam(learning_rate=1e-3),
        mesh=MeshShape(),
        train=Train(epochs=60, evaluate_every=170, validation_users=5000, patience=6),
        evaluate=Evaluate(),
    )


def tiny() -> dict[str, int]:
    return {"model.width": 8, "model.max_length": 12, "data.view.max_length": 12, "items.next.count": 4}
