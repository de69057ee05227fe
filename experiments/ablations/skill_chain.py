"""recjax ablate skill_chain --seeds 3

Skill-it (Chen et al., NeurIPS 2023) where the order of skills is known: values after one to three steps of a chain,
each step needing the one before. A model of texts trains on all three; hr@1 is of the last (chance 0.333). The shares
of the three follow their held-out losses over the graph in which each skill helps the next. Beside it: equal shares,
the last skill alone, each skill by its own loss, the graph turned round, and one skill after the other, in either
order.

Expected:  not run to its end: one seed of skill-it and equal, of which the last skill is at chance in both (hr@1 0.345
           and 0.338 after 1,500 and 1,300 steps). By held-out loss (log 3 = 1.099 at chance) skill-it has the first
           skill by step 400 (0.278), equal by step 1,000 (0.210; 1.047 at 400); the second is at 0.475 after 1,200
           steps, under equal at chance (1.104). From easy to hard hr@1 of the last skill is
           0.3987, from hard to easy 0.3350, text_transition 0.3300. The other rows have not been run (commits 958b6e3c,
           8982012)
Time:      4 to 5 minutes a cell, on a core shared with much other work
Hardware:  1 CPU core
"""

from typing import Any

from recjax.config import RunConfig
from recjax.data.batches.mixture import Mixture
from recjax.data.batches.shares import SkillIt
from recjax.data.batches.views import Shifted
from recjax.data.splits import ByUser
from recjax.evaluate.protocol import Evaluate
from recjax.models.recgpt import RecGPT
from recjax.parallel.mesh import MeshShape
from recjax.text.sketch import Sketch
from recjax.text.space import Channel, TextSpace
from recjax.train.loop import Train
from recjax.train.optimiser import AdamW

LINKS, STEPS = 3, 1_500
CHAIN = tuple(f"chain-{link}" for link in range(LINKS, 0, -1))
"""The skills, the last first: it is the one that is validated."""


HELPS = tuple(f"chain-{link}>chain-{link + 1}" for link in range(1, LINKS))
TURNED = ",".join(f"chain-{link + 1}>chain-{link}" for link in range(1, LINKS))


def config() -> RunConfig:
    return RunConfig(
        name="skill_chain",
        data=Mixture(
            CHAIN,
            weighting=SkillIt(HELPS, eta=0.5, window=3, every=100, users=400),
            view=Shifted(max_length=6, targets=1),
            split=ByUser(),
            rows=64,
        ),
        text=TextSpace((Channel(Sketch(64), whiten=False),)),
        model=RecGPT(width=64, layers=2, heads=2, dropout=0.0, codes=False, background=1.0, temperature=4.0),
        optim=AdamW(learning_rate=4e-3, weight_decay=0.01, clip=1.0, warmup_steps=50),
        mesh=MeshShape(),
        train=Train(steps=STEPS, evaluate_every=100, metric="hr@1", validation_users=400),
        evaluate=Evaluate(),
    )


def tiny() -> dict[str, Any]:
    return {
        "data.datasets": CHAIN[:2],
        "data.weighting": SkillIt(every=2, users=20),
        "data.view.max_length": 12,
        "model.width": 8,
        "model.layers": 1,
    }


def sweep() -> dict[str, dict[str, str]]:
    return {
        "skill-it": {},
        "equal": {"data.weighting.eta": "0"},
        "last-alone": {"data.weighting": "none", "data.datasets": CHAIN[0]},
        "own-losses": {"data.weighting.edges": ""},
        "turned-round": {"data.weighting.edges": TURNED},
        **{
            name: {
                "data.weighting": "InOrder",
                "data.weighting.order": ",".join(order),
                "data.weighting.every": str(STEPS // LINKS),
            }
            for name, order in (("easy-to-hard", CHAIN[::-1]), ("hard-to-easy", CHAIN))
        },
    }
