"""SASRec: self-attentive sequential recommendation (Kang & McAuley, ICDM 2018), and its better-trained descendants."""

from dataclasses import dataclass, field

from recjax.limits import COUNT, LAYERS, RATE, SIZE, require
from recjax.mixers.pattern import pattern
from recjax.mixers.stack import Norm, Stack
from recjax.models.model import ItemStats, ModelConfig
from recjax.models.parts.dot_product import DotProductModel, ItemSequenceEncoder
from recjax.models.parts.objectives import FullSoftmax, Objective
from recjax.typing import Dtype


@dataclass(frozen=True)
class SASRec(ModelConfig):
    """A causal encoder over item embeddings; the score of an item is the dot product with its (tied) vector.

    The paper's model is `norm="sasrec"`, `loss=BCE()`, width 50; the defaults are the recipe of "Turning Dross Into
    Gold Loss" (Klenitskiy & Vasilev, RecSys 2023): the same network under full cross-entropy.

    Attributes:
        width: model width.
        layers: blocks.
        heads: attention heads.
        dropout: rate on embeddings, attention weights, mixer and feed-forward outputs.
        max_length: positions; at least the view's `max_length`.
        norm: "sasrec", "pre" or "post"; see `recjax.mixers.stack.Stack`.
        mixer: pattern of mixers, see `recjax.mixers.pattern.pattern`.
        inner: width inside the feed-forward network, or None for `width`, as in the paper.
        loss: training objective.
        scale: multiply embeddings by sqrt(width).
        dtype: compute type, "float32" or "bfloat16"; parameters stay float32.
        remat: recompute blocks in the backward pass to save memory.
    """

    width: int = 64
    layers: int = 2
    heads: int = 1
    dropout: float = 0.1
    max_length: int = 200
    norm: Norm = "pre"
    mixer: str = "attention"
    inner: int | None = None
    loss: Objective = field(default_factory=FullSoftmax)
    scale: bool = True
    dtype: Dtype = "float32"
    remat: bool = False

    def __post_init__(self) -> None:
        require(self, width=SIZE, layers=LAYERS, heads=COUNT, inner=SIZE, dropout=RATE, max_length=SIZE)
        self.stack().check()

    def stack(self) -> Stack:
        """The encoder."""
        return Stack(
            pattern=pattern(self.mixer, heads=self.heads, dropout=self.dropout),
            layers=self.layers,
            width=self.width,
            causal=True,
            norm=self.norm,
            inner=self.inner or self.width,
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
        module = ItemSequenceEncoder(stats.items + 1, self.max_length, self.stack(), scale=self.scale)
        return DotProductModel(module, self.loss, stats)
