"""Settings shared by models that encode a sequence of item vectors."""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

from recjax.limits import COUNT, LAYERS, RATE, SIZE, Limit, require
from recjax.mixers.stack import Norm, Stack
from recjax.models.model import ModelConfig
from recjax.models.parts.objectives import FullSoftmax, Objective
from recjax.typing import Dtype


@dataclass(frozen=True)
class EncoderConfig(ModelConfig):
    """Base of the configurations of such models; each gives its own defaults and adds its own settings.

    Attributes:
        width: model width.
        layers: blocks.
        heads: heads of the mixers that have heads.
        dropout: rate on embeddings, mixer and feed-forward outputs, and inside mixers that have it.
        max_length: rows of the position table; at least the view's `max_length`.
        norm: "sasrec", "pre" or "post"; see `recjax.mixers.stack.Stack`.
        loss: training objective.
        dtype: compute type, "float32" or "bfloat16"; parameters stay float32.
        remat: recompute blocks in the backward pass to save memory.
    """

    width: int = 64
    layers: int = 2
    heads: int = 1
    dropout: float = 0.1
    max_length: int = 200
    norm: Norm = "pre"
    loss: Objective = field(default_factory=FullSoftmax)
    dtype: Dtype = "float32"
    remat: bool = False

    INNER: ClassVar[Limit] = SIZE

    def __post_init__(self) -> None:
        require(self, width=SIZE, layers=LAYERS, heads=COUNT, dropout=RATE, max_length=SIZE, inner=self.INNER)
        self.stack().check()

    @abstractmethod
    def stack(self) -> Stack:
        """The encoder."""

    def blocks(self, pattern: tuple[Any, ...], inner: int, causal: bool = True, **more: Any) -> Stack:
        """A stack of the shared settings.

        Args:
            pattern: the mixers, repeated over the layers.
            inner: width inside the feed-forward network; 0 for blocks without one.
            causal: whether events see earlier ones alone.
            more: of `Stack`.
        """
        return Stack(
            pattern=pattern,
            layers=self.layers,
            width=self.width,
            causal=causal,
            norm=self.norm,
            inner=inner,
            dropout=self.dropout,
            remat=self.remat,
            dtype=self.dtype,
            **more,
        )

    @property
    def longest(self) -> int | None:
        """Events that there are positions for."""
        return self.max_length
