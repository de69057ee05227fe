"""recjax train interval_llm_ml100k

IntervalLLM on ml-100k, small and from scratch: three vectors an event, of its item, of the time since the event before,
and of attention whose queries are such times; the answer is one of 20 options. Blocks of a language model's folder come
by `--set model.weights=FOLDER`, with its sizes in `model.base`. The controls:

    --set model.gap=none --set model.attention=false    (no times)
    --set model.attention=false                         (no attention by times)

Expected:  hr@1 of 20 options 0.4115 [0.3807, 0.4412] on the test split (943 users, one seed);
           0.4146 [0.3828, 0.4443] without times, which gain nothing to be seen, -0.0032 [-0.0247, 0.0184];
           `transition` counts 0.4655, popularity 0.2492. Of all items, ndcg@10 0.0631 [0.0524, 0.0745], counts 0.1063.
           The first two blocks of SmolLM2, frozen, with adapters: 0.4146 [0.3839, 0.4422], of all items 0.0714 [0.0592,
           0.0833] (5 minutes; model.weights=SmolLM2-135M-Instruct and in model.base width=576, layers=2, heads=9,
           kv_heads=3, channels=64, inner=1536, positions=8192, epsilon=1e-5, rotation.base=1e5)
Time:      7 minutes
Hardware:  1 CPU core that much other work shared
"""

from dataclasses import replace
from typing import Any

from recjax.config import RunConfig
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Shifted
from recjax.evaluate.options import Options
from recjax.evaluate.protocol import Evaluate
from recjax.models.interval_llm import IntervalLLM
from recjax.models.slmrec import SMALL
from recjax.parallel.mesh import MeshShape
from recjax.train.loop import Train
from recjax.train.optimiser import AdamW


def config() -> RunConfig:
    return RunConfig(
        name="interval_llm_ml100k",
        data=Data("ml-100k", view=Shifted(max_length=20, times=True), rows=16),
        model=IntervalLLM(SMALL, dropout=0.2),
        optim=AdamW(learning_rate=2e-3, weight_decay=0.01, warmup_steps=50, schedule="cosine"),
        mesh=MeshShape(),
        train=Train(steps=300, evaluate_every=100, metric="hr@1"),
        evaluate=(Options(20), Evaluate()),
    )


def tiny() -> dict[str, Any]:
    base = replace(SMALL, width=8, layers=1, channels=4, inner=16)
    return {"model.base": base, "model.width": 8, "data.view.max_length": 12}
