"""recjax train insertion_ml1m"""

from recjax.config import RunConfig
from recjax.data.batches.insertions import Insertions
from recjax.data.batches.loader import Data
from recjax.data.splits import ByUser
from recjax.evaluate.infilling import Infilling
from recjax.evaluate.protocol import Evaluate
from recjax.models.insertion import Insertion
from recjax.parallel.mesh import MeshShape
from recjax.train.loop import Train
from recjax.train.optimiser import AdamW


def config() -> RunConfig:
    length = 51
    return RunConfig(
        name="insertion_ml1m",
        data=Data("ml-1m", view=Insertions(max_length=length), split=ByUser(), rows=32),
        model=Insertion(width=64, layers=2, heads=2, inner=128, dropout=0.1, max_length=length),
        optim=AdamW(learning_rate=3e-3, weight_decay=0.01, clip=5.0, warmup_steps=100, schedule="cosine", hold=0.5),
        mesh=MeshShape(),
        train=Train(steps=1000, evaluate_every=250, validation_users=None, ema=0.99),
        evaluate=(Infilling(), Evaluate()),
    )


def tiny() -> dict[str, int]:
    return {"model.width": 8, "model.layers": 1, "model.max_length": 12, "data.view.max_length": 12, "model.inner": 16}
