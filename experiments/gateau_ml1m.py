"""recjax train gateau_ml1m

GATEAU (Si et al., EMNLP Findings 2025), its first half, on MovieLens-1M: SASRec whose loss weighs a history by how much
better the model itself predicts its events from 200 earlier ones than from the last five. The controls:

    --set model.first=1000        all weigh alike
    --set model.select=top        only the half of the histories that need their length most
    --set model.select=longest    only the longest half
    --set model.select=random     only half of them, whichever

Expected:  not run to its end on ml-1m. On ml-100k after 150 steps, one seed (test split, leave-one-out, full ranking,
           history masked), the weights are not shown to help: ndcg@10 0.0679 against 0.0670, +0.0009 [-0.0007, 0.0024]
           (p = 0.29). The floor of transitions is 0.1063. There `--set data.dataset=ml-100k --set
           data.view.view.max_length=100 --set model.max_length=100 --set data.rows=16 --set model.width=32 --set
           model.first=1 --set train.epochs=none --set train.steps=150 --set train.evaluate_every=0 --set
           train.ema=none` (commit b5d2a363)
Time:      11 minutes for the 150 steps on a core shared with much other work (64 s of CPU, compiling included); the
           whole not measured
Hardware:  1 CPU core
"""

from recjax.config import RunConfig
from recjax.data.batches.derived import Numbered
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Shifted
from recjax.evaluate.protocol import Evaluate
from recjax.models.gateau import GATEAU
from recjax.parallel.mesh import MeshShape
from recjax.train.loop import Train
from recjax.train.optimiser import Adam


def config() -> RunConfig:
    length = 200
    return RunConfig(
        name="gateau_ml1m",
        data=Data("ml-1m", view=Numbered(Shifted(max_length=length)), rows=32),
        model=GATEAU(
            mixer="attention(positions=rotary)", width=64, layers=2, heads=2, dropout=0.2, max_length=length, room=8192
        ),
        optim=Adam(learning_rate=3e-3),
        mesh=MeshShape(),
        train=Train(epochs=16, validation_users=2048, ema=0.99),
        evaluate=Evaluate(),
    )


def tiny() -> dict[str, int]:
    short = {"model.width": 8, "model.layers": 1, "model.max_length": 12, "data.view.view.max_length": 12}
    return {**short, "model.first": 0}
