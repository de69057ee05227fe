"""recjax train recformer_giftcards

Recformer on Amazon Gift Cards (2018; 148 items, 458 users), small: an encoder of two blocks over words of title, brand
and categories, from scratch, in three phases: contrast and masked words, a table read anew each epoch, the table fixed.
No parameter is an item's. The control, without the first and the last phase at as many steps:

    --set train.stages= --set model.phase=table --set train.steps=400

Expected:  ndcg@10 0.1172 [0.0971, 0.1394], hr@10 0.2424 on the test split (458 users, leave-one-out, full ranking,
           history masked, one seed); `text_knn` 0.1055, `transition` 0.1967. The control 0.1031 [0.0851, 0.1216],
           0.0141 [-0.0074, 0.0357] less. On validation 0.1145 after the first phase, 0.1070 after the second, 0.1309
           after the third, and the control 0.1301
Time:      5 minutes
Hardware:  1 CPU core that much other work shared
"""

from dataclasses import replace
from typing import Any

from recjax.config import RunConfig
from recjax.data.batches.derived import Prefixes
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Shifted
from recjax.data.features.sentences import Sentence
from recjax.evaluate.protocol import Evaluate
from recjax.models.recformer import Recformer
from recjax.parallel.mesh import MeshShape
from recjax.train.loop import Train
from recjax.train.optimiser import AdamW
from recjax.train.stages import Stage

MODEL = Recformer(phase="fixed", width=64, layers=2, heads=2, window=16, tokens=64, dropout=0.1)


def stages(model: Recformer, *steps: int) -> tuple[Stage, ...]:
    """The phases before the run's own, and the steps of each."""
    phases = zip(("pretrain", "table"), steps, strict=True)
    return tuple(Stage(name, {"model": replace(model, phase=name), "train.steps": count}) for name, count in phases)


def config() -> RunConfig:
    return RunConfig(
        name="recformer_giftcards",
        data=Data("amazon-giftcards-2018", view=Prefixes(Shifted(max_length=6, targets=1)), rows=32, pack=False),
        items={"sentence": Sentence(("title", "brand", "categories"), (8, 2, 3), count=16, vocabulary=512)},
        model=MODEL,
        optim=AdamW(learning_rate=1e-3, weight_decay=0.01, warmup_steps=20, schedule="cosine"),
        mesh=MeshShape(),
        train=Train(steps=100, evaluate_every=50, stages=stages(MODEL, 100, 200)),
        evaluate=Evaluate(),
    )


def tiny() -> dict[str, Any]:
    model = replace(MODEL, width=8, layers=1, inner=16, window=4, tokens=20)
    small = {"items.sentence.count": 6, "items.sentence.vocabulary": 32, "data.view.view.max_length": 12}
    return {**small, "model": model, "train.stages": stages(model, 2, 2)}
