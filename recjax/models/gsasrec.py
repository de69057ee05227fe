"""gSASRec: SASRec with many negatives and generalised binary cross-entropy (Petrov & Macdonald, RecSys 2023)."""

from dataclasses import dataclass, field

from recjax.limits import COUNT, LAYERS, RATE, SIZE, require
from recjax.mixers.attention import Attention
from recjax.mixers.stack import Norm, Stack
from recjax.models.model import ItemStats, ModelConfig
from recjax.models.parts.dot_product import DotProductModel, ItemSequenceEncoder
from recjax.models.parts.objectives import GBCE, Objective
from recjax.typing import Dtype


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
    dtype: Dtype = "float32"
    remat: bool = False

    def __post_init__(self) -> None:
        require(self, width=SIZE, layers=LAYERS, heads=COUNT, dropout=RATE, max_length=SIZE)
        self.stack().check()

    def stack(self) -> Stack:
        """The encoder."""
        return Stack(
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

    @property
    def longest(self) -> int:
        """Events that there are positions for."""
        return self.max_length

    def build(self, stats: ItemStats) -> DotProductModel:
        """The model for a catalog."""
        module = ItemSequenceEncoder(stats.items + 1, self.max_length, self.stack(), tied=False, scale=False)
        return DotProductModel(module, self.loss, stats)
