"""recjax train gream_text_phones

GREAM (Hong et al., 2025) over a language model, small, on Amazon Cell Phones (2014, 5-core): item codes are tokens
beside the words of titles and categories. A network of two layers, from scratch, learns which codes follow a history
(direct); which kind is wanted after the kinds of the last three items, and the codes after that (reasoning, a chain
made by rule); and which codes and titles belong together (alignment, LC-Rec's item to index and index to item). The
catalog is one of 4,878 items with short categories, so that a core learns something in minutes; its histories lack two
random events of each user, so that figures on it compare with each other alone. Controls, and the other way to rank:

    --set model.align=0
    --set model.reason=0
    --set model.mode=reasoning

Blocks of SmolLM2, frozen, with adapters, 16 histories a step:

    recjax train gream_text_phones --set model.weights=SmolLM2-135M-Instruct --set model.base.vocabulary=49152
        --set model.base.width=576 --set model.base.heads=9 --set model.base.kv_heads=3 --set model.base.channels=64
        --set model.base.inner=1536 --set model.base.positions=8192 --set model.base.epsilon=1e-5
        --set model.base.rotation.base=1e5 --set items.titles.folder=SmolLM2-135M-Instruct
        --set items.kinds.folder=SmolLM2-135M-Instruct --set model.scale=7 --set data.rows=16
        --set optim.learning_rate=3e-3

Expected:  ndcg@10 0.0278 [0.0257, 0.0303], hr@10 0.0538 on 11,652 test users (one seed); without alignment 0.0296,
           0.0019 [0.0001, 0.0036] more, paired over users: alignment costs popular items (0.0582 for 0.0647) and gains
           rare ones (0.0030 for 0.0011, +- 0.0008), and its lists hold 15 % of the catalog, not 7 %. By the same
           parameters after a reasoning 0.0138, 0.0140 [0.0116, 0.0165] less: one kind, the likeliest, is held to. But
           learning chains helps the direct mode: 0.0215 without, 0.0063 [0.0044, 0.0081] less. Popularity has 0.0154,
           text_knn 0.0234, transition counts 0.0362, text_transition 0.0449. The rate was that of 5e-3 and 1e-2 which
           was better on 2,000 validation users after 150 steps (0.0186, 0.0212; kinds had six words in the first). By
           two blocks of SmolLM2 nothing yet after 60 steps (8 minutes; optim.warmup_steps=5): 0.0024 on 300 validation
           users (from scratch, as many steps of as many histories, 0.0010; with model.scale=1 0.0000), and 3.29 nats a
           code (3.50; 3.51)
Time:      7 minutes (2 of its own time), ranking 1 to 2 minutes
Hardware:  1 core of an AMD EPYC that other work shared
"""

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

FITTED = ("{title} {categories}",)


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
        optim=AdamW(learning_rate=1e-2, weight_decay=0.01, warmup_steps=50, schedule="cosine"),
        mesh=MeshShape(),
        train=Train(steps=400, evaluate_every=0),
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
