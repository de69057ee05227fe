"""recjax train mender_ml100k

Mender (Paischer et al., 2024), small, on ml-100k: the codes of the next film, generated after what the user wants and
the texts of the films so far. The paper's preferences were written by a language model of 70 billion parameters of
reviews; here they are genres ("Action, Thriller"), wanted or unwanted, of the last five films. Codes are of what users
do, as those of discrec_ml100k, and all prefixes of codes are expanded. The report is of five axes (`Steering`, 300
users); `all` states all five preferences and is the honest figure, `oracle` the one nearest to the target, as the paper
does at test time too. The control, without preferences:

    --set model.preference=none --set model.unwanted=0

Expected:  ndcg@10 0.0486 [0.0292, 0.0689], hr@10 0.0833 under all five preferences, on 300 test users (one seed); by
           the same parameters 0.0762, 0.1400 under the matched one, which has seen the target (+0.0277 +- 0.0185,
           paired), 0.0482, 0.0900 under the last film's, and 0.0459, 0.0867 without any (0.0027 +- 0.0165 less).
           Steering: the target's preference raises it after the history of the user whose target is least alike in
           68 % of the 261 cases that it moves (p 9e-9), and in 51 % of 197 after the most alike (p 0.9). Sentiment:
           the target is among the best ten where its genres are wanted in 17 %, where they are unwanted in none. The
           rate is that of 2e-3, 5e-3 and 1e-2 which was best on 400 validation users (ndcg@10 0.0690, 0.0760, 0.0564);
           the test users had 0.0495, 0.1000 at 2e-3.
           The control has 0.0609 [0.0403, 0.0841], 0.1100: by what a history alone states, preferences gain -0.0123
           +- 0.0180, paired. Given all five, which it never saw, it has 0.0565; trained with unwanted ones alone
           (model.unwanted as it is), 0.0485, 0.0933 without any. On the same users popularity has 0.0409, transition
           counts 0.1010, text_transition 0.0954
Time:      2 minutes, on a core shared with other work; the eight rankings 3 to 9 minutes, at some 2,000 states a user
Hardware:  1 CPU core
"""

from typing import Any

from recjax.config import RunConfig
from recjax.data.batches.derived import Prefixes
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Shifted
from recjax.data.features.behaviour import Behaviour
from recjax.data.features.columns import Codes
from recjax.data.features.texts import Texts
from recjax.evaluate.steering import Steering
from recjax.models.mender import Mender
from recjax.parallel.mesh import MeshShape
from recjax.text.hashed import Hashed
from recjax.text.space import Channel, TextSpace
from recjax.tokenizers.rq_kmeans import RQKMeans
from recjax.train.loop import Train
from recjax.train.optimiser import AdamW


def config() -> RunConfig:
    return RunConfig(
        name="mender_ml100k",
        data=Data("ml-100k", view=Prefixes(Shifted(max_length=10, targets=1)), rows=64, pack=False),
        text=TextSpace((Channel(Hashed(64), whiten=False),)),
        items={
            "behaviour": Behaviour(64),
            "codes": Codes(RQKMeans(slots=3, clusters=32), of="behaviour"),
            "kinds": Texts(Hashed(32, template="{categories}")),
        },
        model=Mender(width=64, layers=2, heads=4, channels=16, inner=256, codes=64, beam=None, unwanted=0.2),
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
        "evaluate.users": 6,
        "model.width": 8,
        "model.layers": 1,
        "model.heads": 2,
        "model.channels": 4,
        "model.inner": 16,
    }
