"""Item vectors by columns: a few queries score a catalog on CPUs in a fifth of the time.

XLA:CPU lays the vectors of a product over again for each batch, which costs more than the product itself where queries
are few. A server keeps them laid out, at the price of a second copy of the table.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Var

from recjax.data.batches.views import Queries
from recjax.data.items import Items
from recjax.decode.scoring import DotProduct, Lists, Scoring
from recjax.models.model import Model
from recjax.ops.items.chunks import REGISTER_ROWS
from recjax.ops.items.topk import DOT_PRODUCT, Scorer, topk_by
from recjax.typing import Array, Float, Params


def item_columns(model: Model, params: Params, queries: Queries, items: Items) -> Float[Array, "d rows"] | None:
    """The item vectors of a model that scores by dot products, one a column.

    None on other devices than CPUs, on several of them, and where the vectors depend on the queries.

    Args:
        model: what ranks.
        params: its parameters.
        queries: any; they tell what depends on them.
        items: of the catalog, prepared for the model.
    """
    if jax.default_backend() != "cpu" or jax.sharding.get_abstract_mesh().size > 1:
        return None
    found: list[Scoring] = []

    def vectors(queries: Queries) -> Any:
        found.append(model.scoring(params, queries, items))
        return found[0].vectors if type(found[0]) is DotProduct else jnp.zeros(())

    traced = jax.make_jaxpr(vectors)(queries).jaxpr
    if type(found[0]) is not DotProduct or _depends(traced):
        return None
    table = np.asarray(jax.jit(vectors)(queries), np.float32)
    filled = np.pad(
        table, [(0, -len(table) % REGISTER_ROWS), (0, 0)]
    )  # as `recjax.ops.items.topk` fills them, for equal ties
    return jnp.asarray(np.ascontiguousarray(filled.T))


def listed(scoring: Scoring, columns: Array | None, hidden: Array, most: int, allowed: Array) -> Lists:
    """`scoring.topk`, by columns where there are any."""
    if columns is None or not isinstance(scoring, DotProduct):
        return scoring.topk(hidden, most, allowed)
    table = (jnp.arange(scoring.vectors.shape[0]), scoring.bias)
    where = {"candidates": allowed, "start": scoring.start, "n_items": scoring.n_items}
    return topk_by(_by_columns(columns), scoring.users, table, hidden, most, **where)


def _by_columns(columns: Array) -> Scorer:
    """The scorer of rows that are given by their numbers, which follow each other."""

    def scores(users: Array, rows: tuple[Array, Array | None]) -> Array:
        numbers, bias = rows
        count = numbers.shape[0]
        part = columns
        if count + -count % REGISTER_ROWS < columns.shape[1]:
            part = jax.lax.dynamic_slice_in_dim(columns, numbers[0], count, axis=1)
            part = jnp.pad(part, [(0, 0), (0, -count % REGISTER_ROWS)])
        products = jnp.einsum("qd,dc->qc", users.astype(jnp.float32), part, precision=jax.lax.Precision.HIGHEST)
        products = products[:, :count]
        return products if bias is None else products + bias

    return DOT_PRODUCT._replace(rows=scores)


def _depends(jaxpr: Any) -> bool:
    """True if any result of a program may depend on its inputs."""
    touched = set(jaxpr.invars)
    for equation in jaxpr.eqns:
        if any(isinstance(each, Var) and each in touched for each in equation.invars):
            touched.update(equation.outvars)
    return any(isinstance(each, Var) and each in touched for each in jaxpr.outvars)
