"""recjax train mmgrec_ml100k"""

from typing import Any

from recjax.config import RunConfig
from recjax.data.batches.derived import Shuffled, Windows
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Cloze
from recjax.data.features.columns import Codes
from recjax.data.features.graph import GraphVectors
from recjax.data.target_sets import RandomSplit
from recjax.evaluate.rank_sets import RankSets
from recjax.models.mmgrec import MMGRec
from recjax.parallel.mesh import MeshShape
from recjax.text.hashed import Hashed
from recjax.text.space import Channel, TextSpace
from recjax.tokenizers.rq_vae import RQVAE
from recjax.train.loop import Train
from recjax.train.optimiser import AdamW


def config() -> RunConfig:
    some = Cloze(max_length=48, mask_prob=0.33, last_copy=False)
    quantiser = RQVAE(slots=3, clusters=64, hidden=(32,), width=16, prepare="standardise", steps=600, batch=512)
    return RunConfig(
        name="mmgrec_ml100k",
        data=Data(
            "ml-100k", split=RandomSplit(), view=Shuffled(Windows(some, length=48, step=24)), rows=64, pack=False
        ),
        text=TextSpace(tuple(Channel(Hashed(64, template=part), whiten=False) for part in ("{title}", "{categories}"))),
        items={
            "graph": GraphVectors(hidden=128, width=64),
            "codes": Codes(quantiser, of="graph", popular=True),
        },
        model=MMGRec(width=64, layers=2, heads=4, channels=16, inner=256, codes=64, beam=20),
        optim=AdamW(learning_rate=2e-3, weight_decay=0.01, warmup_steps=50, schedule="cosine"),
        mesh=MeshShape(),
        train=Train(steps=400, evaluate_every=0),
        evaluate=RankSets(mask_seen="history"),
    )


def tiny() -> dict[str, Any]:
    return {
        "data.view.view.view.max_length": 12,
        "data.view.view.length": 12,
        "data.view.view.step": 6,
        "items.graph.hidden": 8,
        "items.graph.width": 8,
        "items.graph.steps": 2,
        "items.codes.tokenizer.clusters": 16,
        "items.codes.tokenizer.steps": 3,
        "model.width": 8,
        "model.layers": 1,
        "model.heads": 2,
        "model.channels": 4,
        "model.inner": 16,
    }
