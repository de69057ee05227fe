"""Any causal encoder as a next-item model: the ground on which mixers are compared."""

from dataclasses import dataclass, field
from typing import Any, Literal

from recjax.mixers.pattern import pattern
from recjax.mixers.stack import Norm, Stack
from recjax.models.dot_product import DotProductModel, ItemSequenceEncoder
from recjax.models.model import ItemStats
from recjax.models.objectives import FullSoftmax, Objective
from recjax.nn.feed_forward import Activation
from recjax.typing import InputError

Positions = Literal["auto", "learned", "none"]


@dataclass(frozen=True)
class NextItem:
    """Item embeddings, a stack of mixers, and the dot product with the (tied) item vectors.

    Everything around the mixers is the same whatever they are, so two runs that differ in `mixer` alone differ in how
    information moves along time and in nothing else.

    Attributes:
        mixer: pattern of mixers, see `recjax.mixers.pattern.pattern`; repeated over the layers.
        mixers: the mixers of the pattern as configs, in place of `mixer`.
        width: model width.
        layers: blocks.
        heads: heads of the mixers that have heads.
        inner: width inside the feed-forward network, or None for four times the width.
        activation: of the feed-forward network.
        norm: "pre" or "post", or "sasrec" where every mixer has a separate query; see `recjax.mixers.stack.Stack`.
        dropout: rate on embeddings, mixer and feed-forward outputs, and inside mixers that have it.
        max_length: rows of the position table; at least the view's `max_length`.
        positions: "learned" adds a position table; "none" does not; "auto" adds one only where no mixer of the stack
            knows the order of events by itself.
        input_norm: normalise embeddings before the first block.
        bias: a learned bias per item.
        scale: multiply embeddings by sqrt(width).
        loss: training objective.
        dtype: compute type, "float32" or "bfloat16"; parameters stay float32.
        remat: recompute blocks in the backward pass to save memory.
        scan: compile one period of the pattern and repeat it; see `recjax.mixers.stack.Stack`.
    """

    mixer: str = "attention"
    mixers: tuple[Any, ...] = ()
    width: int = 64
    layers: int = 2
    heads: int = 1
    inner: int | None = None
    activation: Activation = "gelu"
    norm: Norm = "pre"
    dropout: float = 0.1
    max_length: int = 200
    positions: Positions = "auto"
    input_norm: bool = False
    bias: bool = False
    scale: bool = True
    loss: Objective = field(default_factory=FullSoftmax)
    dtype: str = "float32"
    remat: bool = False
    scan: bool = False

    def build(self, stats: ItemStats) -> DotProductModel:
        """The model for a catalog."""
        stack = Stack(
            pattern=self.mixers or pattern(self.mixer, heads=self.heads, dropout=self.dropout),
            layers=self.layers,
            width=self.width,
            causal=True,
            norm=self.norm,
            inner=self.inner or 4 * self.width,
            activation=self.activation,
            dropout=self.dropout,
            remat=self.remat,
            scan=self.scan,
            dtype=self.dtype,
        )
        if self.positions == "none" and not stack.positional:
            raise InputError(
                f"model.positions is 'none', but none of the mixers ({self.mixer}) knows the order of events by itself"
            )
        learned = self.positions == "learned" or not stack.positional
        module = ItemSequenceEncoder(
            stats.items + 1,
            self.max_length if learned else 0,
            stack,
            scale=self.scale,
            input_norm=self.input_norm,
            bias=self.bias,
        )
        return DotProductModel(module, self.loss, stats)
