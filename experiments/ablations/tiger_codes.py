"""recjax ablate tiger_codes

Do codes made from texts say anything to TIGER, or are they names? `tiger_beauty` with its codes, and with the same
codes permuted among the items: as many items at every code, and which one says nothing.

Expected:  ndcg@10 0.0120, hr@10 0.0235 by codes of texts; 0.0053, 0.0090 by permuted ones, 0.0066 +- 0.0018 less (2,000
           test users, paired, one seed; 2,400 steps in two sittings of 1,200, each to the end of its rate): the codes
           carry the texts. Permuted, validation is best at step 400 and falls after it
Time:      42 to 50 minutes a cell, on one core shared with other work
Hardware:  1 CPU core a cell
"""

import dataclasses

from recjax import recipes
from recjax.config import RunConfig
from recjax.tokenizers.permuted import Permuted


def config() -> RunConfig:
    like = recipes.read("tiger_beauty").config
    return dataclasses.replace(like, name="tiger_codes", tokenizer=Permuted(like.tokenizer, seed=None))


def tiny() -> dict[str, int]:
    """`tiger_beauty`'s, inside the tokenizer that permutes."""
    values = recipes.read("tiger_beauty").module.tiny()
    return {key.replace("tokenizer.", "tokenizer.inner."): value for key, value in values.items()}


def sweep() -> dict[str, dict[str, str]]:
    return {"texts": {}, "permuted": {"tokenizer.seed": "0"}}
