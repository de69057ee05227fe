"""Cross-entropy of scores of a whole catalog against a teacher that knows a few items of each row alone."""

import jax.numpy as jnp

from recjax.ops.items.embedding import lookup
from recjax.ops.items.softmax import full_softmax
from recjax.typing import Array, Float, Int


def sparse_teacher(
    student: Float[Array, "b m d"],
    table: Float[Array, "n d"],
    linked: Int[Array, "b m k"],
    logits: Float[Array, "b m k"],
    weights: Float[Array, "b m"],
    *,
    items: int,
) -> Float[Array, ""]:
    """Sum of weighted H(softmax(teacher), softmax(student E')), the teacher's logits being 0 but for the linked items.

    The teacher gives each other item the share t_0 = 1 / Z, so with s the student's scores

        loss = log sum_j exp(s_j) - t_0 sum_j s_j - sum_linked (t_j - t_0) s_j,

    and only the linked items' vectors are gathered; neither the teacher's shares nor the scores are ever whole.

    >>> table = jnp.array([[0.0], [0.0], [1.0], [2.0]])  # three items
    >>> loss = sparse_teacher(jnp.ones((1, 1, 1)), table, jnp.array([[[3]]]), jnp.log(jnp.full((1, 1, 1), 2.0)),
    ...                       jnp.ones((1, 1)), items=3)
    >>> round(float(loss), 4)  # log(1 + e + e^2) - (0 + 1 + 2 * 2) / 4
    1.1576

    Args:
        student: what scores the items.
        table: item vectors; rows 0 and above `items` are no items.
        linked: item ids, 0-padded, each once.
        logits: of the teacher.
        weights: 0 takes a student out of the sum.
        items: catalog size.
    """
    student, present = student.astype(jnp.float32), linked > 0
    odds = jnp.where(present, jnp.exp(logits), 0.0)
    total = jnp.sum(odds, axis=-1) + items - jnp.sum(present, axis=-1)  # the teacher's Z
    beyond = jnp.where(present, odds - 1.0, 0.0) / total[..., None]
    rows, count, links = linked.shape
    vectors = lookup(table, linked.reshape(rows, count * links)).reshape(rows, count, links, -1)
    scores = jnp.einsum("bmd,bmkd->bmk", student, vectors.astype(jnp.float32))
    everywhere = jnp.sum(table[1 : items + 1].astype(jnp.float32), axis=0)
    first = jnp.maximum(linked[..., 0], 1)  # any item; what its score takes from the cross-entropy comes back
    own = jnp.sum(student * lookup(table, first).astype(jnp.float32), axis=-1)
    taken = jnp.sum(beyond * scores, axis=-1) + student @ everywhere / total - own
    return full_softmax(student, table, None, first, weights, items=items) - jnp.sum(
        jnp.where(weights > 0, weights * taken, 0.0)
    )
