"""recjax ablate pretraining --seeds 3

From random parameters, or from parameters that have first learned to denoise the same training data? "Never Train from
Scratch" (Amos et al., ICLR 2024) finds that much of what sets architectures apart is gone then. Encoders of
`encoders_beauty` on amazon-beauty-2014, with as many steps in all: half of them denoise where the name says so.

Expected:  ndcg@10 attention 0.0455, denoised first 0.0391; rg-lru 0.0513, denoised first 0.0474
           (one seed; tables in experiments/ablations/README.md)
Time:      2 to 4 minutes a cell
Hardware:  2 CPU cores, a cell on each
"""

import dataclasses

from recjax import recipes
from recjax.config import RunConfig
from recjax.models.next_item import matched_settings

ENCODERS = {"attention": "attention", "lru": "lru", "rg-lru": "rg_lru", "gla": "gla"}


def config() -> RunConfig:
    return dataclasses.replace(recipes.read("encoders_beauty").config, name="pretraining")


def tiny() -> dict[str, int]:
    return recipes.read("encoders_beauty").module.tiny()


def sweep() -> dict[str, dict[str, str]]:
    like = config().model
    cells = {}
    for name, mixer in ENCODERS.items():
        cells[name] = matched_settings(mixer, like)
        cells[f"{name}-denoised"] = cells[name] | {"train.pretrain": "Pretrain"}
    return cells
