"""The linear recurrent unit as a mixer."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Complex

from recjax.limits import SIZE, above, refuse, require, within
from recjax.mixers.mixer import Capabilities, Mixer, at_last
from recjax.mixers.parts.diagonal import product, real_product, states
from recjax.nn.groups import ssm_params
from recjax.typing import Array, Float


@dataclass(frozen=True)
class LRU:
    """Linear recurrent unit (Orvieto et al. 2023): a complex diagonal recurrence with learned decays.

        h_t = lambda * h_{t-1} + gamma * (B x_t),   y_t = Re(C h_t) + D * x_t,   lambda = exp(-exp(nu) + i exp(theta))

    The eigenvalues start uniformly on the ring r_min <= |lambda| <= r_max with phases in [0, max_phase], and
    gamma = sqrt(1 - |lambda|^2), learned too, gives every state the variance of its input. The recommender built on it
    is LRURec (Yue et al. 2024), which leaves D to the block's residual stream.

    Bidirectional: a second scan from the last event to the first, its states concatenated to those of the first.

    Attributes:
        state: complex numbers of the state, or None for twice the width.
        r_min: least modulus of an eigenvalue at initialisation.
        r_max: largest modulus; the memory of a state is about 1 / (1 - |lambda|) events.
        max_phase: largest phase, in radians; 2 pi covers the ring.
        skip: the term D * x.
    """

    state: int | None = None
    r_min: float = 0.8
    r_max: float = 0.99
    max_phase: float = 2 * math.pi
    skip: bool = True

    capabilities: ClassVar[Capabilities] = Capabilities(
        causal=True, bidirectional=True, positional=True, memory="constant", seq_sharded=True
    )

    def __post_init__(self) -> None:
        require(self, state=SIZE, r_min=within(0, 1), r_max=within(0, 1), max_phase=above(0))
        if self.r_min >= self.r_max:
            refuse(self, "r_min", f"a number below r_max, which is {self.r_max}")

    def size(self, width: int) -> int:
        """Complex numbers of the state of one direction."""
        return 2 * width if self.state is None else self.state

    def build(self, *, width: int, causal: bool, dtype: Any, name: str) -> "LRUMixer":
        return LRUMixer(self, width, causal, dtype, name=name)

    def init_state(self, *, width: int, rows: int, max_length: int, dtype: Any) -> Complex[Array, "b n"]:
        return jnp.zeros((rows, self.size(width)), jnp.complex64)


class LRUMixer(Mixer):
    """See `LRU`."""

    config: LRU

    def mix(self, x, source, context, last, state):
        size, runs = self.config.size(self.width), 1 if self.causal else 2
        ssm = ssm_params(
            self,
            ring=(self._ring, (3, size)),
            input=(nn.initializers.normal((2 * self.width) ** -0.5), (self.width, size, 2)),
        )
        output = self.param("output", nn.initializers.normal((runs * size) ** -0.5), (runs * size, self.width, 2))
        x = x.astype(self.dtype)
        decay, scale = eigenvalues(ssm["ring"])
        h, after = states(decay, product(x, ssm["input"]) * scale, context, self.causal, state)
        y = real_product(at_last(h, last), output, self.dtype)
        if self.config.skip:
            skip = self.param("skip", nn.initializers.normal(1.0), (self.width,))
            y += at_last(x, last) * skip.astype(self.dtype)
        return y, after

    def _ring(self, key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        """nu, theta and the logarithm of gamma, float32 [3, n] (Orvieto et al. 2023, lemma 3.2 and eq. 7)."""
        c = self.config
        radius, phase = jax.random.uniform(key, (2, shape[1]), dtype, minval=1e-6)
        squared = radius * (c.r_max**2 - c.r_min**2) + c.r_min**2
        nu = jnp.log(-0.5 * jnp.log(jnp.minimum(squared, 1 - 1e-6)))
        return jnp.stack([nu, jnp.log(c.max_phase * phase), 0.5 * jnp.log(-jnp.expm1(-2 * jnp.exp(nu)))])


def eigenvalues(ring: Float[Array, "3 n"]) -> tuple[Array, Array]:
    """lambda, complex64 [n], and gamma, float32 [n]."""
    nu, theta, gamma = ring
    return jnp.exp(jax.lax.complex(-jnp.exp(nu), jnp.exp(theta))), jnp.exp(gamma)
