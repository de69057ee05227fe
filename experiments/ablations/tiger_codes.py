"""recjax ablate tiger_codes

Codes and how they are read, by one generator at one budget on amazon-beauty-2014 (`--set data.dataset=...` for another
catalog): residual codes of texts; the same codes permuted among the items, which say nothing; codes of texts and of
what users do (LETTER); codes of texts that are read in two branches (DiscRec).

Expected:  ndcg@10, hr@10 of 22,363 test users after 2,000 steps, nineteen passes, one seed: codes of texts 0.0193,
           0.0384; permuted 0.0053, 0.0102, -0.0141 [-0.0155, -0.0127] paired over users: they carry the texts.
           LETTER's 0.0216, 0.0430, +0.0022 [0.0011, 0.0034]. text_transition has 0.0686, transition counts 0.0517,
           popularity 0.0061. On amazon-toys-2014 (19,124 users) texts 0.0224, 0.0407; permuted 0.0050, 0.0082; LETTER's
           0.0220, 0.0412, -0.0004 [-0.0018, 0.0010]; two branches, with 31 % more parameters, 0.0240, 0.0440, +0.0016
           [0.0005, 0.0027]. text_transition has 0.0793, transition counts 0.0619
Time:      9 to 21 minutes a cell, and 1 to 4 of ranking, on a core that other work shared at times
Hardware:  1 CPU core a cell (AMD EPYC)
"""

import dataclasses

from recjax import recipes
from recjax.config import RunConfig
from recjax.data.features.columns import Codes
from recjax.models.discrec import DiscRec
from recjax.tokenizers.permuted import Permuted

ALIGNED = ("collaborative", "diversity")
"""Weights of LETTER's losses."""


def config() -> RunConfig:
    like = recipes.read("letter_beauty").config
    tokenizer = dataclasses.replace(like.items["codes"].tokenizer, **dict.fromkeys(ALIGNED, 0.0))
    codes = Codes(Permuted(tokenizer, seed=None), behaviour="behaviour")
    model = DiscRec(**vars(like.model), collaborative=False)
    return dataclasses.replace(like, name="tiger_codes", items={**like.items, "codes": codes}, model=model)


def tiny() -> dict[str, int]:
    """`letter_beauty`'s, inside the tokenizer that permutes."""
    values = recipes.read("letter_beauty").module.tiny()
    return {key.replace("codes.tokenizer.", "codes.tokenizer.inner."): value for key, value in values.items()}


def sweep() -> dict[str, dict[str, str]]:
    tokenizer = recipes.read("letter_beauty").config.items["codes"].tokenizer
    return {
        "texts": {},
        "permuted": {"items.codes.tokenizer.seed": "0"},
        "letter": {f"items.codes.tokenizer.inner.{name}": str(getattr(tokenizer, name)) for name in ALIGNED},
        "discrec": {"model.collaborative": "true"},
    }
