"""recjax train lightnet_ml1m

LightNet ("You Only Scan Once", Qin et al. 2024) as a next-item model on MovieLens-1M: a softmax over the past for every
channel of the keys, relative positions, full cross-entropy, for twenty epochs with a decaying rate. Keys are
normalised, without which a stack of such mixers alone is hard to train.

Expected:  not run; in eight passes, of attention's size, 0.1533 (experiments/ablations)
Time:      not measured
Hardware:  2 CPU cores
"""

from recjax.config import RunConfig
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Shifted
from recjax.evaluate.protocol import Evaluate
from recjax.models.next_item import NextItem
from recjax.parallel.mesh import MeshShape
from recjax.train.loop import Train
from recjax.train.optimiser import Adam


def config() -> RunConfig:
    length = 200
    return RunConfig(
        name="lightnet_ml1m",
        data=Data("ml-1m", view=Shifted(max_length=length), rows=64),
        model=NextItem(mixer="lightnet(key_norm=true)", width=64, layers=2, heads=2, dropout=0.2, max_length=length),
        optim=Adam(learning_rate=2e-3, clip=5.0, warmup_steps=100, schedule="cosine", hold=0.4),
        mesh=MeshShape(),
        train=Train(epochs=20, evaluate_every=154, validation_users=2048, ema=0.99),
        evaluate=Evaluate(),
    )


def tiny() -> dict[str, int]:
    return {"model.width": 8, "model.layers": 1, "model.max_length": 12, "data.view.max_length": 12}
