"""BERT4Rec: bidirectional encoder trained on masked items (Sun et al., CIKM 2019)."""

from dataclasses import dataclass, field

from recjax.limits import COUNT, LAYERS, RATE, SIZE, require
from recjax.mixers.attention import Attention
from recjax.mixers.stack import Norm, Stack
from recjax.models.model import ItemStats, ModelConfig
from recjax.models.parts.dot_product import DotProductModel, ItemSequenceEncoder
from recjax.models.parts.objectives import FullSoftmax, Objective
from recjax.typing import Dtype


@dataclass(frozen=True)
class BERT4Rec(ModelConfig):
    """A post-norm bidirectional Transformer with a masked-item head: transform, tied embedding, bias.

    It is trained through the `Cloze` view, whose queries end in the mask token (id items + 1).

    Attributes:
        width: model width.
        layers: blocks.
        heads: attention heads.
        inner: width inside the feed-forward network.
        dropout: rate on embeddings, attention weights, mixer and feed-forward outputs.
        max_length: positions; at least the view's `max_length`.
        norm: see `recjax.mixers.stack.Stack`.
        loss: training objective, over masked positions only.
        dtype: compute type; parameters stay float32.
        remat: recompute blocks in the backward pass to save memory.
    """

    width: int = 64
    layers: int = 2
    heads: int = 2
    inner: int = 256
    dropout: float = 0.2
    max_length: int = 200
    norm: Norm = "post"
    loss: Objective = field(default_factory=FullSoftmax)
    dtype: Dtype = "float32"
    remat: bool = False

    def __post_init__(self) -> None:
        require(self, width=SIZE, layers=LAYERS, heads=COUNT, inner=SIZE, dropout=RATE, max_length=SIZE)
        self.stack().check()

    def stack(self) -> Stack:
        """The encoder."""
        return Stack(
            pattern=(Attention(heads=self.heads, dropout=self.dropout, init_scale=0.02),),
            layers=self.layers,
            width=self.width,
            causal=False,
            norm=self.norm,
            inner=self.inner,
            activation="gelu",
            dropout=self.dropout,
            init_scale=0.02,
            remat=self.remat,
            dtype=self.dtype,
        )

    @property
    def longest(self) -> int:
        """Events that there are positions for."""
        return self.max_length

    def build(self, stats: ItemStats) -> DotProductModel:
        """The model for a catalog."""
        module = ItemSequenceEncoder(
            stats.items + 2, self.max_length, self.stack(), scale=False, input_norm=True, transform=True, bias=True
        )
        return DotProductModel(module, self.loss, stats)
