"""Toeplitz position encoding: convolutions with sums of exponentials."""

from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from recjax.limits import SIZE, divides, refuse, require
from recjax.mixers.mixer import Capabilities, SeqContext, at_last, from_heads, to_heads
from recjax.mixers.parts.axes import Axis, coordinates
from recjax.mixers.parts.outer import OuterMixer, empty
from recjax.nn.groups import ssm_params
from recjax.nn.norm import RMSNorm
from recjax.ops.scan.outer import outer_scan
from recjax.typing import Array, Float, Int


@dataclass(frozen=True)
class Toeplitz:
    """Toeplitz position encoding, TPE, and its form for several axes, MD-TPE (Qin et al. 2024).

    Each head mixes the past by a kernel that does not depend on the events,

        o_t = norm(sum over i <= t of K(c_t - c_i) x_i),   K(n) = sum over s of q_s k_s decay_s^n.

    It gives the order of events to later mixers that do not know it, so it stands first in a pattern: "toeplitz,
    lightnet, lightnet".

    With several axes it is the sum over them, each with a kernel of its own and with distances c_t - c_i measured along
    it; where a coordinate falls (the slot at the next item), the axis resets. All are one scan.

    Attributes:
        heads: number of kernels; divides the width.
        size: exponentials of a kernel.
        axes: axes of the distances.
    """

    heads: int = 1
    size: int = 16
    axes: tuple[Axis, ...] = (Axis(),)

    capabilities: ClassVar[Capabilities] = Capabilities(
        causal=True, positional=True, memory="constant", seq_sharded=True
    )

    def __post_init__(self) -> None:
        require(self, heads=SIZE, size=SIZE)
        if not self.axes:
            refuse(self, "axes", "one axis or more")

    def build(self, *, width: int, causal: bool, dtype: Any, name: str) -> "ToeplitzMixer":
        divides(self, "heads", width, "the width")
        return ToeplitzMixer(self, width, causal, dtype, name=name)

    def init_state(self, *, width: int, rows: int, max_length: int, dtype: Any) -> "ToeplitzState":
        axes = len(self.axes)
        sums = empty(rows, axes * self.heads, self.size, width // self.heads)
        return ToeplitzState(sums, jnp.zeros((rows, axes), jnp.int32))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ToeplitzState:
    """State of a row.

    Attributes:
        sums: the decayed sums of the past, [axes x heads] of them.
        coordinates: of the last event, on each axis.
    """

    sums: Float[Array, "b mh s c"]
    coordinates: Int[Array, "b m"]


class ToeplitzMixer(OuterMixer):
    """See `Toeplitz`."""

    config: Toeplitz

    def mix(self, x, source, context, last, state: ToeplitzState | None):
        c = self.config
        rows, length, axes = x.shape[0], x.shape[1], len(c.axes)
        kernels = (axes, c.heads, c.size)
        decay = ssm_params(self, decay=(_decays, kernels))["decay"]
        spread = nn.initializers.normal(c.size**-0.5)
        query, key = (self.param(name, spread, kernels) for name in ("query", "key"))

        # Axes are rows of their own, so that each can reset by itself.
        steps, starts, reached = _steps(coordinates(c.axes, context), context, state)
        log_decay = steps[..., None, :, None].astype(jnp.float32) * jax.nn.log_sigmoid(decay)[:, :, None]
        value = to_heads(x, c.heads)[:, None]
        value = jnp.broadcast_to(value, (rows, axes, *value.shape[2:]))
        each = (rows, axes, c.heads, length, c.size)
        weights = (jnp.broadcast_to(part[:, :, None].astype(self.dtype), each) for part in (query, key))
        per_axis = lambda part: part.reshape(rows * axes, *part.shape[2:])  # noqa: E731
        mixed, sums = outer_scan(
            *map(per_axis, (*weights, value, log_decay)),
            s0=None if state is None else state.sums.reshape(rows * axes, c.heads, *state.sums.shape[2:]),
            starts=per_axis(starts),
            valid=jnp.repeat(context.valid, axes, axis=0),
        )
        mixed = jnp.sum(mixed.reshape(rows, axes, *mixed.shape[1:]), axis=1)
        mixed = RMSNorm(dtype=self.dtype, name="norm")(at_last(from_heads(mixed), last))
        sums = sums.reshape(rows, axes * c.heads, *sums.shape[2:])
        return self.dense("output")(mixed), ToeplitzState(sums, reached)


def _decays(key: Array, shape: tuple[int, ...]) -> Array:
    """Logits of decays that remember 1 to 1,000 steps, evenly spaced on a logarithmic scale within each kernel."""
    memory = np.geomspace(1.0, 1000.0, shape[-1])
    decay = np.exp(-1 / memory)
    return jnp.broadcast_to(jnp.asarray(np.log(decay / (1 - decay)), jnp.float32), shape)


def _steps(places: Array, context: SeqContext, state: ToeplitzState | None) -> tuple[Array, Array, Array]:
    """Along each axis: distances from the event before, resets, both [b, m, l], and the last coordinate [b, m].

    An event's predecessor is the last event before it; padding between the two is skipped.
    """
    at = jnp.where(context.valid, jnp.arange(places.shape[1]), -1)
    at = jax.lax.cummax(at, axis=1)
    first = jnp.zeros_like(places[:, 0]) if state is None else state.coordinates
    padded = jnp.concatenate([first[:, None], places], axis=1)
    known = jnp.take_along_axis(padded, at[..., None] + 1, axis=1)
    before = jnp.concatenate([first[:, None], known[:, :-1]], axis=1)
    steps = jnp.where(context.valid[..., None], places - before, 0)
    starts = context.starts[..., None] | (steps < 0)
    steps = jnp.where(starts, 0, steps)
    return steps.swapaxes(1, 2), starts.swapaxes(1, 2), known[:, -1]
