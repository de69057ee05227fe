"""recjax train slmrec_ml100k

SLMRec on ml-100k, small: a Llama-like teacher of 8 blocks over counted vectors of behaviour, and a student of 2 that it
teaches. Both are from scratch; of a language model's folder (`--set model.weights=FOLDER`, with its sizes in
`model.base`), the first blocks are frozen and adapters trained. The control, on the same teacher:

    --set train.stages= --set train.start_from=RUN/stages/teacher --set model.distil=0 --set model.distance=0
    --set model.supervise=0

Expected:  ndcg@10 0.0969 [0.0832, 0.1108], hr@10 0.1962 on the test split (943 users, leave-one-out, full ranking,
           history masked, one seed); 0.0949 [0.0807, 0.1093] without distillation, 0.0020 [-0.0034, 0.0075] less;
           the teacher 0.0947, left after 4 of its blocks 0.0903, after 2 of them 0.0717; `transition` counts 0.1063.
           The first two blocks of SmolLM2, frozen, with adapters, 100 steps without a teacher: 0.0938 [0.0800, 0.1086],
           hr@10 0.1792 (2.6 minutes; model.weights=SmolLM2-135M-Instruct and in model.base width=576, layers=2,
           heads=9, kv_heads=3, channels=64, inner=1536, positions=8192, epsilon=1e-5, rotation.base=1e5; train.stages=,
           train.take=, train.freeze=, model.teacher=0, train.steps=100, optim.warmup_steps=10)
Time:      10 minutes, of which the teacher takes half
Hardware:  1 CPU core that much other work shared
"""

from dataclasses import replace
from typing import Any

from recjax.config import RunConfig
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Shifted
from recjax.data.features.behaviour import Behaviour
from recjax.evaluate.protocol import Evaluate
from recjax.models.slmrec import SMALL, SLMRec
from recjax.parallel.mesh import MeshShape
from recjax.text.lm.config import DecoderConfig
from recjax.train.loop import Train
from recjax.train.optimiser import AdamW
from recjax.train.stages import Stage

TEACHER, STEPS = 8, 200


def stages(base: DecoderConfig, teacher: int, steps: int) -> tuple[Stage, ...]:
    """The run that trains the teacher."""
    return (Stage("teacher", {"model": SLMRec(replace(base, layers=teacher)), "train.steps": steps}),)


def config() -> RunConfig:
    return RunConfig(
        name="slmrec_ml100k",
        data=Data("ml-100k", view=Shifted(max_length=100), rows=16),
        items={"behaviour": Behaviour(64)},
        model=SLMRec(SMALL, teacher=TEACHER),
        optim=AdamW(learning_rate=1e-3, weight_decay=0.01, warmup_steps=50, schedule="cosine"),
        mesh=MeshShape(),
        train=Train(
            steps=STEPS,
            evaluate_every=50,
            take=("^teacher/",),
            freeze=("^teacher/",),
            stages=stages(SMALL, TEACHER, STEPS),
        ),
        evaluate=Evaluate(),
    )


def tiny() -> dict[str, Any]:
    base = replace(SMALL, width=8, channels=4, inner=16)
    small = {"model.base": base, "model.teacher": 4, "items.behaviour.width": 8, "data.view.max_length": 12}
    return {**small, "train.stages": stages(base, 4, 4)}
