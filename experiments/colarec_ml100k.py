"""recjax train colarec_ml100k

ColaRec (Wang et al., CIKM 2024), small, on ml-100k without order: random shares of each user's events, 8:1:1, all items
ranked, several targets. Codes are of what users do (12 balanced clusters of vectors of behaviour, 12 in each of these,
and a number), the encoder reads the same vectors and the first six words of titles and genres. The controls:

    --set model.index=0
    --set model.contrast=0
    --set model.ranking=0
    --set model.atomic=false

The published figures are on Amazon Cell Phones, and on other shares.

Expected:  not run to its end: ndcg@10 0.0693 [0.0628, 0.0765], recall@10 0.0677, hr@10 0.3669 on 943 test users after
           120 steps (--set train.steps=120, one seed); popularity has 0.1360, transition counts 0.0831. The controls
           were not run
Time:      3 minutes for 120 steps, ranking 3 minutes, on a core shared with other work
Hardware:  1 CPU core
"""

from typing import Any

from recjax.config import RunConfig
from recjax.data.batches.derived import Windows
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Cloze
from recjax.data.features.behaviour import Behaviour
from recjax.data.features.columns import Codes, Words
from recjax.data.target_sets import RandomSplit
from recjax.evaluate.rank_sets import RankSets
from recjax.models.colarec import ColaRec
from recjax.parallel.mesh import MeshShape
from recjax.tokenizers.hierarchical import HierarchicalKMeans
from recjax.train.loop import Train
from recjax.train.optimiser import AdamW


def config() -> RunConfig:
    one = Cloze(max_length=11, mask_prob=1e-6, last_copy=False)
    return RunConfig(
        name="colarec_ml100k",
        data=Data("ml-100k", split=RandomSplit(), view=Windows(one, length=11, step=5), rows=64, pack=False),
        items={
            "behaviour": Behaviour(64),
            "words": Words("{title} {categories}", count=6, vocabulary=4000),
            "codes": Codes(HierarchicalKMeans(slots=2, clusters=12), of="behaviour"),
        },
        model=ColaRec(width=64, layers=2, heads=4, channels=16, inner=256, codes=64, beam=20),
        optim=AdamW(learning_rate=2e-3, weight_decay=0.01, warmup_steps=50, schedule="cosine"),
        mesh=MeshShape(),
        train=Train(steps=400, evaluate_every=0),
        evaluate=RankSets(mask_seen="history"),
    )


def tiny() -> dict[str, Any]:
    return {
        "data.view.view.max_length": 6,
        "data.view.length": 6,
        "items.behaviour.width": 8,
        "items.words.count": 3,
        "items.codes.tokenizer.clusters": 4,
        "model.width": 8,
        "model.layers": 1,
        "model.heads": 2,
        "model.channels": 4,
        "model.inner": 16,
    }
