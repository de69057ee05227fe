"""Mamba-2: a selective state space with one decay per head."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from recjax.limits import SIZE, above, divides, refuse, require, within
from recjax.mixers.mixer import Capabilities, SeqContext, at_last, from_heads, to_heads
from recjax.mixers.parts.outer import OuterMixer, empty, read
from recjax.nn.groups import ssm_params
from recjax.nn.norm import RMSNorm
from recjax.ops.scan.short_conv import short_conv
from recjax.typing import Array, Float, InputError


@dataclass(frozen=True)
class Mamba2:
    """Mamba-2, the structured state space duality (Dao & Gu 2024).

    An event is projected to a gate z, values x, an input vector B, an output vector C and, per head, a step size; a
    short convolution and SiLU run over x, B and C. With delta = softplus(step + bias) and A < 0, head by head

        S_t = e^(delta_t A) S_{t-1} + B_t (delta_t x_t)^T,    y_t = C_t S_t + D x_t,

    and the output is a projection of the root mean square norm of y * SiLU(z).

    Attributes:
        expand: width of the values, in widths.
        head_width: values of a head; divides expand * width, or is all of it where that is less.
        states: length of B and C.
        groups: pairs of B and C, shared by as many heads each; divides the heads.
        kernel: events that the convolution sees.
        delta_min: smallest step size at initialisation, before the part that depends on the event.
        delta_max: largest; sizes are log-uniform.
        decay_min: smallest -A at initialisation.
        decay_max: largest -A at initialisation.
    """

    expand: int = 2
    head_width: int = 64
    states: int = 64
    groups: int = 1
    kernel: int = 4
    delta_min: float = 1e-3
    delta_max: float = 0.1
    decay_min: float = 1.0
    decay_max: float = 16.0

    capabilities: ClassVar[Capabilities] = Capabilities(
        causal=True, positional=True, memory="constant", seq_sharded=True
    )

    def __post_init__(self) -> None:
        sizes = {name: SIZE for name in ("expand", "head_width", "states", "groups")}
        rates = {name: above(0) for name in ("delta_min", "delta_max", "decay_min", "decay_max")}
        require(self, **sizes, **rates, kernel=within(1, 256))
        for low, high in (("delta_min", "delta_max"), ("decay_min", "decay_max")):
            if getattr(self, low) > getattr(self, high):
                refuse(self, low, f"at most {high}, which is {getattr(self, high)}")

    def heads(self, width: int) -> int:
        """Number of heads.

        Raises:
            InputError: heads that do not fill the values, or groups that do not divide the heads.
        """
        inner = self.expand * width
        head = self.head_values(width)
        if inner % head:
            raise InputError(f"heads of width {head} do not divide the {inner} values of a Mamba-2 of width {width}")
        divides(self, "groups", inner // head, "the number of heads")
        return inner // head

    def head_values(self, width: int) -> int:
        return min(self.head_width, self.expand * width)

    def channels(self, width: int) -> int:
        """Channels of the convolution: x, B and C."""
        return self.expand * width + 2 * self.groups * self.states

    def build(self, *, width: int, causal: bool, dtype: Any, name: str) -> "Mamba2Mixer":
        self.heads(width)
        return Mamba2Mixer(self, width, causal, dtype, name=name)

    def init_state(self, *, width: int, rows: int, max_length: int, dtype: Any) -> "Mamba2State":
        products = empty(rows, self.heads(width), self.states, self.head_values(width))
        return Mamba2State(products, jnp.zeros((rows, self.kernel - 1, self.channels(width)), dtype))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Mamba2State:
    """State of a row.

    Attributes:
        products: S, float32.
        recent: the last inputs of the convolution, oldest first.
    """

    products: Float[Array, "b h n p"]
    recent: Float[Array, "b w c"]


class Mamba2Mixer(OuterMixer):
    """See `Mamba2`."""

    config: Mamba2

    def mix(self, x, source, context, last, state: Mamba2State | None):
        c, inner, heads = self.config, self.config.expand * self.width, self.config.heads(self.width)
        ssm = ssm_params(
            self,
            log_decay=(_log_decay(c), (heads,)),
            step_bias=(_step_bias(c), (heads,)),
            skip=(nn.initializers.ones, (heads,)),
        )
        mixed = self.dense("input", c.channels(self.width))(x)
        mixed, recent = self._convolved(mixed, context, None if state is None else state.recent)
        value, key, query = jnp.split(mixed, [inner, inner + c.groups * c.states], axis=-1)
        value = to_heads(value, heads)
        # Heads of a group share its vectors.
        key, query = (jnp.repeat(to_heads(part, c.groups), heads // c.groups, axis=1) for part in (key, query))

        # Step sizes from 1e-4 to 10 and decays close to 1: float32 throughout.
        step = self.dense("step", heads, dtype=jnp.float32)(x) + ssm["step_bias"]
        step = jax.nn.softplus(step).swapaxes(1, 2)
        log_decay = -step * jnp.exp(ssm["log_decay"])[:, None]
        scaled = (value * step[..., None]).astype(self.dtype)
        out, products = read(query, key, scaled, log_decay, context, None if state is None else state.products)
        out = at_last(from_heads(out + ssm["skip"][:, None, None] * value), last)
        out = out * jax.nn.silu(self.dense("gate", inner)(at_last(x, last)))
        out = self.dense("output")(RMSNorm(dtype=self.dtype, name="norm")(out))
        return out, None if recent is None else Mamba2State(products, recent)

    def _convolved(self, x: Array, context: SeqContext, recent: Array | None) -> tuple[Array, Array | None]:
        """The short convolution and SiLU of x, and the inputs that the next call needs."""
        bound = self.config.kernel**-0.5
        kernel = self.param("kernel", _uniform(bound), (self.config.kernel, x.shape[-1]))
        bias = self.param("bias", _uniform(bound), (x.shape[-1],))
        y, recent = short_conv(x, kernel, bias, starts=context.starts, state=recent, events=context.events)
        return jax.nn.silu(y).astype(self.dtype), recent


def _uniform(bound: float) -> nn.initializers.Initializer:
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


def _log_decay(config: Mamba2) -> nn.initializers.Initializer:
    """Logarithms of -A, which is uniform between its bounds."""

    def init(key: Array, shape: Any, dtype: Any = jnp.float32) -> Array:
        return jnp.log(jax.random.uniform(key, shape, dtype, config.decay_min, config.decay_max))

    return init


def _step_bias(config: Mamba2) -> nn.initializers.Initializer:
    """Biases whose softplus, the step size, is log-uniform between its bounds."""

    def init(key: Array, shape: Any, dtype: Any = jnp.float32) -> Array:
        bounds = math.log(config.delta_min), math.log(config.delta_max)
        step = jnp.maximum(jnp.exp(jax.random.uniform(key, shape, dtype, *bounds)), 1e-4)
        return step + jnp.log(-jnp.expm1(-step))

    return init
