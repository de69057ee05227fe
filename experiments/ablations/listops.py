"""recjax ablate listops --seeds 2

Nested expressions such as `[MAX 2 9 [MIN 4 7 ] 0 ]`, whose value is to be predicted (Nangia & Bowman 2018): what is far
apart belongs together, and by rules. hr@1 is the accuracy. Expressions here have 20 to 100 symbols, for a CPU. Those of
the Long Range Arena have 500 to 2,000 and want an accelerator:

    recjax ablate listops --set data.dataset=listops --set data.view.max_length=2004 --set model.max_length=2004 \\
        --set model.width=128 --set model.layers=6 --set data.rows=64 --set train.steps=30000

Expected:  hr@1 gla 0.4721, attention 0.4129, s5 0.3317 (one seed;
           tables in experiments/ablations/README.md)
Time:      4 to 13 minutes a cell
Hardware:  2 CPU cores, a cell on each
"""

import dataclasses

from recjax import recipes
from recjax.config import RunConfig

LENGTH = 104


def config() -> RunConfig:
    like = recipes.read("memory").config
    return dataclasses.replace(
        like,
        name="listops",
        data=dataclasses.replace(
            like.data,
            dataset="listops-small",
            view=dataclasses.replace(like.data.view, max_length=LENGTH, targets=1),
        ),
        model=dataclasses.replace(like.model, max_length=LENGTH),
    )


def tiny() -> dict[str, int]:
    return recipes.read("memory").module.tiny()


def sweep() -> dict[str, dict[str, str]]:
    return recipes.read("memory").module.sweep()
