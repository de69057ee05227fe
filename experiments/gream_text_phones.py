"""recjax train gream_text_phones"""

from typing import Any

from recjax.config import RunConfig
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Shifted
from recjax.data.features.tokens import Tokens
from recjax.evaluate.protocol import Evaluate
from recjax.models.gream_text import GREAMText
from recjax.parallel.mesh import MeshShape
from recjax.text.hashed import Hashed
from recjax.text.space import Channel, TextSpace
from recjax.tokenizers.rq_kmeans import RQKMeans
from recjax.train.loop import Train
from recjax.train.optimiser import AdamW

FITTED = "{title} {categories}"


def config() -> RunConfig:
    return RunConfig(
        name="gream_text_phones",
        data=Data("amazon-phones-2014", view=Shifted(max_length=10), rows=64, pack=False),
        text=TextSpace((Channel(Hashed(256), whiten=False),)),
        tokenizer=RQKMeans(slots=2, clusters=128),
        items={
            "titles": Tokens("{title}", count=12, vocabulary=2048, fitted=FITTED),
            "kinds": Tokens("{categories}", count=8, vocabulary=2048, fitted=FITTED),
        },
        model=GREAMText(),
        optim=AdamW(learning_rate=5e-3, weight_decay=0.01, warmup_steps=50, schedule="cosine"),
        mesh=MeshShape(),
        train=Train(steps=600, evaluate_every=0, validation_users=1000),
        evaluate=Evaluate(),
    )


def tiny() -> dict[str, Any]:
    return {
        "data.view.max_length": 12,
        "tokenizer.clusters": 16,
        "items.titles.count": 4,
        "items.kinds.count": 3,
        "items.titles.vocabulary": 260,
        "items.kinds.vocabulary": 260,
        "model.base.width": 8,
        "model.base.layers": 1,
        "model.base.channels": 4,
        "model.base.inner": 16,
    }
