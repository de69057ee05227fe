"""recjax train rpg_beauty

RPG (Hou et al., KDD 2025) on Amazon Beauty (2014, 5-core): an item is sixteen codes without an order, of a product
quantiser of its text (hashed words, a rotation, k-means of each part), and the codes of the next item are predicted all
at once. Every event is trained on in one pass over a history, and the whole catalog is scored, so it costs what SASRec
does; items that nobody has had are ranked too. Items of equal codes move to the nearest tuple that is free.

The published run has vectors of a language model, 32 codes and a width of 448: ndcg@10 0.0464, hr@10 0.0809.

Expected:  ndcg@10 0.0171 [0.0157, 0.0184], hr@10 0.0347 after thirty passes (one seed; best validation 0.0191 at step
           900 of 1,202); 0.0023, 0.0072 for 138 users whose next item nobody has had in training. 0.0099, 0.0207 after
           500 steps, 0.0042, 0.0093 after 150 (each to the end of its rate). text_transition has 0.0686, transition
           counts 0.0517, popularity 0.0061
Time:      8 minutes
Hardware:  1 CPU core (AMD EPYC)
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
