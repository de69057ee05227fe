"""recjax ablate deconstruction --seeds 3

What are attention's weights for? On amazon-beauty-2014 with the budget of `encoders_beauty`: weights that look at the
events (attention), at their distance alone (position), at random projections of them (random) or at nothing (uniform),
in all blocks or in every other one. In language models the fixed ones fail alone and hardly lose interleaved.

Expected:  ndcg@10 attention 0.0455 [0.0433, 0.0478], position 0.0468, random 0.0466, uniform 0.0472 [0.0449, 0.0498],
           interleaved 0.0459 to 0.0473 (one seed; no difference shown; tables in experiments/ablations/README.md)
Time:      2 minutes a cell
Hardware:  2 CPU cores, a cell on each
"""

import dataclasses

from recjax import recipes
from recjax.config import RunConfig
from recjax.models.next_item import matched_settings

ENCODERS = {
    "attention": "attention",
    "position": "static_mixing(weights=position)",
    "random": "static_mixing(weights=random)",
    "uniform": "static_mixing",
    "position+attention": "static_mixing(weights=position), attention",
    "random+attention": "static_mixing(weights=random), attention",
    "uniform+attention": "static_mixing, attention",
}


def config() -> RunConfig:
    return dataclasses.replace(recipes.read("encoders_beauty").config, name="deconstruction")


def tiny() -> dict[str, int]:
    return recipes.read("encoders_beauty").module.tiny()


def sweep() -> dict[str, dict[str, str]]:
    like = config().model
    return {name: matched_settings(mixer, like) for name, mixer in ENCODERS.items()}
