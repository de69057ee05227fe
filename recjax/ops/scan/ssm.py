"""Linear time-invariant state spaces: S4 (Gu, Goel & Ré 2022) and its diagonal form S4D (Gu et al. 2022).

A channel turns a sequence of numbers u into another one, y, through a state of N complex numbers x. In time t,

    x'(t) = A x(t) + B u(t),    y(t) = 2 Re(C x(t)),

which steps of size dt make a recurrence, x_l = Abar x_{l-1} + Bbar u_l. It can be run event by event (`recur`). Since
it never changes it is also a convolution with the kernel K_l = 2 Re(C Abar^l Bbar), which takes whole histories at once
(`diagonal_kernel` or `dplr_kernel`, and `recjax.ops.scan.lti_conv`).

States come in conjugate pairs, of which one each is kept: hence 2 Re. A is diagonal, or diagonal plus low rank (DPLR),

    A x = poles * x - P 2 Re(P^* x),

2 Re since P has its conjugate half, too. Nothing depends on the length of the histories: C is learned itself, not
C (I - Abar^L), which the S4 of the paper learns.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from numpy.typing import NDArray

from recjax.ops.mesh_axes import dividing_axis
from recjax.typing import MODEL_AXIS, Array, Bool, Float

Diagonal = Literal["lin", "inv", "legs", "real"]
Complex128 = NDArray[np.complex128]

BLOCK_ELEMENTS = 2**24
"""Complex numbers that the sums of a kernel may hold at a time; beyond, channels are handled in blocks."""

DAMPING = 0.25
"""|z|^L of the points where the generating function of a DPLR kernel is evaluated. On the unit circle, 1, points may
fall as close to a slow pole as its decay is small, where float32 has no digits left. Away from it, errors grow by at
most 1 / DAMPING when the damping is undone. Largest error for 4 and 64 states, steps of 0.001 to 0.1, rows of 15 to
1,024, of the kernel's largest value: 1.5e-5 with 1, 4e-6 with 0.5, 2.3e-6 with 0.25."""


def hippo_legs(states: int) -> tuple[np.ndarray, np.ndarray]:
    """A [n, n] and B [n] of HiPPO-LegS (Gu et al. 2020), float64: the state holds Legendre coefficients of the past."""
    n = np.arange(states)
    scale = np.sqrt(2.0 * n + 1.0)
    return -np.tril(np.outer(scale, scale), -1) - np.diag(n + 1.0), scale


class DPLR(NamedTuple):
    """V (diag(poles) - low_rank low_rank^*) V^* = A and V inputs = B, complex128.

    Attributes:
        basis: V [n, n], unitary.
        poles: [n], by rising imaginary part; number n - 1 - i is the conjugate of number i.
        low_rank: [n].
        inputs: [n]; real and positive, which settles the phases of V's columns that linear algebra leaves open.
    """

    basis: Complex128
    poles: Complex128
    low_rank: Complex128
    inputs: Complex128


def legs_dplr(states: int) -> DPLR:
    """HiPPO-LegS as a diagonal plus low-rank matrix (Gu, Goel & Ré 2022, theorem 1), on the host in float64.

    With P_n = sqrt(n + 1/2), A + P P^T is -1/2 times the identity plus a skew-symmetric matrix, so that its
    eigenvectors are orthogonal and its eigenvalues have the real part -1/2 exactly. Found in float32 they would rebuild
    A only to 1e-4.
    """
    a, b = hippo_legs(states)
    p = np.sqrt(np.arange(states) + 0.5)
    skew = a + np.outer(p, p) + 0.5 * np.eye(states)
    frequencies, basis = np.linalg.eigh(-1j * skew)
    inputs = basis.conj().T @ b
    basis = (basis * (inputs / np.abs(inputs))).astype(np.complex128)
    return DPLR(basis, -0.5 + 1j * frequencies, basis.conj().T @ p, np.abs(inputs) + 0j)


def legs_pairs(states: int) -> tuple[Complex128, Complex128, Complex128]:
    """`poles`, `low_rank` and `inputs` of `legs_dplr`, [states / 2] each: those with a positive imaginary part."""
    full = legs_dplr(states)
    half = slice(states // 2, None)
    return full.poles[half], full.low_rank[half], full.inputs[half]


def diagonal_pairs(init: Diagonal, states: int) -> tuple[Complex128, Complex128]:
    """Poles and inputs of a diagonal state space, complex128 [states / 2] each (Gu et al. 2022, section 4).

    * "lin": -1/2 + i pi n, a Fourier basis;
    * "inv": -1/2 + i N/pi (N / (2n + 1) - 1), close to the poles of HiPPO-LegS;
    * "legs": the poles of HiPPO-LegS themselves, with half its inputs: in the limit of many states the kernel is then
      that of the whole matrix (theorem 3);
    * "real": -(n + 1), decays without oscillation.
    """
    n = np.arange(states // 2)
    if init == "legs":
        poles, _, inputs = legs_pairs(states)
        return poles, inputs / 2.0
    poles = {
        "lin": -0.5 + 1j * np.pi * n,
        "inv": -0.5 + 1j * states / np.pi * (states / (2.0 * n + 1.0) - 1.0),
        "real": -(n + 1.0) + 0j,
    }[init].astype(np.complex128)
    return poles, np.ones_like(poles)


def log_uniform(low: float, high: float) -> Callable[..., Array]:
    """An initialiser of logarithms of step sizes, spread evenly between log(low) and log(high)."""

    def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, np.log(low), np.log(high))

    return init


class DiagonalStep(NamedTuple):
    """One step of every channel, x -> keep * x + inputs * u; arrays are complex64 [d, n].

    Attributes:
        keep: Abar.
        inputs: Bbar.
        exponent: log(keep), without the rounding of keep.
    """

    keep: Array
    inputs: Array
    exponent: Array

    def __call__(self, x: Array, u: Array) -> Array:
        """The states [b, d, n] after inputs [b, d]."""
        return self.keep * x + self.inputs * u[..., None]


class DPLRStep(NamedTuple):
    """One step of every channel, x -> keep * x - spread * Re(sum(read * x)) + inputs * u; arrays are complex64 [d, n].

    Attributes:
        keep: diagonal part of Abar.
        inputs: Bbar.
        spread: left factor of its low-rank part.
        read: right factor.
    """

    keep: Array
    inputs: Array
    spread: Array
    read: Array

    def __call__(self, x: Array, u: Array) -> Array:
        """The states [b, d, n] after inputs [b, d]."""
        low = jnp.sum(self.read * x, axis=-1, keepdims=True).real
        return self.keep * x - self.spread * low + self.inputs * u[..., None]


Step = DiagonalStep | DPLRStep


def zoh(dt: Float[Array, " d"], poles: Array, inputs: Array) -> DiagonalStep:
    """A diagonal state space whose input is held for a step: Abar = e^(dt A), Bbar = (e^(dt A) - 1) / A B.

    Args:
        dt: step sizes.
        poles: A, complex64 [d, n], with negative real parts.
        inputs: B, complex64 [d, n].
    """
    exponent = dt[:, None] * poles
    return DiagonalStep(jnp.exp(exponent), jnp.expm1(exponent) / poles * inputs, exponent)


def bilinear(dt: Float[Array, " d"], poles: Array, inputs: Array) -> DiagonalStep:
    """The trapezoidal rule for a diagonal state space: Abar = (1 + dt/2 A) / (1 - dt/2 A), Bbar = dt B / (1 - dt/2 A).

    Arguments are those of `zoh`.
    """
    half = dt[:, None] * poles / 2.0
    inverse = 1.0 / (1.0 - half)
    # A pole at -2 / dt forgets everything at once, which has no logarithm.
    exponent = jnp.log1p(jnp.where(half == -1.0, half + 1e-7, half)) - jnp.log1p(-half)
    return DiagonalStep(1.0 + 2.0 * half * inverse, dt[:, None] * inverse * inputs, exponent)


def bilinear_dplr(dt: Float[Array, " d"], poles: Array, inputs: Array, low_rank: Array) -> DPLRStep:
    """The trapezoidal rule: Abar = (I - dt/2 A)^-1 (I + dt/2 A), Bbar = (I - dt/2 A)^-1 dt B.

    The inverse is that of Sherman and Morrison, so that a step takes a time linear in the states.

    Args:
        dt: step sizes.
        poles: diagonal part of A, complex64 [d, n], with negative real parts.
        inputs: B, complex64 [d, n].
        low_rank: P, complex64 [d, n].
    """
    dt = dt[:, None]
    inverse = 1.0 / (1.0 - dt * poles / 2.0)
    read = low_rank.conj() * inverse
    total = 1.0 + dt * jnp.sum(read * low_rank, axis=-1, keepdims=True).real
    half_spread = dt * inverse * low_rank / total
    low = jnp.sum(read * inputs, axis=-1, keepdims=True).real
    return DPLRStep(1.0 + dt * poles * inverse, dt * (inverse * inputs - half_spread * low), 2.0 * half_spread, read)


def recur(
    step: Step, c: Array, u: Float[Array, "b l d"], state: Array, valid: Bool[Array, "b l"] | None = None
) -> tuple[Float[Array, "b l d"], Array]:
    """The state space event by event, from a state: what has been learned as a convolution, continued.

    Args:
        step: of every channel.
        c: C, complex64 [d, n].
        u: inputs, float32.
        state: complex64 [b, d, n].
        valid: where there is an event; elsewhere the state passes unchanged. None = everywhere.

    Returns:
        Outputs, float32, and the state after the last event.
    """
    valid = jnp.ones(u.shape[:2], bool) if valid is None else valid

    def event(x: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        u, valid = now
        x = jnp.where(valid[:, None, None], step(x, u), x)
        return x, 2.0 * jnp.sum(c * x, axis=-1).real

    state, y = jax.lax.scan(event, state, (u.swapaxes(0, 1), valid.T))
    return y.swapaxes(0, 1), state


def diagonal_kernel(step: DiagonalStep, c: Array, length: int) -> Float[Array, "d k l"]:
    """The first `length` taps of a diagonal state space, 2 Re(sum(c * inputs * e^(exponent * l))), float32.

    Args:
        step: of `zoh` or `bilinear`.
        c: C, complex64 [d, k, n]: k outputs of each channel.
        length: taps.
    """
    taps = np.arange(length, dtype=np.float32)

    def block(exponent: Array, weights: Array) -> Array:
        powers = jnp.exp(exponent[..., None] * taps)
        return 2.0 * jnp.einsum("dkn,dnl->dkl", weights, powers, precision=jax.lax.Precision.HIGHEST).real

    run = partial(_in_blocks, block, step.exponent.shape[-1] * length)
    return _per_channel(run, step.exponent, c * step.inputs[:, None])


def dplr_kernel(
    dt: Float[Array, " d"], poles: Array, inputs: Array, low_rank: Array, c: Array, length: int
) -> Float[Array, "d k l"]:
    """The first `length` taps of `bilinear_dplr`, from their generating function, float32.

    With R the diagonal resolvent, the sum of K_l z^l over l < L is C~ (I - Abar z)^-1 Bbar, C~ = C (I - Abar^L z^L),
    and Woodbury's identity leaves four Cauchy sums of it (Gu, Goel & Ré 2022, appendix C):

        k(z) = S(C~ B) - p/2 S(C~ P) S(P^* B) / (1 + p/2 S(P^* P)),    S(v) = 2 dt sum_n v_n / (m - dt poles_n p),
        p = 1 + z,    m = 2 (1 - z).

    Multiplied by p throughout, unlike the paper's, it is finite at z = -1, too. On the L points z = r e^(-2 pi i j / L)
    with r^L = `DAMPING` it is the discrete Fourier transform of K_l r^l.

    Args:
        dt: step sizes.
        poles: complex64 [d, n].
        inputs: B, complex64 [d, n].
        low_rank: P, complex64 [d, n].
        c: C, complex64 [d, k, n]: k outputs of each channel.
        length: L.
    """
    run = partial(_in_blocks, partial(_cauchy, length), 2 * poles.shape[-1] * (length // 2 + 1))
    return _per_channel(run, dt, poles, inputs, low_rank, c)


def _cauchy(length: int, dt: Array, poles: Array, inputs: Array, low_rank: Array, c: Array) -> Array:
    p, m, undo = _points(length)
    truncated = c - DAMPING * _through(bilinear_dplr(dt, poles, inputs, low_rank), c, length)
    conjugate = low_rank.conj()
    pairs = [truncated * inputs[:, None], truncated * low_rank[:, None]]
    pairs += [(conjugate * inputs)[:, None], (conjugate * low_rank)[:, None]]
    dt = dt[:, None, None]
    resolvent = 1.0 / (m - dt * _both(poles)[..., None] * p)
    sums = jnp.einsum(
        "dvn,dnz->dvz", _both(jnp.concatenate(pairs, axis=1)), resolvent, precision=jax.lax.Precision.HIGHEST
    )
    cb, cp, pb, pp = jnp.split(2.0 * dt * sums, [(k := c.shape[1]), 2 * k, 2 * k + 1], axis=1)
    return jnp.fft.irfft(cb - p / 2.0 * cp * pb / (1.0 + p / 2.0 * pp), n=length) * undo


def _points(length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """1 + z and 2 (1 - z) at the points z that a real transform needs, complex64, and r^-l of each tap, float32.

    Made in float64: the largest values of the generating function are those where 1 - z is smallest.
    """
    unit = np.exp(-2j * np.pi * np.arange(length // 2 + 1) / length)
    if length % 2 == 0:
        unit[-1] = -1.0
    radius = DAMPING ** (1.0 / length)
    undo = radius ** -np.arange(length, dtype=np.float64)
    return (1 + radius * unit).astype(np.complex64), (2 - 2 * radius * unit).astype(np.complex64), undo.astype("f4")


def _both(x: Array) -> Array:
    """The states with their conjugates, [..., n] -> [..., 2n]."""
    return jnp.concatenate([x, x.conj()], axis=-1)


def _through(step: DPLRStep, c: Array, length: int) -> Array:
    """C Abar^length, [d, k, n].

    Abar is a real matrix of real and imaginary parts, [d, 2n, 2n]; it is squared as often as `length` has digits. No
    product of such matrices grows: A + A^* is negative, so that the norm of Abar is at most 1.
    """

    def apart(x: Array) -> Array:
        return jnp.concatenate([x.real, x.imag], axis=-1)

    n = c.shape[-1]
    rows = jax.vmap(jnp.diag)
    real, imag = rows(step.keep.real), rows(step.keep.imag)
    power = jnp.concatenate([jnp.concatenate([real, -imag], -1), jnp.concatenate([imag, real], -1)], axis=-2)
    power -= apart(step.spread)[:, :, None] * apart(step.read.conj())[:, None]
    # 2 Re(c x) as a row vector on real and imaginary parts; a functional of this kind stays one.
    row = apart(c.conj())
    product = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    while length:
        if length % 2:
            row = product(row, power)
        length //= 2
        if length:
            power = product(power, power)
    return jax.lax.complex(row[..., :n], -row[..., n:])


def _per_channel(local: Any, *arrays: Array) -> Any:
    """`local` of arrays [d, ...], on each device of the channels that it convolves: no transform is partitioned."""
    channels = dividing_axis(MODEL_AXIS, arrays[0].shape[0])
    if channels is None:
        return local(*arrays)
    spec = PartitionSpec(channels)
    return jax.shard_map(local, in_specs=(spec,) * len(arrays), out_specs=spec)(*arrays)


def _in_blocks(function: Callable[..., Array], elements: int, *arrays: Array) -> Array:
    """`function` of arrays [d, ...], on as many channels at a time as keep below `BLOCK_ELEMENTS`.

    Blocks are computed again in the backward pass, so that memory is that of one block there, too.

    Args:
        function: maps every array's block of channels to a result whose first axis they are.
        elements: complex numbers that a channel needs at a time.
        arrays: of all channels.
    """
    channels = arrays[0].shape[0]
    block = max(1, BLOCK_ELEMENTS // elements)
    if block >= channels:
        return function(*arrays)
    block = next(size for size in range(block, 0, -1) if channels % size == 0)
    split = [x.reshape(-1, block, *x.shape[1:]) for x in arrays]
    parts = jax.lax.map(lambda part: jax.checkpoint(function)(*part), split)
    return parts.reshape(channels, *parts.shape[2:])
