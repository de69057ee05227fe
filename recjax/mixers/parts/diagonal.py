"""Shared part of mixers with complex diagonal states: input and output maps, and the recurrence."""

import jax.numpy as jnp
from jaxtyping import Complex

from recjax.mixers.mixer import SeqContext
from recjax.mixers.parts.state_space import as_complex
from recjax.ops.scan.elementwise import linear_scan
from recjax.typing import Array, Float


def product(x: Float[Array, "b l d"], matrix: Float[Array, "d n 2"]) -> Array:
    """Real inputs times a complex matrix, in the inputs' type: complex64 [b, l, n]."""
    both = x @ matrix.reshape(matrix.shape[0], -1).astype(x.dtype)
    return as_complex(both.reshape(*x.shape[:-1], -1, 2).astype(jnp.float32))


def real_product(h: Array, matrix: Float[Array, "n d 2"], dtype: jnp.dtype) -> Array:
    """Re(h C) of complex states, [..., n] -> [..., d], in a real type."""
    real, imaginary = (matrix[..., part].astype(dtype) for part in (0, 1))
    return h.real.astype(dtype) @ real - h.imag.astype(dtype) @ imaginary


def states(
    decay: Array,
    inputs: Array,
    context: SeqContext,
    causal: bool,
    before: Complex[Array, "b n"] | None = None,
    backward: Array | None = None,
) -> tuple[Complex[Array, "b l n"], Complex[Array, "b n"]]:
    """h_t = decay_t h_{t-1} + inputs_t over each history: [b, l, n], and the state after the last event.

    Where not causal, the states of a second scan, from each history's last event to its first, are concatenated to
    those of the first: [b, l, 2n].

    Args:
        decay: [n], or [b, l, n] of each position.
        inputs: complex, [b, l, n].
        context: segments of the batch.
        causal: forward scan only.
        before: the state before the first position; None = 0.
        backward: the decays of the second scan where they differ.
    """
    h, last = linear_scan(decay, inputs, h0=before, starts=context.starts, valid=context.valid)
    if not causal:
        decay = decay if backward is None else backward
        back, _ = linear_scan(decay, inputs, starts=context.ends, valid=context.valid, reverse=True)
        h = jnp.concatenate([h, back], axis=-1)
    return h, last
