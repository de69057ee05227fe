"""BERT4Rec: bidirectional encoder trained on masked items (Sun et al., CIKM 2019)."""

from dataclasses import dataclass

from recjax.mixers.attention import Attention
from recjax.mixers.stack import Norm, Stack
from recjax.models.model import ItemStats
from recjax.models.parts.dot_product import DotProductModel, ItemSequenceEncoder
from recjax.models.parts.encoder_config import EncoderConfig


@dataclass(frozen=True)
class BERT4Rec(EncoderConfig):
    """A post-norm bidirectional Transformer with a masked-item head: transform, tied embedding, bias.

    It is trained through the `Cloze` view, whose queries end in the mask token (id items + 1).

    Attributes, beside those of `EncoderConfig`:
        inner: width inside the feed-forward network.
    """

    heads: int = 2
    dropout: float = 0.2
    norm: Norm = "post"
    inner: int = 256

    def stack(self) -> Stack:
        mixers = (Attention(heads=self.heads, dropout=self.dropout, init_scale=0.02),)
        return self.blocks(mixers, self.inner, causal=False, activation="gelu", init_scale=0.02)

    def build(self, stats: ItemStats) -> DotProductModel:
        module = ItemSequenceEncoder(
            stats.items + 2, self.max_length, self.stack(), scale=False, input_norm=True, transform=True, bias=True
        )
        return DotProductModel(module, self.loss, stats)
