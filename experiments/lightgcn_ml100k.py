"""recjax train lightgcn_ml100k

LightGCN (He et al., SIGIR 2020) on ml-100k without order, as its paper has it: random shares of each user's events,
8:1:1, all items ranked, several targets. The yardstick of colarec_ml100k and mmgrec_ml100k, which generate codes on the
same split. The control, without the graph:

    --set model.layers=0

Expected:  ndcg@10 0.2436 [0.2299, 0.2572], recall@10 0.2193, hr@10 0.7413 on 943 test users (one seed; validation was
           still rising at the last of the 60 epochs); popularity has 0.1360, transition counts 0.0831. The control was
           not run
Time:      31 s, ranking 4 s
Hardware:  one core of an AMD EPYC that other work shared
"""

from recjax.config import RunConfig
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Shifted
from recjax.data.features.relations import CoOccurrence
from recjax.data.target_sets import RandomSplit
from recjax.evaluate.rank_sets import RankSets
from recjax.models.lightgcn import LightGCN
from recjax.parallel.mesh import MeshShape
from recjax.train.loop import Train
from recjax.train.optimiser import Adam


def config() -> RunConfig:
    return RunConfig(
        name="lightgcn_ml100k",
        data=Data("ml-100k", split=RandomSplit(), view=Shifted(max_length=200), rows=32),
        items={"together": CoOccurrence(count=20)},
        model=LightGCN(width=64, layers=3),
        optim=Adam(learning_rate=5e-3),
        mesh=MeshShape(),
        train=Train(epochs=60, evaluate_every=100, validation_users=943, patience=4),
        evaluate=RankSets(mask_seen="history"),
    )


def tiny() -> dict[str, int]:
    return {"model.width": 8, "model.layers": 1, "data.view.max_length": 12}
