"""recjax ablate norm_placement --seeds 3

Where should a transformer recommender normalise: before each part (pre), after it (post), or as SASRec's authors
did (sasrec)? Everything else is the same, down to the parameters but two vectors.

Expected:  ndcg@10 pre 0.2133 [0.2101, 0.2166], post 0.2166 [0.2144, 0.2188] (3 seeds each), sasrec 0.2123 (2 seeds); no
           difference shown (Holm: p = 0.07 and 0.5). Validation is above 0.205 from step 150 on with post and sasrec,
           from step 300 on with pre
Time:      51 minutes for eight of the nine runs, beside much other work
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
        name="norm_placement",
        data=Data("synthetic", view=Shifted(max_length=length, align="left"), rows=32),
        model=SASRec(width=64, layers=2, heads=2, dropout=0.2, max_length=length, loss=FullSoftmax()),
        optim=Adam(learning_rate=4e-3),
        mesh=MeshShape(),
        train=Train(steps=400, evaluate_every=50, validation_users=1000, ema=0.98),
        evaluate=Evaluate(),
    )


def tiny() -> dict[str, int]:
    return {"model.width": 8, "model.layers": 1, "model.max_length": 12, "data.view.max_length": 12}


def sweep() -> dict[str, dict[str, str]]:
    return {name: {"model.norm": name} for name in ("pre", "post", "sasrec")}
