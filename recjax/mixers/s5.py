"""S5, the simplified state space layer, as a mixer."""

from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Complex

from recjax.limits import SIZE, above, refuse, require, within
from recjax.mixers.mixer import Capabilities, Mixer, SeqContext, at_last
from recjax.mixers.parts.diagonal import product, real_product, states
from recjax.nn.dense import Dense
from recjax.nn.groups import ssm_params
from recjax.ops.scan.ssm import legs_dplr, log_uniform
from recjax.typing import Array, InputError, Int

DAY = 86_400
"""Seconds: the unit that gaps between events are counted in."""


@dataclass(frozen=True)
class S5:
    """Simplified state space layer (Smith, Warrington & Linderman, ICLR 2023).

    One system for all channels, x' = A x + B u, y = C x + D u, made diagonal and discrete by zero-order hold:

        x_t = exp(step A) x_{t-1} + (exp(step A) - 1) / A * B u_t,   y_t = 2 Re(C x_t) + D u_t.

    A starts as blocks of HiPPO-N, whose eigenvalues come in conjugate pairs, one of each stored. Steps belong to
    states and start log-uniformly between `step_min` and `step_max`.

    Bidirectional: a second scan from the last event to the first, its states read by a C of its own.

    Attributes:
        state: size of the system, half of which is stored, or None for the width; a multiple of 2 * blocks.
        blocks: HiPPO-N blocks.
        step_min: least step at initialisation; the memory of a state is about 2 / step events.
        step_max: largest step at initialisation.
        times: let time pass between events: the state decays over 1 + log(1 + gap) steps, the gap in days, instead of
            one step. Needs timestamps.
        gate: y * sigmoid(W gelu(y)) in place of y, the layer's own nonlinearity ("half_glu2").
    """

    state: int | None = None
    blocks: int = 4
    step_min: float = 1e-3
    step_max: float = 1e-1
    times: bool = False
    gate: bool = True

    capabilities: ClassVar[Capabilities] = Capabilities(
        causal=True, bidirectional=True, positional=True, memory="constant", seq_sharded=True, times=True
    )

    def __post_init__(self) -> None:
        require(self, state=within(1, 4096), blocks=SIZE, step_min=above(0), step_max=above(0))
        if self.step_min >= self.step_max:
            refuse(self, "step_min", f"a number below step_max, which is {self.step_max}")

    def size(self, width: int) -> int:
        """Complex numbers of the state of one direction.

        Raises:
            InputError: a system that does not divide into blocks of conjugate pairs.
        """
        whole = width if self.state is None else self.state
        if whole < 1 or whole % (2 * self.blocks):
            raise InputError(f"a state of {whole} does not divide into {self.blocks} blocks of pairs")
        return whole // 2

    def build(self, *, width: int, causal: bool, dtype: Any, name: str) -> "S5Mixer":
        self.size(width)
        return S5Mixer(self, width, causal, dtype, name=name)

    def init_state(self, *, width: int, rows: int, max_length: int, dtype: Any) -> "S5State":
        return S5State(jnp.zeros((rows, self.size(width)), jnp.complex64), jnp.zeros(rows, jnp.int32))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class S5State:
    """State of S5.

    Attributes:
        hidden: the system's state.
        time: of the last event; 0 where times are not read.
    """

    hidden: Complex[Array, "b n"]
    time: Int[Array, " b"]


class S5Mixer(Mixer):
    """See `S5`."""

    config: S5

    def mix(self, x, source, context, last, state: S5State | None):
        c, size, runs = self.config, self.config.size(self.width), 1 if self.causal else 2
        start = Start(c.blocks, size // c.blocks)
        ssm = ssm_params(
            self,
            eigenvalues=(lambda key, shape: jnp.asarray(start.eigenvalues(), jnp.float32), (size, 2)),
            log_step=(log_uniform(c.step_min, c.step_max), (size,)),
            input=(start.input, (self.width, size, 2)),
        )
        output = self.param("output", start.output, (runs * size, self.width, 2))
        skip = self.param("skip", nn.initializers.normal(1.0), (self.width,))

        x = x.astype(self.dtype)
        rate, inputs = self._discrete(ssm, x)
        decays, time = self._decays(rate, context, state)
        before = None if state is None else state.hidden
        h, after = states(decays[0], inputs, context, self.causal, before, decays[1])
        y = 2 * real_product(at_last(h, last), output, self.dtype) + at_last(x, last) * skip.astype(self.dtype)
        if c.gate:
            y *= jax.nn.sigmoid(Dense(self.width, dtype=self.dtype, name="gate")(jax.nn.gelu(y)))
        return y, S5State(after, time)

    def _discrete(self, ssm: Any, x: Array) -> tuple[Array, Array]:
        """Complex log decays of one step, [n], and the inputs to the states, [b, l, n] (zero-order hold)."""
        eigenvalues = jax.lax.complex(-jnp.exp(ssm["eigenvalues"][:, 0]), ssm["eigenvalues"][:, 1])
        rate = eigenvalues * jnp.exp(ssm["log_step"])
        return rate, product(x, ssm["input"]) * (jnp.expm1(rate) / eigenvalues)

    def _decays(self, rate: Array, context: SeqContext, state: S5State | None) -> tuple[tuple[Any, Any], Array]:
        """Decays of the forward and the backward scan, and the time of the last event."""
        if not self.config.times:
            rows = context.segments.shape[0]
            return (jnp.exp(rate), None), jnp.zeros(rows, jnp.int32)
        times = context.seconds("S5 with times=true")
        first = times[:, :1] if state is None else state.time[:, None]
        gaps = jnp.maximum(times - jnp.concatenate([first, times[:, :-1]], axis=1), 0).astype(jnp.float32) / DAY
        steps = 1 + jnp.log1p(gaps)
        later = jnp.concatenate([steps[:, 1:], jnp.ones_like(steps[:, :1])], axis=1)
        forward, backward = (jnp.exp(rate * x[..., None]) for x in (steps, later))
        latest = jnp.maximum(first[:, 0], jnp.max(jnp.where(context.valid, times, 0), axis=1))
        return (forward, None if self.causal else backward), latest


@dataclass(frozen=True)
class Start:
    """Initial parameters of a system of `blocks` HiPPO-N blocks with `size` eigenvalues each.

    HiPPO-N is the normal part of HiPPO-LegS (Gu et al. 2022, theorem 1).
    """

    blocks: int
    size: int

    def eigenvalues(self) -> np.ndarray:
        """float64 [n, 2]: log(-real part) and imaginary part."""
        found = np.tile(legs_dplr(2 * self.size).poles[self.size :], self.blocks)
        return np.stack([np.log(-np.real(found)), np.imag(found)], axis=-1)

    def input(self, key: Array, shape: tuple[int, ...]) -> Array:
        """V* B of a real B whose entries have variance 1 / width: [d, n, 2]."""
        real = jax.random.normal(key, (shape[0], self.blocks, 2 * self.size)) * shape[0] ** -0.5
        return _pairs(jnp.einsum("dbp,pn->dbn", real, self._vectors().conj()), shape)

    def output(self, key: Array, shape: tuple[int, ...]) -> Array:
        """C V of a complex C whose parts have the variance 1 / size of the system: [runs * n, d, 2]."""
        runs = shape[0] // (self.blocks * self.size)
        parts = jax.random.normal(key, (2, runs * self.blocks, 2 * self.size, shape[1]))
        whole = jax.lax.complex(parts[0], parts[1]) * (2 * self.size * self.blocks) ** -0.5
        return _pairs(jnp.einsum("bpd,pn->bnd", whole, self._vectors()), shape)

    def _vectors(self) -> Array:
        """Eigenvectors of a block that belong to the stored eigenvalues, complex64 [2n, n]."""
        return jnp.asarray(legs_dplr(2 * self.size).basis[:, self.size :], jnp.complex64)


def _pairs(x: Array, shape: tuple[int, ...]) -> Array:
    """Complex numbers as pairs of reals."""
    return jnp.stack([x.real, x.imag], axis=-1).reshape(shape)
