"""gSASRec: SASRec with many negatives and generalised binary cross-entropy (Petrov & Macdonald, RecSys 2023)."""

from dataclasses import dataclass, field

from recjax.mixers.attention import Attention
from recjax.mixers.stack import Norm, Stack
from recjax.models.dot_product import DotProductModel, ItemSequenceEncoder
from recjax.models.model import ItemStats, ModelConfig
from recjax.models.objectives import GBCE, Objective


@dataclass(frozen=True)
class GSASRec(ModelConfig):
    """SASRec's network with an untied output table and gBCE; the defaults are the paper's for MovieLens-1M.

    Attributes:
        width: model width.
        layers: blocks.
        heads: attention heads.
        dropout: rate on embeddings, attention weights, mixer and feed-forward outputs.
        max_length: positions; at least the view's `max_length`.
        norm: see `recjax.mixers.stack.Stack`.
        loss: training objective.
        dtype: compute type; parameters stay float32.
        remat: recompute blocks in the backward pass to save memory.
    """

    width: int = 128
    layers: int = 2
    heads: int = 1
    dropout: float = 0.5
    max_length: int = 200
    norm: Norm = "sasrec"
    loss: Objective = field(default_factory=GBCE)
    dtype: str = "float32"
    remat: bool = False

    def build(self, stats: ItemStats) -> DotProductModel:
        stack = Stack(
            pattern=(Attention(heads=self.heads, dropout=self.dropout),),
            layers=self.layers,
            width=self.width,
            causal=True,
            norm=self.norm,
            inner=self.width,
            dropout=self.dropout,
            remat=self.remat,
            dtype=self.dtype,
        )
        module = ItemSequenceEncoder(stats.items + 1, self.max_length, stack, tied=False, scale=False)
        return DotProductModel(module, self.loss, stats)
