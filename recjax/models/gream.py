"""GREAM's policy step on item codes: a generator tuned by rewards that can be verified, without text.

Hong et al., Generative Reasoning Recommendation via LLMs, 2025; `recjax.models.gream_text` is the form over a language
model, and that after the same step.
"""

from dataclasses import dataclass

from recjax.data.batches.views import Batch
from recjax.data.items import Items
from recjax.decode.scoring import Stepwise
from recjax.models.model import ItemStats
from recjax.models.parts.policy_step import SRPO, SRPOModel
from recjax.models.tiger import TIGER, TIGERModel
from recjax.text.lm.t5 import T5
from recjax.typing import Params


@dataclass(frozen=True)
class GREAM(SRPO, TIGER):
    """`TIGER` tuned by `SRPO`, to be trained after a stage of `TIGER`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_policy()

    def build(self, stats: ItemStats) -> "GREAMModel":
        tokens = self.tokens(stats)
        return GREAMModel(self, T5(self.network(tokens)), tokens, stats)


@dataclass(frozen=True)
class GREAMModel(SRPOModel, TIGERModel):
    """`GREAM` built for a catalog."""

    config: GREAM

    def answers(self, params: Params, batch: Batch, items: Items) -> Stepwise:
        return self.search(params, self.history(batch, items), items)
