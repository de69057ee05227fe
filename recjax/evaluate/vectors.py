"""Vectors of items and users whose dot product is the score that a model ranks by; items alike by them.

A model with a bias for each item gives it as one more coordinate of the item, and users 1 there, so that any index of
vectors that looks for the largest dot product finds the model's lists.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recjax.data.batches.loader import query_batches
from recjax.data.batches.views import Queries, View
from recjax.data.items import Items
from recjax.data.splits import Histories
from recjax.decode.scoring import DotProduct
from recjax.evaluate.ranking import NonFiniteScoresError, SameModel, prepared, replicated
from recjax.models.model import Model
from recjax.ops.items.topk import masked_topk
from recjax.typing import Array, InputError, Params

ALIKE_AT_A_TIME = 1_024
"""Items whose likes are looked for at a time."""


class NoVectorsError(InputError):
    """A model that does not rank by a dot product was asked for vectors."""


def _dot_product(model: Model, params: Params, queries: Queries, items: Items) -> DotProduct:
    scoring = model.scoring(params, queries, items)
    if not isinstance(scoring, DotProduct):
        raise NoVectorsError(
            f"{type(model).__name__} ranks by {type(scoring).__name__}, which is no dot product of a user's and an "
            "item's vector, so it has no such vectors"
        )
    return scoring


@partial(jax.jit, static_argnames="identity")
def _users(identity: SameModel, params: Params, queries: Queries, items: Items) -> Array:
    scoring = _dot_product(identity.model, params, queries, items)
    users = scoring.users.astype(jnp.float32)
    if scoring.bias is not None:
        users = jnp.concatenate([users, jnp.ones((len(users), 1), jnp.float32)], axis=1)
    return replicated(users)


@partial(jax.jit, static_argnames="identity")
def _items(identity: SameModel, params: Params, queries: Queries, items: Items) -> Array:
    scoring = _dot_product(identity.model, params, queries, items)
    rows = scoring.start + jnp.arange(1, identity.model.n_items + 1)
    vectors = jnp.take(scoring.vectors, rows, axis=0).astype(jnp.float32)
    if scoring.bias is not None:
        bias = jnp.take(scoring.bias, rows).astype(jnp.float32)
        vectors = jnp.concatenate([vectors, bias[:, None]], axis=1)
    return replicated(vectors)


def item_vectors(model: Model, params: Params, view: View, items: Items | None = None) -> np.ndarray:
    """The vector of every item, float32 [items, d]: row i is that of item i + 1.

    Args:
        model: that ranks by a dot product.
        params: its parameters.
        view: how a history becomes a query.
        items: of the catalog, on the devices; None for a model of item ids.

    Raises:
        InputError: the model ranks in another way.
    """
    one = Histories.concatenated(np.array([1]), np.array([1], np.int32), np.zeros(1, np.int64), np.zeros(1))
    queries, _ = next(iter(query_batches(one, view, model.n_items, 1, mask_seen="none")))
    return np.asarray(_items(SameModel(model), params, queries, prepared(model, params, items)))


def user_vectors(
    model: Model,
    params: Params,
    histories: Histories,
    view: View,
    items: Items | None = None,
    *,
    users_per_batch: int = 256,
) -> np.ndarray:
    """The vector of the user of each history, float32 [n, d].

    Args:
        model: that ranks by a dot product.
        params: its parameters.
        histories: none of them empty.
        view: how a history becomes a query.
        items: of the catalog, on the devices; None for a model of item ids.
        users_per_batch: queries of a batch over all devices.

    Raises:
        InputError: the model ranks in another way.
        NonFiniteScoresError: names users (by number) whose vectors are not finite.
    """
    found: list[np.ndarray] = []
    places: list[np.ndarray] = []
    ready = prepared(model, params, items)
    for queries, rows in query_batches(histories, view, model.n_items, users_per_batch, mask_seen="none"):
        used = rows >= 0
        found.append(np.asarray(_users(SameModel(model), params, queries, ready))[used])
        places.append(rows[used])
    vectors = np.concatenate(found)[np.argsort(np.concatenate(places))] if found else np.zeros((0, 0), np.float32)
    broken = histories.users[~np.isfinite(vectors).all(axis=1)] if len(vectors) else []
    if len(broken):
        raise NonFiniteScoresError.of([str(user) for user in broken])
    return vectors


def alike(
    vectors: np.ndarray, asked: np.ndarray, k: int, candidates: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The items most like each of some, by the cosine of their vectors: int32 [q, k] and float32 [q, k].

    Args:
        vectors: float32 [items, d], see `item_vectors`.
        asked: int [q], item numbers from 1.
        k: length of the lists, which end in 0 where the catalog runs out; an item is not in its own list.
        candidates: bool [items + 1], the only items that may be listed; None for all.
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    table = np.pad(vectors / np.where(lengths > 0, lengths, 1.0), [(1, 0), (0, 0)])
    lists, scores = np.zeros((len(asked), k), np.int32), np.zeros((len(asked), k), np.float32)
    device: Any = jnp.asarray(table)
    for start in range(0, len(asked), ALIKE_AT_A_TIME):
        rows = np.asarray(asked[start : start + ALIKE_AT_A_TIME], np.int32)
        found = masked_topk(table[rows], device, rows[:, None], k, candidates=candidates)
        lists[start : start + len(rows)], scores[start : start + len(rows)] = (np.asarray(x) for x in found)
    return lists, scores
