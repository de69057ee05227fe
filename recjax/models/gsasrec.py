"""gSASRec: SASRec with many negatives and generalised binary cross-entropy (Petrov & Macdonald, RecSys 2023)."""

from dataclasses import dataclass, field

from recjax.mixers.attention import Attention
from recjax.mixers.stack import Norm, Stack
from recjax.models.model import ItemStats
from recjax.models.parts.dot_product import DotProductModel, ItemSequenceEncoder
from recjax.models.parts.encoder_config import EncoderConfig
from recjax.models.parts.objectives import GBCE, Objective


@dataclass(frozen=True)
class GSASRec(EncoderConfig):
    """SASRec's network with an untied output table and gBCE; the defaults are the paper's for MovieLens-1M.

    Attributes are those of `EncoderConfig`.
    """

    width: int = 128
    dropout: float = 0.5
    norm: Norm = "sasrec"
    loss: Objective = field(default_factory=GBCE)

    def stack(self) -> Stack:
        return self.blocks((Attention(heads=self.heads, dropout=self.dropout),), self.width)

    def build(self, stats: ItemStats) -> DotProductModel:
        module = ItemSequenceEncoder(stats.items + 1, self.max_length, self.stack(), tied=False, scale=False)
        return DotProductModel(module, self.loss, stats)
