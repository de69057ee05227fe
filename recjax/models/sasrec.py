"""SASRec: self-attentive sequential recommendation (Kang & McAuley, ICDM 2018), and its better-trained descendants."""

from dataclasses import dataclass

from recjax.mixers.pattern import pattern
from recjax.mixers.stack import Stack
from recjax.models.model import ItemStats
from recjax.models.parts.dot_product import DotProductModel, ItemSequenceEncoder
from recjax.models.parts.encoder_config import EncoderConfig


@dataclass(frozen=True)
class SASRec(EncoderConfig):
    """A causal encoder over item embeddings; the score of an item is the dot product with its (tied) vector.

    The paper's model is `norm="sasrec"`, `loss=BCE()`, width 50; the defaults are the recipe of "Turning Dross Into
    Gold Loss" (Klenitskiy & Vasilev, RecSys 2023): the same network under full cross-entropy.

    Attributes, beside those of `EncoderConfig`:
        mixer: pattern of mixers, see `recjax.mixers.pattern.pattern`.
        inner: width inside the feed-forward network, or None for `width`, as in the paper.
        scale: multiply embeddings by sqrt(width).
    """

    mixer: str = "attention"
    inner: int | None = None
    scale: bool = True

    def stack(self) -> Stack:
        mixers = pattern(self.mixer, heads=self.heads, dropout=self.dropout)
        return self.blocks(mixers, self.inner or self.width)

    def build(self, stats: ItemStats) -> DotProductModel:
        module = ItemSequenceEncoder(stats.items + 1, self.max_length, self.stack(), scale=self.scale)
        return DotProductModel(module, self.loss, stats)
