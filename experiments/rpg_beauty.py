"""recjax train rpg_beauty

RPG (Hou et al., KDD 2025) on Amazon Beauty (2014, 5-core): an item is sixteen codes without an order, of a product
quantiser of its text (hashed words, a rotation, k-means of each part), and the codes of the next item are predicted all
at once. Every event is trained on in one pass over a history, and the whole catalog is scored, so it costs what SASRec
does; items that nobody has had are ranked too. Items of equal codes move to the nearest tuple that is free.

The published run has vectors of a language model, 32 codes and a width of 448: ndcg@10 0.0464, hr@10 0.0809.

Expected:  not run to its end. ndcg@10 0.0099, hr@10 0.0207 after 500 steps of 64 rows, twelve passes; 0.0042, 0.0093
           after 150 (each to the end of its rate; one seed). Popularity has 0.0067 on 2,000 of the users
Time:      8 minutes for 500 steps, on a core that other work shared
Hardware:  1 CPU core
"""

from typing import Any

from recjax.config import RunConfig
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Shifted
from recjax.evaluate.protocol import Evaluate
from recjax.models.rpg import RPG
from recjax.parallel.mesh import MeshShape
from recjax.text.hashed import Hashed
from recjax.text.space import Channel, TextSpace
from recjax.tokenizers.pq import PQ
from recjax.train.loop import Train
from recjax.train.optimiser import AdamW


def config() -> RunConfig:
    return RunConfig(
        name="rpg_beauty",
        data=Data("amazon-beauty-2014", view=Shifted(max_length=50), rows=64),
        text=TextSpace((Channel(Hashed(256), whiten=False),)),
        tokenizer=PQ(slots=16, clusters=256),
        model=RPG(width=64, layers=2, heads=4, dropout=0.2, max_length=50),
        optim=AdamW(learning_rate=3e-3, weight_decay=0.01, warmup_steps=50, schedule="cosine"),
        mesh=MeshShape(),
        train=Train(epochs=30, evaluate_every=100, validation_users=2000, patience=6),
        evaluate=Evaluate(),
    )


def tiny() -> dict[str, Any]:
    tokenizer = {"tokenizer.clusters": 16, "tokenizer.iterations": 2, "tokenizer.rotations": 1, "tokenizer.slots": 4}
    model = {"model.width": 8, "model.layers": 1, "model.heads": 2, "model.max_length": 12}
    return {**tokenizer, **model, "data.view.max_length": 12}
