"""recjax train reg4rec_ml100k

REG4Rec (Xing et al., 2025), small, on ml-100k: items of four codes without an order, of parallel experts over vectors
of what users do, and a decoder that takes the code next of which it is surest. There is no official code, so all but
the quantiser is this library's. The order is the search's alone, so these controls train the same parameters:

    --set model.order=fixed
    --set model.order=random

The paper's tuning by rewards is not here (`recjax.ops.policy` has its advantages), and `model.agree`, which drops paths
whose codes do not agree, was not measured.

Expected:  ndcg@10 0.0419 [0.0324, 0.0518], hr@10 0.0880 on 943 test users (one seed); 0.0402 [0.0316, 0.0495], 0.0870
           in a fixed order, 0.0404 [0.0311, 0.0496], 0.0827 in a random one: +0.0017 +- 0.0043 and +0.0015 +- 0.0048,
           paired, not shown to differ. Paths end at 36 % of the targets, 25 % in a fixed order, 27 % in a random one.
           Popularity has 0.0449, transition counts 0.1063, text_transition 0.1032, discrec_ml100k 0.0664 by codes with
           an order
Time:      3 minutes, on a core shared with other work; ranking 4 minutes
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
from recjax.models.reg4rec import REG4Rec
from recjax.parallel.mesh import MeshShape
from recjax.tokenizers.mpq import MPQ
from recjax.train.loop import Train
from recjax.train.optimiser import AdamW


def config() -> RunConfig:
    quantiser = MPQ(slots=4, clusters=64, hidden=64, width=16, steps=300, batch=512)
    return RunConfig(
        name="reg4rec_ml100k",
        data=Data("ml-100k", view=Prefixes(Shifted(max_length=10, targets=1)), rows=64, pack=False),
        items={"behaviour": Behaviour(64), "codes": Codes(quantiser, of="behaviour")},
        model=REG4Rec(width=64, layers=2, heads=4, channels=16, inner=256, codes=64, beam=20),
        optim=AdamW(learning_rate=2e-3, weight_decay=0.01, warmup_steps=50, schedule="cosine"),
        mesh=MeshShape(),
        train=Train(steps=600, evaluate_every=0),
        evaluate=Evaluate(),
    )


def tiny() -> dict[str, Any]:
    return {
        "data.view.view.max_length": 12,
        "items.behaviour.width": 8,
        "items.codes.tokenizer.clusters": 8,
        "items.codes.tokenizer.steps": 3,
        "model.width": 8,
        "model.layers": 1,
        "model.heads": 2,
        "model.channels": 4,
        "model.inner": 16,
    }
