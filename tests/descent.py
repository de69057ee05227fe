"""Descent on a loss in one compiled program, for tests of what training teaches."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from recjax.typing import Array, Params


def descent(
    loss: Callable[[Params, Any, Array], tuple[Array, Any]], start: Params, given: Any, *, rate: float = 0.01
) -> tuple[Params, Any]:
    """Parameters after a step of Adam for each entry of `given`, and what `loss` gives beside its value in each step.

    Args:
        loss: parameters, an entry of `given`, a key -> value, sums; to be called inside `jit`.
        start: parameters.
        given: a tree of arrays with the steps as first axis.
        rate: of learning.
    """
    optimiser = optax.adam(rate)

    def step(state: Any, numbered: Any) -> Any:
        (params, moments), (number, entry) = state, numbered
        key = jax.random.fold_in(jax.random.key(1), number)
        (_, sums), grads = jax.value_and_grad(loss, has_aux=True)(params, entry, key)
        updates, moments = optimiser.update(grads, moments)
        return (optax.apply_updates(params, updates), moments), sums

    steps = jnp.arange(len(jax.tree.leaves(given)[0]))
    (after, _), sums = jax.lax.scan(step, (start, optimiser.init(start)), (steps, given))
    return after, sums
