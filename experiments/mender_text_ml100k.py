"""recjax train mender_text_ml100k
"""

from dataclasses import replace
from typing import Any

from recjax.config import RunConfig
from recjax.data.batches.derived import Prefixes
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Shifted
from recjax.data.features.behaviour import Behaviour
from recjax.data.features.columns import Codes
from recjax.data.features.texts import Texts
from recjax.data.features.tokens import Tokens
from recjax.evaluate.steering import Steering
from recjax.models.mender_text import TEXTS, MenderText
from recjax.models.slmrec import SMALL
from recjax.parallel.mesh import MeshShape
from recjax.text.hashed import Hashed
from recjax.tokenizers.rq_kmeans import RQKMeans
from recjax.train.loop import Train
from recjax.train.optimiser import AdamW


def config() -> RunConfig:
    return RunConfig(
        name="mender_text_ml100k",
        data=Data("ml-100k", view=Prefixes(Shifted(max_length=10, targets=1)), rows=64, pack=False),
        items={
            "behaviour": Behaviour(64),
            "codes": Codes(RQKMeans(slots=3, clusters=32), of="behaviour"),
            "kinds": Texts(Hashed(32, template="{categories}")),
            "words": Tokens(TEXTS[0], count=10, end="\n", others=TEXTS[1:]),
        },
        model=MenderText(
            width=64,
            layers=2,
            heads=4,
            channels=16,
            inner=256,
            codes=64,
            beam=None,
            unwanted=0.2,
            room=64,
            base=replace(SMALL, heads=4, kv_heads=4, channels=16),
        ),
        optim=AdamW(learning_rate=5e-3, weight_decay=0.01, warmup_steps=50, schedule="cosine"),
        mesh=MeshShape(),
        train=Train(steps=600, evaluate_every=0),
        evaluate=Steering(users=300, users_per_batch=64),
    )


def tiny() -> dict[str, Any]:
    return {
        "data.view.view.max_length": 12,
        "items.behaviour.width": 8,
        "items.codes.tokenizer.clusters": 8,
        "items.kinds.encoder.width": 8,
        "items.words.count": 4,
        "items.words.vocabulary": 300,
        "evaluate.users": 6,
        "model.base": replace(SMALL, width=8, layers=1, channels=4, inner=16),
        "model.room": 8,
        "model.width": 8,
        "model.layers": 1,
        "model.heads": 2,
        "model.channels": 4,
        "model.inner": 16,
    }
