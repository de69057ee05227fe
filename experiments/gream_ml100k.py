"""recjax train gream_ml100k

GREAM's policy step (Hong et al., 2025) on item codes alone, on ml-100k: a small TIGER, trained for 600 steps, is tuned
for 60 by rewards of ten items that it draws itself (SRPO): the square root of the share of right codes, and the
advantage of pass@4. The paper tunes a language model of 4 billion parameters that reasons in text before it writes an
item's codes. The controls:

    --set model.passes=false --set model.prefixes=false     GRPO with a reward for the target alone
    --set model.passes=false

Expected:  ndcg@10 0.0577 [0.0470, 0.0696], hr@10 0.1113 on 943 test users (one seed), 0.0034 +- 0.0075 below the TIGER
           that it starts from (0.0611); GRPO with a reward for the target alone 0.0621, +0.0010 +- 0.0077: neither is
           shown to change anything in 60 steps, and SRPO is 0.0044 +- 0.0072 below GRPO. The mean reward of its own
           samples rises from 0.151 to 0.174 in the meantime, the divergence to 0.23 nats an item. Transition counts
           have 0.1063; TIGER at a rate of 1e-2 on packed windows 0.0829 (discrec_ml100k), from which it was not tuned
Time:      4 minutes after its first stage, on a core shared with other work
Hardware:  1 CPU core
"""

from typing import Any

from recjax.config import RunConfig
from recjax.data.batches.derived import Prefixes
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Shifted
from recjax.data.features.behaviour import Behaviour
from recjax.data.features.columns import Codes
from recjax.evaluate.protocol import Evaluate
from recjax.models.gream import GREAM
from recjax.models.tiger import TIGER
from recjax.parallel.mesh import MeshShape
from recjax.tokenizers.rq_kmeans import RQKMeans
from recjax.train.loop import Train
from recjax.train.optimiser import AdamW
from recjax.train.stages import Stage

NETWORK: dict[str, Any] = dict(width=64, layers=2, heads=4, channels=16, inner=256, codes=64, beam=20)


def config() -> RunConfig:
    supervised = {
        "model": TIGER(**NETWORK),
        "train.steps": 600,
        "optim": AdamW(learning_rate=2e-3, weight_decay=0.01, warmup_steps=50, schedule="cosine"),
    }
    return RunConfig(
        name="gream_ml100k",
        data=Data("ml-100k", view=Prefixes(Shifted(max_length=10, targets=1)), rows=64, pack=False),
        items={"behaviour": Behaviour(64), "codes": Codes(RQKMeans(slots=3, clusters=32), of="behaviour")},
        model=GREAM(**NETWORK, dropout=0.0, tries=3),
        optim=AdamW(learning_rate=1e-4, weight_decay=0.0, warmup_steps=5),
        mesh=MeshShape(),
        train=Train(
            steps=60, evaluate_every=0, stages=(Stage("supervised", supervised),), take=("^(?!frozen)",), log_every=10
        ),
        evaluate=Evaluate(),
    )


def tiny() -> dict[str, Any]:
    return {
        "train.stages": (),
        "train.take": (),
        "data.view.view.max_length": 12,
        "items.behaviour.width": 8,
        "items.codes.tokenizer.clusters": 8,
        "model.samples": 4,
        "model.width": 8,
        "model.layers": 1,
        "model.heads": 2,
        "model.channels": 4,
        "model.inner": 16,
    }
