"""recjax train lite_llm4rec_arts

Lite-LLM4Rec on Amazon Arts, Crafts and Sewing: titles are read once by SmolLM2 (the first 6 of its 30 blocks, the mean
of their states; `recjax fetch-language-model SmolLM2-135M-Instruct`), and a Llama-like decoder from scratch reads the
vectors, to which each item's own is added. The controls:

    --set model.text=none     (no texts)
    --set model.ids=false     (texts alone, which rank items without events too)

Expected:  ndcg@10 0.0719 [0.0667, 0.0772], hr@10 0.1013 on the test split, leave-one-out, full ranking, history masked;
           `transition` 0.0702, `text_knn` 0.0596, `text_transition` 0.0805 (0.0086 ± 0.0041 more). After 100 of the
           400 steps 0.0568 on 2,000 validation users, 0.0442 without texts, which have not been run to their end
Time:      8 minutes, and 15 for reading 5,901 titles once
Hardware:  1 CPU core that much other work shared (3 minutes of its time in all)
"""

from typing import Any

from recjax.config import RunConfig
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Shifted
from recjax.evaluate.protocol import Evaluate
from recjax.models.lite_llm4rec import LiteLLM4Rec
from recjax.parallel.mesh import MeshShape
from recjax.text.hashed import Hashed
from recjax.text.lm.encoder import LanguageModelEncoder
from recjax.text.space import Channel, TextSpace
from recjax.train.loop import Train
from recjax.train.optimiser import AdamW


def config() -> RunConfig:
    return RunConfig(
        name="lite_llm4rec_arts",
        data=Data("amazon-arts-cdsr", view=Shifted(max_length=50), rows=32),
        text=TextSpace((Channel(LanguageModelEncoder("SmolLM2-135M-Instruct", "{title}", layers=6, max_tokens=24)),)),
        model=LiteLLM4Rec(text="vectors", ids=True, width=64, layers=2, heads=2, dropout=0.3),
        optim=AdamW(learning_rate=2e-3, weight_decay=0.01, warmup_steps=50, schedule="cosine"),
        mesh=MeshShape(),
        train=Train(steps=400, evaluate_every=100, validation_users=2000),
        evaluate=Evaluate(),
    )


def tiny() -> dict[str, Any]:
    small = {"model.width": 8, "model.layers": 1, "model.inner": 16, "data.view.max_length": 12}
    return {**small, "text": TextSpace((Channel(Hashed(32)),))}
