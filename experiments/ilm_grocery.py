"""recjax train ilm_grocery

ILM on Amazon Grocery, small: a Q-Former learns from titles, and from what users have next to each other, what counted
vectors of behaviour mean (phase 1, a stage); then its queries stand for the items in a question to a language model
(phase 2). That is two layers from scratch here, trained along, and ranks by one product with the items' vectors. Blocks
of a language model's folder (`--set model.weights=FOLDER`, with its sizes in `model.base`) are frozen. One title in
five is never read in phase 1; `python experiments/benchmarks/item_titles.py RUN/stages/alignment` asks for those. The
controls of phase 2:

    --set train.stages= --set train.take=                               (a random Q-Former)
    --set train.stages= --set train.take= --set model.translator=mlp    (two dense layers in its place)

Expected:  phase 1: of 100 titles that were never read the item's own is the nearest for 0.1770 ± 0.0332 of 367 items
           (chance 0.0100; a linear map to vectors of the titles, which phase 1 reads too, 0.1965 ± 0.0347; catalog and
           width of behaviour were chosen by such a map, on these titles too); matching
           learns nothing to be seen in so few steps (0.637, without anything learned 0.6365).
           Phase 2: ndcg@10 0.0793 [0.0746, 0.0842], hr@10 0.1437 on the test split (7,127 users, leave-one-out, full
           ranking, history masked, one seed); a random Q-Former 0.0766 [0.0714, 0.0813], 0.0027 ± 0.0026 less, paired
           over users (published: about nothing); two dense layers 0.0832 [0.0777, 0.0886], 0.0039 ± 0.0032 more, best
           at the last step, without dropout; `transition` counts 0.1034, `text_transition` 0.1261.
           The first four blocks of SmolLM2, frozen, after 50 steps: 0.0636 [0.0594, 0.0678], hr@10 0.1190; with a
           random Q-Former 0.0512 [0.0473, 0.0555], 0.0124 [0.0092, 0.0156] less, paired over users: what phase 1 has
           learned helps where what reads it does not learn. These sizes of model.base: width=576, layers=4, heads=9,
           kv_heads=3, channels=64, inner=1536, positions=8192, epsilon=1e-5, rotation.base=1e5; train.steps=50,
           optim.warmup_steps=5, train.evaluate_every=0
Time:      17 minutes, of which phase 1 takes 10, on a core shared with four others (3 of its own time); controls 6 each
Hardware:  1 core of an AMD EPYC that other work shared
"""

from dataclasses import replace
from typing import Any

from recjax.config import RunConfig
from recjax.data.batches.derived import Prefixes
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Shifted
from recjax.data.features.behaviour import Behaviour
from recjax.data.features.columns import Words
from recjax.evaluate.protocol import Evaluate
from recjax.models.ilm import ILM, TRANSLATOR
from recjax.models.ilm_alignment import ILMAlignment
from recjax.models.parts.qformer import QFormerConfig
from recjax.models.slmrec import SMALL
from recjax.parallel.mesh import MeshShape
from recjax.text.hashed import Hashed
from recjax.text.space import Channel, TextSpace
from recjax.text.words import WordVectors
from recjax.train.loop import Train
from recjax.train.optimiser import AdamW
from recjax.train.stages import Stage

SIZES = QFormerConfig(queries=4, width=64, layers=2, heads=4, inner=128, dropout=0.2)


def alignment(sizes: QFormerConfig, steps: int, length: int = 2) -> Stage:
    """Phase 1, on pairs of consecutive events."""
    settings = {
        "model": ILMAlignment(sizes, held=0.2, titles="vectors"),
        "data.view": Prefixes(Shifted(length, targets=1)),
        "data.rows": 64,
        "optim.learning_rate": 2e-3,
        "train.steps": steps,
        "train.evaluate_every": 0,
    }
    return Stage("alignment", settings)


def config() -> RunConfig:
    return RunConfig(
        name="ilm_grocery",
        data=Data("amazon-grocery-cdsr", view=Shifted(max_length=10), rows=32, pack=False),
        items={"behaviour": Behaviour(256), "words": Words(count=12, vocabulary=2000)},
        text=TextSpace((Channel(WordVectors("{title}")),)),
        model=ILM(SIZES, base=SMALL),
        optim=AdamW(learning_rate=1e-3, weight_decay=0.01, warmup_steps=50, schedule="cosine"),
        mesh=MeshShape(),
        train=Train(
            steps=300,
            evaluate_every=100,
            validation_users=1000,
            take=TRANSLATOR,
            stages=(alignment(SIZES, 500),),
        ),
        evaluate=Evaluate(),
    )


def tiny() -> dict[str, Any]:
    sizes = replace(SIZES, queries=2, width=8, layers=1, heads=2, inner=16)
    base = replace(SMALL, width=8, layers=1, channels=4, inner=16)
    small = {"model.qformer": sizes, "model.base": base, "items.behaviour.width": 8, "items.words.count": 4}
    small["text"] = TextSpace((Channel(Hashed(32)),))
    return {**small, "data.view.max_length": 12, "train.stages": (alignment(sizes, 4, 12),)}
