"""The real-gated linear recurrent unit and the recurrent block around it, as a mixer."""

from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from recjax.limits import SIZE, between, divides, refuse, require, within
from recjax.mixers.mixer import Capabilities, Mixer, at_last
from recjax.nn.dense import Dense
from recjax.nn.groups import ssm_params
from recjax.ops.scan.elementwise import linear_scan
from recjax.ops.scan.short_conv import short_conv
from recjax.typing import Array, Float

SHARPNESS = 8.0
"""The c of a_t = a^(c r_t) (De et al. 2024, eq. 6)."""

STEEPEST = 1000.0
"""Bound on the derivative of the square root in the input's scale."""


@dataclass(frozen=True)
class RGLRU:
    """The recurrent block of Griffin (De et al. 2024, sections 2.3 and 2.4).

        y_t = W_o (gelu(W_y x_t) * h_t),          u = conv(W_x x)
        h_t = a_t * h_{t-1} + sqrt(1 - a_t^2) * (i_t * u_t)
        a_t = exp(-8 r_t softplus(Lambda)),       r_t, i_t = sigmoid of block-diagonal maps of u_t

    A history's first event enters with factor 1 in place of sqrt(1 - a_t^2), since the state before it is 0.

    Attributes:
        inner: width of the recurrence, or None for the model's.
        heads: blocks of the gates' maps; divides the inner width.
        kernel: events that the short convolution sees.
        r_min: least decay at initialisation, before the gate's exponent.
        r_max: largest.
    """

    inner: int | None = None
    heads: int = 1
    kernel: int = 4
    r_min: float = 0.9
    r_max: float = 0.999

    capabilities: ClassVar[Capabilities] = Capabilities(
        causal=True, positional=True, memory="constant", seq_sharded=True
    )

    def __post_init__(self) -> None:
        require(self, inner=SIZE, heads=SIZE, kernel=within(1, 256), r_min=between(0, 1), r_max=between(0, 1))
        if self.r_min >= self.r_max:
            refuse(self, "r_min", f"a number below r_max, which is {self.r_max}")

    def build(self, *, width: int, causal: bool, dtype: Any, name: str) -> "RGLRUMixer":
        inner = self.inner or width
        divides(self, "heads", inner, "the inner width")
        return RGLRUMixer(self, width, causal, dtype, name=name)

    def init_state(self, *, width: int, rows: int, max_length: int, dtype: Any) -> "RGLRUState":
        inner = self.inner or width
        return RGLRUState(jnp.zeros((rows, inner)), jnp.zeros((rows, self.kernel - 1, inner), dtype))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RGLRUState:
    """State of the block.

    Attributes:
        hidden: the recurrence's state.
        recent: inputs of the short convolution, oldest first.
    """

    hidden: Float[Array, "b e"]
    recent: Float[Array, "b m e"]


class RGLRUMixer(Mixer):
    """See `RGLRU`."""

    config: RGLRU

    def mix(self, x, source, context, last, state: RGLRUState | None):
        c = self.config
        inner = c.inner or self.width
        wide = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
        kernel = self.param("kernel", nn.initializers.normal((0.01 / c.kernel) ** 0.5), (c.kernel, inner))
        bias = self.param("bias", nn.initializers.zeros, (inner,))
        u, recent = short_conv(
            Dense(inner, dtype=self.dtype, kernel_init=wide, name="input")(x),
            kernel,
            bias,
            starts=context.starts,
            state=None if state is None else state.recent,
            events=context.events,
        )
        log_a, scaled = self._gated(u, context.starts)
        h0 = None if state is None else state.hidden
        h, after = linear_scan(jnp.exp(log_a), scaled, h0=h0, starts=context.starts, valid=context.valid)
        x, h = at_last(x, last), at_last(h, last)
        gate = jax.nn.gelu(Dense(inner, dtype=self.dtype, kernel_init=wide, name="gate")(x))
        y = Dense(self.width, dtype=self.dtype, kernel_init=wide, name="output")(gate * h.astype(self.dtype))
        return y, None if recent is None else RGLRUState(after, recent)

    def _gated(self, u: Float[Array, "b l e"], starts: Array) -> tuple[Array, Array]:
        """Logarithms of the decays and the inputs of the recurrence, float32."""
        c, inner = self.config, u.shape[-1]
        rate = jax.nn.softplus(ssm_params(self, decay=(self._decay, (inner,)))["decay"])
        blocks = u.reshape(*u.shape[:2], c.heads, -1)
        gates = []
        for name in ("recurrence", "entry"):
            init = nn.initializers.variance_scaling(1.0, "fan_in", "normal", batch_axis=0)
            weights = self.param(f"{name}_kernel", init, (c.heads, inner // c.heads, inner // c.heads))
            bias = self.param(f"{name}_bias", nn.initializers.zeros, (inner,))
            mixed = jnp.einsum("blhi,hij->blhj", blocks, weights.astype(u.dtype)).reshape(u.shape)
            gates.append(jax.nn.sigmoid(mixed.astype(jnp.float32) + bias))
        log_a = -SHARPNESS * gates[0] * rate
        room = jnp.where(starts[..., None], 1.0, root(-jnp.expm1(2 * log_a)))
        return log_a, room * gates[1] * u.astype(jnp.float32)

    def _decay(self, key: Array, shape: tuple[int, ...]) -> Array:
        """Lambda with exp(-softplus(Lambda))^2 uniform in [r_min^2, r_max^2]."""
        low, high = self.config.r_min**2, self.config.r_max**2
        rate = -0.5 * jnp.log(jax.random.uniform(key, shape, minval=low, maxval=high))
        return jnp.log(jnp.expm1(rate))


@jax.custom_jvp
def root(x: Array) -> Array:
    """The square root, whose derivative is bounded where the input is next to 0: a decay of almost 1."""
    return jnp.sqrt(x)


@root.defjvp
def _root_derivative(primals, tangents):
    (x,), (dx,) = primals, tangents
    y = jnp.sqrt(x)
    return y, dx * (0.5 / jnp.maximum(y, 0.5 / STEEPEST))
