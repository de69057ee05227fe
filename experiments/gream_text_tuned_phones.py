"""recjax train gream_text_tuned_phones

GREAM's two stages over a language model, small: the generator of gream_text_phones, and then SRPO, which rewards items
that it draws itself after each user's history: right prefixes of the target's codes, and pass@4. The control is the
stage by itself, `recjax evaluate RUN/stages/supervised`, or GRPO on exact hits:

    --set model.passes=false --set model.prefixes=false

Expected:  ndcg@10 0.0241 [0.0220, 0.0263], hr@10 0.0476 on 11,652 test users (one seed): 0.0037 [0.0025, 0.0049] less
           than before the 60 steps (0.0278), paired over users. At a rate of 2e-5 0.0013 [0.0007, 0.0019] less; GRPO at
           1e-4 0.0010 [0.0000, 0.0020] less: samples hit the target in 0.2 to 0.4 % of cases, and what prefixes reward
           is not the item. text_transition has 0.0449, transition counts 0.0362
Time:      161 seconds for the stage, 47 for the 60 steps
Hardware:  1 CPU core (AMD EPYC)
"""

import dataclasses

from recjax import recipes
from recjax.config import RunConfig
from recjax.models.gream_text import GREAMTextTuned
from recjax.train.loop import Train
from recjax.train.optimiser import AdamW
from recjax.train.stages import Stage


def config() -> RunConfig:
    like = recipes.read("gream_text_phones").config
    before = {"model": like.model, "optim": like.optim, "train.steps": like.train.steps}
    return dataclasses.replace(
        like,
        name="gream_text_tuned_phones",
        model=GREAMTextTuned(**vars(like.model), tries=3),
        optim=AdamW(learning_rate=1e-4, weight_decay=0.0, warmup_steps=5),
        train=Train(
            steps=60, evaluate_every=0, stages=(Stage("supervised", before),), take=("^(?!frozen)",), log_every=10
        ),
    )


def tiny() -> dict[str, object]:
    settings = recipes.read("gream_text_phones").module.tiny()
    return {**settings, "train.stages": (), "train.take": (), "model.samples": 4}
