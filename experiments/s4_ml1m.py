"""recjax train s4_ml1m

S4 in place of attention on MovieLens-1M: data, objective and width of `sasrec_ml1m`, for twenty epochs with a decaying
rate. `--set model.mixer=s4d` runs the diagonal one. A state space cannot keep the histories of a
row apart, so each has a row of its own.

Expected:  ndcg@10 0.1680 (test split, leave-one-out, full ranking, history masked)
Time:      17 minutes
Hardware:  1 CPU core
"""

from recjax.config import RunConfig
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Shifted
from recjax.evaluate.protocol import Evaluate
from recjax.models.next_item import NextItem
from recjax.models.parts.objectives import FullSoftmax
from recjax.parallel.mesh import MeshShape
from recjax.train.loop import Train
from recjax.train.optimiser import Adam


def config() -> RunConfig:
    length = 200
    return RunConfig(
        name="s4_ml1m",
        # As many users a step as the 64 packed rows of `sasrec_ml1m`.
        data=Data("ml-1m", view=Shifted(max_length=length), rows=128, pack=False),
        model=NextItem(mixer="s4", width=64, layers=2, dropout=0.1, max_length=length, loss=FullSoftmax()),
        # State spaces are published with rates of at most 1e-3.
        optim=Adam(learning_rate=2e-3, ssm_rate=0.5, clip=5.0, warmup_steps=100, schedule="cosine", hold=0.4),
        mesh=MeshShape(),
        train=Train(epochs=20, evaluate_every=154, validation_users=2048, ema=0.99),
        evaluate=Evaluate(),
    )


def tiny() -> dict[str, int]:
    return {"model.width": 8, "model.layers": 1, "model.max_length": 12, "data.view.max_length": 12}
