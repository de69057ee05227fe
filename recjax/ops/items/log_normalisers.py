"""The log-normaliser of each token's softmax over a catalog, in bounded memory.

What a softmax over more than the items needs, such as one over pairs of a place and an item: the logsumexp over the
items of each place is one of these, and the logsumexp of those the joint normaliser.
"""

from functools import partial

import jax
import jax.numpy as jnp

from recjax.ops.items.chunked_logsumexp import log_partition
from recjax.ops.items.softmax import full_softmax
from recjax.ops.mesh_axes import platform
from recjax.typing import Array, Float

LEAST_CHUNK = 128
"""Fewest rows of a chunk."""


def log_normalisers(
    hidden: Float[Array, "b l d"],
    table: Float[Array, "n d"],
    bias: Float[Array, " n"],
    *,
    items: int,
    chunk_elements: int | None = None,
) -> Float[Array, "b l"]:
    """log sum_j exp(hidden . e_j + b_j) over the items of each position, float32.

    No more than about `chunk_elements` scores exist at a time. The backward pass is that of `full_softmax`, whose
    weights are the cotangents: it computes nothing for positions whose cotangent is 0.

    >>> table = jnp.array([[9.0], [0.0], [0.0], [9.0]])  # two items
    >>> float(log_normalisers(jnp.ones((1, 1, 1)), table, jnp.zeros(4), items=2)[0, 0])  # log 2
    0.6931471824645996

    Args:
        hidden: states; their dtype is the compute type of the products.
        table: item vectors; rows 0 and above `items` are no items and never count.
        bias: of each row.
        items: catalog size.
        chunk_elements: most scores at a time on a device; None: a million on a CPU, else four.
    """
    if chunk_elements is None:
        chunk_elements = 2**20 if platform() == "cpu" else 2**22
    return _normalisers(hidden, table, bias, items, chunk_elements)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _normalisers(hidden: Array, table: Array, bias: Array, items: int, chunk_elements: int) -> Array:
    tokens = hidden.shape[0] * hidden.shape[1]
    flat = jnp.pad(hidden.reshape(tokens, -1), [(0, 0), (0, 2)], constant_values=1)
    columns = bias.astype(hidden.dtype)  # and what this loses in a short type is a second column
    columns = jnp.stack([columns, (bias - columns).astype(hidden.dtype)], axis=1)
    found = log_partition(
        _with_bias,
        (),
        (table.astype(hidden.dtype), columns),
        flat,
        jnp.zeros((tokens, 1), jnp.int32),
        jnp.int32(0),
        jnp.int32(items),
        chunk=max(chunk_elements // tokens, LEAST_CHUNK),
    )
    return found.reshape(hidden.shape[:2])


def _with_bias(weights: tuple[()], rows: tuple[Array, Array]) -> Array:
    del weights
    return jnp.concatenate(rows, axis=1)


def _forward(hidden: Array, table: Array, bias: Array, items: int, chunk_elements: int):
    return _normalisers(hidden, table, bias, items, chunk_elements), (hidden, table, bias)


def _backward(items: int, chunk_elements: int, kept: tuple[Array, Array, Array], cotangent: Array):
    nothing = jnp.zeros(cotangent.shape, jnp.int32)  # without a target the cross-entropy is the normaliser

    def gradients(weights: Array) -> tuple[Array, ...]:
        def total(hidden: Array, table: Array, bias: Array) -> Array:
            return full_softmax(hidden, table, bias, nothing, weights, items=items, chunk_elements=chunk_elements)

        return jax.grad(total, argnums=(0, 1, 2))(*kept)

    up, down = gradients(jnp.maximum(cotangent, 0.0)), gradients(jnp.maximum(-cotangent, 0.0))
    return jax.tree.map(jnp.subtract, up, down)


_normalisers.defvjp(_forward, _backward)
