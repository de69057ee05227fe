"""recjax ablate pretraining --seeds 3

From random parameters, or from parameters that have first learned to denoise the same training data? "Never Train from
Scratch" (Amos et al., ICLR 2024) finds that much of what sets architectures apart is gone then. Encoders of
`encoders_beauty` on amazon-beauty-2014, with as many steps in all: half of them denoise where the name says so.

Expected:  pending
Time:      pending
Hardware:  pending
"""

import dataclasses

from recjax import recipes
from recjax.config import RunConfig
from recjax.models.next_item import matched_settings

ENCODERS = {"attention": "attention", "lru": "lru", "rg-lru": "rg_lru", "gla": "gla"}


def config() -> RunConfig:
    return dataclasses.replace(recipes.read("encoders_beauty").config, name="pretraining")


def sweep() -> dict[str, dict[str, str]]:
    like = config().model
    cells = {}
    for name, mixer in ENCODERS.items():
        cells[name] = matched_settings(mixer, like)
        cells[f"{name}-denoised"] = cells[name] | {"train.pretrain": "Pretrain"}
    return cells
