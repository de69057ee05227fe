"""recjax ablate experiments/ablations/recgpt_parts.py

What the parts of RecGPT are worth on the catalogs of `quickstart`: pre-trained on two, evaluated on a third that it has
never seen. The first three are ablations of the paper (Jiang et al., EMNLP 2025); its fourth, decoding without a trie,
does not apply where every item is scored, and is measured by `experiments/benchmarks/beam_agreement.py`.

* random_codes: codes that say nothing of the text;
* causal: attention between all tokens is causal, also inside an item;
* no_aux: the encoder reads codes alone (text vectors are still what items are compared by);
* no_codes: the encoder reads text vectors alone, and no codes are predicted;
* no_background: every next item must be explained by text.

Expected:  ndcg@10 full 0.0699, random codes 0.0542, no aux 0.0652, the others within 0.002 of full
Time:      1 minute a row on 1 core
Hardware:  2 CPU cores
"""

from dataclasses import replace
from typing import Any

from recjax import recipes
from recjax.config import RunConfig


def config() -> RunConfig:
    return replace(recipes.read("quickstart").config, name="recgpt_parts")


def tiny() -> dict[str, Any]:
    return recipes.read("quickstart").module.tiny()


def sweep() -> dict[str, list[str]]:
    return {
        "full": [],
        "random_codes": ["tokenizer.collisions=random"],
        "causal": ["model.mask=causal"],
        "no_aux": ["model.aux=false"],
        "no_codes": ["model.codes=false"],
        "no_background": ["model.background=1.0"],
    }
