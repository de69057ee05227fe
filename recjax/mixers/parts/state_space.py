"""Time-invariant state space as a mixer: the shared part of S4 and S4D."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from recjax.limits import RATE, SIZE, above, divides, refuse, require, within
from recjax.mixers.mixer import Capabilities, Mixer, at_last
from recjax.nn.dropout import Dropout
from recjax.nn.groups import ssm_params
from recjax.ops.scan.lti_conv import lti_conv
from recjax.ops.scan.ssm import Complex128, Step, log_uniform, recur
from recjax.typing import Array, Bool, Float

Declared = dict[str, tuple[nn.initializers.Initializer, tuple[int, ...]]]


@dataclass(frozen=True)
class StateSpace(ABC):
    """A state space for each channel, run as a convolution over whole histories and as a recurrence over single events.

    Its kernel never changes, so it cannot forget in the middle of a row: rows hold one history each
    (`data.pack=false`). C is a parameter itself, not C (I - Abar^L): a model trained on one length is the same function
    on any other, and resumes event by event whatever that length was.

    Attributes:
        states: N, size of the state of a channel; even, since states come in conjugate pairs.
        dt_min: smallest step size at initialisation; a channel remembers about 1 / dt events.
        dt_max: largest; sizes are spread evenly on a logarithmic scale.
        systems: sets of poles and inputs, each shared by as many neighbouring channels; divides the width.
        dropout: rate on the activations before the output projection.
    """

    states: int = 64
    dt_min: float = 1e-3
    dt_max: float = 0.1
    systems: int = 1
    dropout: float = 0.0

    capabilities: ClassVar[Capabilities] = Capabilities(
        causal=True, bidirectional=True, packing=False, positional=True, memory="constant"
    )

    def __post_init__(self) -> None:
        require(self, states=within(2, 1024), dt_min=above(0), dt_max=above(0), systems=SIZE, dropout=RATE)
        if self.states % 2:
            refuse(self, "states", "an even number, since they come in conjugate pairs")
        if self.dt_min > self.dt_max:
            refuse(self, "dt_min", f"at most dt_max, which is {self.dt_max}")

    def build(self, *, width: int, causal: bool, dtype: Any, name: str) -> "StateSpaceMixer":
        divides(self, "systems", width, "the width")
        return StateSpaceMixer(self, width, causal, dtype, name=name)

    def init_state(self, *, width: int, rows: int, max_length: int, dtype: Any) -> Array:
        return jnp.zeros((rows, width, self.states // 2), jnp.complex64)

    @abstractmethod
    def declared(self, width: int) -> Declared:
        """The parameters of step sizes, poles and inputs."""

    @abstractmethod
    def step(self, ssm: Any, width: int) -> Step:
        """One step of every channel."""

    @abstractmethod
    def kernel(self, ssm: Any, c: Array, length: int) -> Float[Array, "d k l"]:
        """The first taps of every channel, for C complex64 [d, k, n]."""

    def _declared(self, width: int, poles: Complex128, **values: Complex128) -> Declared:
        """Step sizes of each channel; poles and further complex values [n] of `systems` equal copies.

        The real part of a pole is -exp(log_decay): negative whatever is learned, and nowhere without a gradient.
        """

        def copies(value: np.ndarray) -> tuple[nn.initializers.Initializer, tuple[int, ...]]:
            init = lambda key, shape, dtype=jnp.float32: jnp.broadcast_to(jnp.asarray(value, dtype), shape)  # noqa: E731
            return init, (self.systems, *value.shape)

        return {
            "log_dt": (log_uniform(self.dt_min, self.dt_max), (width,)),
            "log_decay": copies(np.log(-poles.real)),
            "frequency": copies(poles.imag),
            **{name: copies(np.stack([value.real, value.imag], axis=-1)) for name, value in values.items()},
        }


def as_complex(pairs: Float[Array, "*n 2"]) -> Array:
    """Complex64 [*n]. Parameters are pairs of real numbers, for which optimisers are written."""
    return jax.lax.complex(pairs[..., 0], pairs[..., 1])


def channels(ssm: Any, width: int, *names: str) -> tuple[Array, ...]:
    """Step sizes [d], then poles and the values of those names, complex64 [d, n]; neighbours share a system."""
    poles = jax.lax.complex(-jnp.exp(ssm["log_decay"]), ssm["frequency"])
    values = (poles, *(as_complex(ssm[name]) for name in names))
    return jnp.exp(ssm["log_dt"]), *(jnp.repeat(value, width // value.shape[0], axis=0) for value in values)


class StateSpaceMixer(Mixer):
    """y = conv(u) + D u, then a GELU and a gated linear unit, as the block of the official S4 has them.

    Padding is set to 0, which leaves a zero state unchanged: left padding changes nothing. The convolution and the
    state are float32 whatever `dtype` is. With `causal=False` a second C reads the same state space run over the
    future, from the row's end to the next event.

    The state of a row is complex64 [b, d, states / 2].
    """

    config: StateSpace

    zero_padding = True

    def mix(self, x, source, context, last, state):
        config, width = self.config, self.width
        ssm = ssm_params(self, **config.declared(width))
        shape = (width, 1 if self.causal else 2, config.states // 2, 2)
        c = as_complex(self.param("C", nn.initializers.normal(0.5**0.5), shape))
        skip = self.param("D", nn.initializers.normal(1.0), (width,))

        u = x.astype(jnp.float32)
        if state is None:
            y = lti_conv(u, config.kernel(ssm, c, u.shape[1]))
        else:
            y, state = recur(config.step(ssm, width), c[:, 0], u, _known(state, context.continues), context.valid)
        y = at_last((y + skip * u).astype(self.dtype), last)
        y = Dropout(config.dropout)(jax.nn.gelu(y))
        return nn.glu(self.dense("output", 2 * width)(y)), state


def _known(state: Array, continues: Bool[Array, " b"] | None) -> Array:
    """The state before a row's first event: 0 for a history that begins there."""
    return state if continues is None else jnp.where(continues[:, None, None], state, 0)
