"""LightNet: a softmax over the past for every channel of the keys, in one scan."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from recjax.limits import SIZE, above, divides, require
from recjax.mixers.mixer import Capabilities, SeqContext, at_last, from_heads, to_heads
from recjax.mixers.parts.axes import Axis, coordinates
from recjax.mixers.parts.outer import OuterMixer, empty, read
from recjax.nn.lrpe import lrpe
from recjax.nn.norm import RMSNorm
from recjax.ops.attention.segment_product import segment_product
from recjax.ops.scan.running_logsumexp import NOTHING, cumulative_logsumexp
from recjax.typing import Array, Float, InputError


@dataclass(frozen=True)
class LightNet:
    """Additive linear attention ("You Only Scan Once", Qin et al. 2024).

    The decay of channel c is the share of the past in a running sum of exponentials of its keys, so that

        o_t = sum over i <= t of sum over c of q_tc p_tic v_i,    p_t.c = softmax over i <= t of k_ic:

    with z the running logarithm of that sum, S_t = e^(z_{t-1} - z_t) S_{t-1} + e^(k_t - z_t) v_t^T. Where it may see
    both sides the softmax is over the whole history, and one product of keys and values takes the place of the scan.
    Readings are normalised and gated by SiLU of a low-rank map.

    The weight of one event among t is of the order of 1/t: it averages and cannot forget.

    Attributes:
        heads: number of heads; divides the width.
        sink: the running sums start at 1, as if of an event with key and value 0.
        key_norm: normalise keys by their root mean square before the softmax. A stack of such mixers alone is hard to
            train without: its keys grow.
        gate_rank: width between the two matrices of the gate; None = that of a head.
        axes: axes of relative positions, channels split among them (MD-LRPE); none = no positions.
        base: of the angles of positions, see `recjax.nn.lrpe.lrpe`.
    """

    heads: int = 1
    sink: bool = False
    key_norm: bool = False
    gate_rank: int | None = None
    axes: tuple[Axis, ...] = (Axis(),)
    base: float = 10_000.0

    capabilities: ClassVar[Capabilities] = Capabilities(
        causal=True, bidirectional=True, positional=True, memory="constant", seq_sharded=True
    )

    def __post_init__(self) -> None:
        require(self, heads=SIZE, gate_rank=SIZE, base=above(1))

    def build(self, *, width: int, causal: bool, dtype: Any, name: str) -> "LightNetMixer":
        divides(self, "heads", width, "the width")
        channels = width // self.heads
        if len(self.axes) > channels:
            raise InputError(f"{len(self.axes)} axes of positions share the {channels} channels of a head: too many")
        return LightNetMixer(self, width, causal, dtype, name=name)

    def init_state(self, *, width: int, rows: int, max_length: int, dtype: Any) -> "LightNetState":
        channels = width // self.heads
        keys = 2 * channels if self.axes else channels
        sums = jnp.full((rows, self.heads, channels), self.start, jnp.float32)
        return LightNetState(empty(rows, self.heads, keys, channels), sums)

    @property
    def start(self) -> float:
        """Logarithm of the initial sum."""
        return 0.0 if self.sink else NOTHING


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LightNetState:
    """State of a row; float32 whatever the compute type.

    Attributes:
        products: S.
        sums: z, the logarithm of the sum of exponentials of the keys so far.
    """

    products: Float[Array, "b h k v"]
    sums: Float[Array, "b h c"]


class LightNetMixer(OuterMixer):
    """See `LightNet`."""

    config: LightNet

    def mix(self, x, source, context, last, state: LightNetState | None):
        c = self.config
        query, key, value = (self.dense(name)(x) for name in ("query", "key", "value"))
        query, value = to_heads(jax.nn.silu(query), c.heads), to_heads(value, c.heads)
        key = key.astype(jnp.float32).reshape(*key.shape[:2], c.heads, -1)
        if c.key_norm:
            key = RMSNorm(name="key_norm")(key)
        sums = cumulative_logsumexp(
            key, z0=None if state is None else state.sums, starts=context.starts, valid=context.valid, initial=c.start
        )
        after = None
        if self.causal:
            mixed, products = self._past(query, key, value, sums, context, state)
            after = LightNetState(products, sums[:, -1])
        else:
            mixed = self._both_sides(query, key, value, sums, context)
        mixed = RMSNorm(dtype=self.dtype, name="norm")(at_last(from_heads(mixed), last))
        gate = self.dense("gate_low", c.gate_rank or self.width // c.heads)(at_last(x, last))
        return self.dense("output")(mixed * jax.nn.silu(self.dense("gate")(gate))), after

    def _past(self, query, key, value, sums, context, state):
        first = jnp.full_like(sums[:, :1], self.config.start) if state is None else state.sums[:, None]
        before = jnp.concatenate([first, sums[:, :-1]], axis=1)
        # Sums never fall; where rounding makes them, the decay is 1. Not `minimum`, whose gradient halves at 0.
        log_decay = before - sums
        log_decay = jnp.where((log_decay > 0) | context.starts[..., None, None], 0, log_decay).swapaxes(1, 2)
        query, weight = self._placed(query, _weights(key, sums, context), context)
        if self.config.axes:
            log_decay = jnp.concatenate([log_decay, log_decay], axis=-1)
        return read(query, weight, value, log_decay, context, None if state is None else state.products)

    def _both_sides(self, query, key, value, sums, context):
        length = sums.shape[1]
        ends = jnp.where(context.ends, jnp.arange(length), length - 1)
        ends = jax.lax.cummin(ends, axis=1, reverse=True)
        totals = jnp.take_along_axis(sums, ends[..., None, None], axis=1)
        query, weight = self._placed(query, _weights(key, totals, context), context)
        return segment_product(query, weight, value, context.segments)

    def _placed(self, query: Array, weight: Array, context: SeqContext) -> tuple[Array, Array]:
        """Queries and weights with relative positions."""
        weight = weight.astype(self.dtype)
        if not self.config.axes:
            return query, weight
        places = coordinates(self.config.axes, context)
        return lrpe(query, places, self.config.base), lrpe(weight, places, self.config.base)


def _weights(key: Array, sums: Array, context: SeqContext) -> Array:
    """e^(k - z) [b, h, l, c], in [0, 1]; 0 at padding."""
    excess = jnp.where(context.valid[..., None, None], key - sums, NOTHING)
    return jnp.exp(jnp.where(excess > 0, 0, excess)).swapaxes(1, 2)
