"""Loops whose length depends on data."""

from collections.abc import Callable
from typing import Any

import jax

from recjax.typing import Array


def bounded_loop(count: Array, most: int, body: Callable[[Array, Any], Any], start: Any) -> Any:
    """`jax.lax.fori_loop(0, count, body, start)`, where `count` is never more than `most`.

    The name scope `at_most_N` carries the bound into the compiled program, for whoever counts what it costs
    (`recjax.plan`); the loop itself does not look at it.
    """
    with jax.named_scope(f"at_most_{most}"):
        return jax.lax.fori_loop(0, count, body, start)
