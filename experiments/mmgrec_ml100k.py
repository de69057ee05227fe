"""recjax train mmgrec_ml100k

MMGRec (Liu et al., 2024), small, on ml-100k without order: random shares of each user's events, 8:1:1, all items
ranked, several targets. GraphSAGE over the training events makes a vector of each film, of its title and its genres
(two modalities); three codes of 64 quantise it, the fourth is its rank by popularity among those of equal codes. The
encoder reads the vectors of 32 films of a user as a set, and 16 others are generated from it. The controls, plain
attention, and codes of titles and genres without the graph (the encoder reads the graph's vectors still):

    --set model.user_term=false
    --set items.codes.of=vectors

Not the paper's: see `MMGRec`; 64 -> 32 -> 16 for its 64 -> 16 -> 4 in the quantiser, whose width was not measured; a
trie, so that no tuple of no item is generated; AdamW for SGD. The published figures (recall@10 0.1269, ndcg@10 0.0802)
are on a sample of other films.

Expected:  ndcg@10 0.1751 [0.1626, 0.1883], recall@10 0.1520, hr@10 0.6193 on 943 test users (one seed). Plain attention
           has 0.1751: the user term gains -0.0000 [-0.0022, 0.0021], paired over users, nothing to be seen. Codes of
           texts have 0.1261: the graph gains 0.0490 [0.0380, 0.0601]. Popularity has 0.1360, transition counts 0.0831,
           and lightgcn_ml100k 0.2436, which is 0.0685 [0.0560, 0.0809] more: above popularity, far below a product of
           two vectors
Time:      18 minutes with 5 for the graph, beside four other trainings (a step takes 0.5 s of a core); ranking 35 s
Hardware:  one core of an AMD EPYC that other work shared
"""

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
