"""Any causal encoder as a next-item model: the ground on which mixers are compared."""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from recjax.limits import WIDEST, Limit, refuse, within
from recjax.mixers.mixer import SeqContext
from recjax.mixers.pattern import pattern
from recjax.mixers.stack import Encoder, Stack
from recjax.models.model import ItemStats
from recjax.models.parts.dot_product import DotProductModel, ItemSequenceEncoder
from recjax.models.parts.encoder_config import EncoderConfig
from recjax.nn.feed_forward import Activation
from recjax.typing import InputError

Positions = Literal["auto", "learned", "none"]


@dataclass(frozen=True)
class NextItem(EncoderConfig):
    """Item embeddings, a stack of mixers, and the dot product with the (tied) item vectors.

    Everything around the mixers is the same whatever they are, so two runs that differ in `mixer` alone differ in how
    information moves along time and in nothing else.

    Attributes, beside those of `EncoderConfig`:
        mixer: pattern of mixers, see `recjax.mixers.pattern.pattern`; repeated over the layers.
        mixers: the mixers of the pattern as configs, in place of `mixer`.
        inner: width inside the feed-forward network, or None for four times the width; 0 for blocks without one.
        activation: of the feed-forward network.
        positions: "learned" adds a position table; "none" does not; "auto" adds one only where no mixer of the stack
            knows the order of events by itself.
        input_norm: normalise embeddings before the first block.
        bias: a learned bias per item.
        scale: multiply embeddings by sqrt(width).
        scan: compile one period of the pattern and repeat it; see `recjax.mixers.stack.Stack`.
    """

    mixer: str = "attention"
    mixers: tuple[Any, ...] = ()
    inner: int | None = None
    activation: Activation = "gelu"
    positions: Positions = "auto"
    input_norm: bool = False
    bias: bool = False
    scale: bool = True
    scan: bool = False

    INNER: ClassVar[Limit] = within(0, WIDEST)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.positions == "none" and not self.stack().positional:
            refuse(self, "positions", f"a table, for no mixer ({self.mixer}) knows the order of events by itself")

    def stack(self) -> Stack:
        mixers = self.mixers or pattern(self.mixer, heads=self.heads, dropout=self.dropout)
        inner = 4 * self.width if self.inner is None else self.inner
        return self.blocks(mixers, inner, activation=self.activation, scan=self.scan)

    @property
    def longest(self) -> int | None:
        """Events that there are positions for; None for any number, where the mixers know the order."""
        learned = self.positions == "learned" or not self.stack().positional
        return self.max_length if learned else None

    def build(self, stats: ItemStats) -> DotProductModel:
        module = ItemSequenceEncoder(
            stats.items + 1,
            self.longest or 0,
            self.stack(),
            scale=self.scale,
            input_norm=self.input_norm,
            bias=self.bias,
        )
        return DotProductModel(module, self.loss, stats)


@lru_cache(maxsize=64)
def parameters(config: NextItem) -> int:
    """Parameters of the encoder and the position table: all but those of the items, which any encoder has."""
    stack = config.stack()
    x = jnp.zeros((1, 8, config.width))
    context = SeqContext(*(jnp.ones((1, 8), jnp.int32),) * 3)
    shapes = jax.eval_shape(lambda key: Encoder(stack).init(key, x, context), jax.random.key(0))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) + (config.longest or 0) * config.width


def matched(config: NextItem, like: NextItem) -> NextItem:
    """The config with the width of the feed-forward network that brings its parameters nearest to those of another.

    Mixers differ in how many parameters they have at a width; what one has more is taken from, or added to, the
    feed-forward networks, so that two encoders can be compared at equal size.

    Raises:
        InputError: the mixers alone have more than 1.05 times the parameters.
    """
    plain = replace(config, mixer="attention", mixers=(), positions="auto")  # the other networks are the same
    less, more = (parameters(replace(plain, inner=inner)) for inner in (8, 16))
    narrow, wanted, each = parameters(replace(config, inner=8)), parameters(like), (more - less) / 8
    inner = max(8, round((wanted - narrow) / each / 8) * 8 + 8)
    if (size := narrow + each * (inner - 8)) > 1.05 * wanted:
        raise InputError(
            f"{config.mixer!r} has {size:,.0f} parameters even with a feed-forward width of {inner}, more than the "
            f"{wanted:,} of {like.mixer!r}; a smaller state or a larger width of the other makes them comparable"
        )
    return replace(config, inner=inner)


def matched_settings(mixer: str, like: NextItem) -> dict[str, str]:
    """A row of a sweep: `like` with another pattern of mixers and, by `matched`, as many parameters."""
    return {"model.mixer": mixer, "model.inner": str(matched(replace(like, mixer=mixer), like).inner)}
