"""Adam whose updates of large tables touch the rows of the batch alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from recjax.data.batches.views import Batch
from recjax.data.items import Items
from recjax.late import optax
from recjax.models.model import Model, WeightedSums, checked_loss
from recjax.ops.items.embedding import RowGradientTable
from recjax.ops.items.row_gradients import joined_rows, update_rows
from recjax.ops.norms import global_norm
from recjax.typing import Array, Params


@dataclass(frozen=True)
class RowwiseAdam:
    """Adam on the rows of tables that a step looked up, any optimiser on the rest.

    A row that is not looked up keeps its value and its moments: they do not decay meanwhile, as they do under dense
    Adam, which also goes on moving rows by the moments of earlier steps. This is the "lazy" Adam of TensorFlow Addons
    and PyTorch's `SparseAdam`; the bias correction counts steps, not visits. Tables are never decayed.

    Attributes:
        dense: of the other parameters; it is told the norm of the whole gradient, `grad_norm`.
        tables: names of the tables, at the top of the parameters.
        rate: learning rate by step.
        b1: decay of the first moment.
        b2: decay of the second moment.
        eps: added to the root of the second moment.
        clip: largest norm of the whole gradient, or None.
    """

    dense: optax.GradientTransformation
    tables: tuple[str, ...]
    rate: optax.Schedule
    b1: float
    b2: float
    eps: float
    clip: float | None

    def init(self, params: Params) -> dict[str, Any]:
        """The state: of the dense optimiser, moments of the tables, updates made."""
        dense, tables = self.split(params)
        zeros = [jax.tree.map(jnp.zeros_like, tables) for _ in range(2)]
        return {"dense": self.dense.init(dense), "mu": zeros[0], "nu": zeros[1], "count": jnp.zeros((), jnp.int32)}

    def split(self, params: Params) -> tuple[Params, dict[str, Array]]:
        """The parameters without the tables, and the tables."""
        tables = {name: params[name] for name in self.tables}
        return {name: leaf for name, leaf in params.items() if name not in tables}, tables

    def gradients(
        self, model: Model, params: Params, batch: Batch, items: Items, key: Array
    ) -> tuple[Any, WeightedSums]:
        """Of the other parameters, dense, and of each table, as distinct ids and sums; and the sums of the loss."""
        dense, tables = self.split(params)

        def found(dense: Params, taps: Any) -> tuple[Array, tuple[WeightedSums, Any]]:
            tapped = {
                name: RowGradientTable(table, None if taps is None else taps[name]) for name, table in tables.items()
            }
            loss, sums = checked_loss(model, {**dense, **tapped}, batch, items, key)
            return loss, (sums, {name: table.ids for name, table in tapped.items()})

        _, (_, shapes) = jax.eval_shape(lambda dense: found(dense, None), dense)
        taps = {
            name: [jnp.zeros((*ids.shape, tables[name].shape[1]), jnp.float32) for ids in shapes[name]]
            for name in tables
        }
        (grads, values), (sums, ids) = jax.grad(found, argnums=(0, 1), has_aux=True)(dense, taps)
        rows = {name: joined_rows(ids[name], values[name], table.shape[0]) for name, table in tables.items()}
        return (grads, rows), sums

    def norm(self, gradients: Any) -> Array:
        """Euclidean norm of the whole gradient."""
        grads, rows = gradients
        return global_norm([grads, [values for _, values in rows.values()]])

    def update(self, gradients: Any, state: dict[str, Any], params: Params, norm: Array, finite: Array) -> Any:
        """New parameters and state; both as they were where `finite` is false."""
        grads, rows = gradients
        dense, tables = self.split(params)
        update = optax.with_extra_args_support(self.dense).update

        def take() -> Any:
            updates, inner = update(grads, state["dense"], dense, grad_norm=norm)
            return optax.apply_updates(dense, updates), inner

        dense, inner = jax.lax.cond(finite, take, lambda: (dense, state["dense"]))
        count = state["count"] + finite.astype(jnp.int32)
        scale = 1.0 if self.clip is None else jnp.minimum(1.0, self.clip / jnp.maximum(norm, 1e-30))
        scalars = {
            "rate": jnp.asarray(self.rate(state["count"]), jnp.float32),
            "scale": jnp.asarray(scale, jnp.float32),
            "first": 1.0 - self.b1 ** count.astype(jnp.float32),
            "second": 1.0 - self.b2 ** count.astype(jnp.float32),
        }
        mu, nu = {}, {}
        for name, (ids, values) in rows.items():
            # No branch, which would copy the tables: rows beyond the table are dropped.
            ids = jnp.where(finite, ids, tables[name].shape[0])
            arrays = (tables[name], state["mu"][name], state["nu"][name])
            tables[name], mu[name], nu[name] = update_rows(self._rule, arrays, ids, values, scalars)
        return {**dense, **tables}, {"dense": inner, "mu": mu, "nu": nu, "count": count}

    def _rule(self, rows: tuple[Array, ...], values: Array, scalars: dict[str, Array]) -> tuple[Array, ...]:
        table, mu, nu = rows
        values = values * scalars["scale"]
        mu = self.b1 * mu + (1.0 - self.b1) * values
        nu = self.b2 * nu + (1.0 - self.b2) * values * values
        step = mu / scalars["first"] / (jnp.sqrt(nu / scalars["second"]) + self.eps)
        return table - scalars["rate"] * step, mu, nu
