"""Contrastive losses and divergences, one value for each example, so that weights, sums and means compose.

A batch is a batch whatever the mesh: with several devices along the data axis each compares its own rows with those of
all, gathered, and the results are those of one device. Under gradient accumulation the negatives are those of a part.

`weights` multiply the results; an example of weight 0 is not there: it is nobody's negative, whatever its vectors hold,
and its gradient is exactly 0. Everything is computed in float32. `[b, b]` similarities exist at once.
"""

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from recjax.ops.items.softmax import EXCLUDED
from recjax.ops.mesh_axes import axis_size
from recjax.typing import DATA_AXIS, Array, Bool, Float, Int

Negatives = Literal["batch", "prototypes"]


def info_nce(
    anchors: Float[Array, "b d"],
    partners: Float[Array, "b d"],
    *,
    temperature: float = 1.0,
    weights: Float[Array, " b"] | None = None,
    groups: Int[Array, " b"] | None = None,
    within: bool = False,
) -> Float[Array, " b"]:
    """InfoNCE (van den Oord et al. 2018, eq. 4) of pairs of views, the other pairs of the batch as negatives:

        loss_i = -log( exp(a_i . p_i / T) / (exp(a_i . p_i / T) + sum_j exp(a_i . p_j / T)) )

    over the pairs j that are no false negatives. Vectors are compared as they are; normalise them before for cosines.
    The mean of both orders is symmetric in the views, see `nt_xent`.

    >>> views = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> [round(float(x), 4) for x in info_nce(views, views)]  # log(1 + exp(-1))
    [0.3133, 0.3133]
    >>> info_nce(views, views, groups=jnp.array([7, 7])).tolist()  # no negative is left
    [0.0, 0.0]

    Args:
        anchors: one view of each example.
        partners: the other view.
        temperature: T.
        weights: of each pair, 0 for an example without partner; by default 1.
        groups: pairs of equal numbers are no negatives of each other (the same target, the same cluster).
        within: the anchors of other pairs are negatives too, twice as many in all.

    Returns:
        float32, weighted.
    """
    rows = anchors.shape[0]
    weights = jnp.ones(rows, jnp.float32) if weights is None else weights.astype(jnp.float32)
    groups = jnp.arange(rows) if groups is None else groups
    # Not even a NaN of an example that is not there may reach a gradient.
    anchors, partners = (jnp.where(weights[:, None] > 0, x.astype(jnp.float32), 0.0) for x in (anchors, partners))

    def compared(anchors: Array, partners: Array, weights: Array, groups: Array, *, gathered: bool) -> Array:
        mine = jnp.arange(anchors.shape[0])[:, None]
        views, others, present = ((partners, anchors) if within else (partners,)), groups, weights > 0
        if gathered:
            mine = mine + jax.lax.axis_index(DATA_AXIS) * anchors.shape[0]
            views, others, present = jax.lax.all_gather((views, groups, present), DATA_AXIS, axis=0, tiled=True)
        own = jnp.arange(others.shape[0]) == mine
        negative = present & (others != groups[:, None]) & ~own
        logits = [jnp.matmul(anchors, view.T) / temperature for view in views]
        masks = [negative | own, negative]
        joined = jnp.concatenate([jnp.where(m, x, EXCLUDED) for m, x in zip(masks, logits, strict=False)], axis=1)
        positive = jnp.sum(jnp.where(own, logits[0], 0.0), axis=1)
        loss = jax.nn.logsumexp(joined, axis=1) - positive
        return jnp.where(weights > 0, weights * loss, 0.0)

    devices = axis_size(DATA_AXIS)
    if devices == 1 or rows % devices:
        return compared(anchors, partners, weights, groups, gathered=False)
    by_data = PartitionSpec(DATA_AXIS)
    island: Any = jax.shard_map(partial(compared, gathered=True), in_specs=by_data, out_specs=by_data)
    return island(anchors, partners, weights, groups)


def nt_xent(one: Float[Array, "b d"], other: Float[Array, "b d"], **options: Any) -> Float[Array, " b"]:
    """NT-Xent (Chen et al., SimCLR, ICML 2020, eq. 1): `info_nce` within two views, the mean of both orders.

    >>> views = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> [round(float(x), 4) for x in nt_xent(views, views)]  # log(1 + 2 exp(-1))
    [0.5514, 0.5514]

    Args:
        one: one view of each example.
        other: the other view.
        options: temperature, weights and groups of `info_nce`.

    Returns:
        float32, weighted.
    """
    return (info_nce(one, other, within=True, **options) + info_nce(other, one, within=True, **options)) / 2


def prototype_info_nce(
    states: Float[Array, "b d"],
    centroids: Float[Array, "c d"],
    assignments: Int[Array, " b"],
    *,
    temperature: float = 1.0,
    weights: Float[Array, " b"] | None = None,
    negatives: Negatives = "batch",
) -> Float[Array, " b"]:
    """InfoNCE of states against the centroids of their own clusters; no gradient reaches the centroids.

    With the negatives of a "batch" they are the centroids of the other examples, those of the same cluster left out
    (the fine-grained term of ICSRec, Qin et al., WSDM 2024; once for each view); with "prototypes", all other centroids
    (ProtoNCE of Li et al., ICLR 2021, eq. 11, at one granularity and one temperature).

    >>> centroids = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> states, assignments = jnp.array([[2.0, 0.0], [0.0, 2.0]]), jnp.array([0, 1])
    >>> [round(float(x), 4) for x in prototype_info_nce(states, centroids, assignments)]  # log(1 + exp(-2))
    [0.1269, 0.1269]
    >>> [round(float(x), 4) for x in prototype_info_nce(states, centroids, assignments, negatives="prototypes")]
    [0.2395, 0.1429]

    Args:
        states: of the examples.
        centroids: of all clusters.
        assignments: cluster of each example.
        temperature: of the dot products.
        weights: of each example; by default 1.
        negatives: "batch" or "prototypes".

    Returns:
        float32, weighted.
    """
    centroids = jax.lax.stop_gradient(centroids.astype(jnp.float32))
    if negatives == "batch":
        own = centroids[assignments]
        return info_nce(states, own, temperature=temperature, weights=weights, groups=assignments)
    states = states if weights is None else jnp.where(weights[:, None] > 0, states, 0.0)
    log_share = jax.nn.log_softmax(jnp.matmul(states.astype(jnp.float32), centroids.T) / temperature)
    return _weighted(-jnp.take_along_axis(log_share, assignments[:, None], axis=1)[:, 0], weights)


def score_kl(
    scores: Float[Array, "*b n"],
    others: Float[Array, "*b n"],
    *,
    mask: Bool[Array, "*b n"] | None = None,
    weights: Float[Array, "*b"] | None = None,
) -> Float[Array, "*b"]:
    """KL(p || q) between softmaxes of score rows, p of `scores` and q of `others` (Kullback & Leibler 1951).

    Gradients flow to both; stop them where one is a teacher. A temperature divides the scores before.

    >>> even, skewed = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.9, 0.1]))
    >>> round(float(score_kl(even, skewed)), 4)  # log(0.5 / 0.9) / 2 + log(0.5 / 0.1) / 2
    0.5108
    >>> float(score_kl(even, even + 3.0))
    0.0

    Args:
        scores: logits of p.
        others: logits of q.
        mask: entries that are there (items, not padding); by default all.
        weights: of each row; by default 1.

    Returns:
        float32, weighted; in nats.
    """
    scores, others = scores.astype(jnp.float32), others.astype(jnp.float32)
    if weights is not None:
        scores, others = (jnp.where(weights[..., None] > 0, x, 0.0) for x in (scores, others))
    if mask is not None:
        scores, others = jnp.where(mask, scores, EXCLUDED), jnp.where(mask, others, EXCLUDED)
    log_p, log_q = jax.nn.log_softmax(scores), jax.nn.log_softmax(others)
    terms = jnp.exp(log_p) * (log_p - log_q)
    return _weighted(jnp.sum(terms if mask is None else jnp.where(mask, terms, 0.0), axis=-1), weights)


def gaussian_kl(
    mean: Float[Array, "*b d"],
    deviation: Float[Array, "*b d"],
    other_mean: Float[Array, "*b d"],
    other_deviation: Float[Array, "*b d"],
    *,
    weights: Float[Array, "*b"] | None = None,
) -> Float[Array, "*b"]:
    """KL(N(m, s^2) || N(m', s'^2)) of diagonal Gaussians (Kingma & Welling 2014, appendix B, for any prior):

        sum_d log(s'_d / s_d) + (s_d^2 + (m_d - m'_d)^2) / (2 s'_d^2) - 1/2

    >>> zero, one = jnp.zeros(2), jnp.ones(2)
    >>> float(gaussian_kl(one, one, zero, one)), round(float(gaussian_kl(zero, 2 * one, zero, one)), 4)
    (1.0, 1.6137)

    Args:
        mean: m.
        deviation: s, above 0.
        other_mean: m'.
        other_deviation: s', above 0.
        weights: of each pair of Gaussians; by default 1.

    Returns:
        float32, weighted; in nats.
    """
    mean, deviation, other_mean, other_deviation = _present(
        weights, (mean, 0.0), (deviation, 1.0), (other_mean, 0.0), (other_deviation, 1.0)
    )
    spread = (jnp.square(deviation) + jnp.square(mean - other_mean)) / (2.0 * jnp.square(other_deviation))
    return _weighted(jnp.sum(jnp.log(other_deviation / deviation) + spread - 0.5, axis=-1), weights)


def gaussian_w2(
    mean: Float[Array, "*b d"],
    deviation: Float[Array, "*b d"],
    other_mean: Float[Array, "*b d"],
    other_deviation: Float[Array, "*b d"],
    *,
    weights: Float[Array, "*b"] | None = None,
) -> Float[Array, "*b"]:
    """Squared 2-Wasserstein distance of diagonal Gaussians (Givens & Shortt 1984): |m - m'|^2 + |s - s'|^2.

    >>> float(gaussian_w2(jnp.array([3.0, 0.0]), jnp.ones(2), jnp.zeros(2), jnp.array([1.0, 5.0])))
    25.0

    Args:
        mean: m.
        deviation: s, at least 0.
        other_mean: m'.
        other_deviation: s', at least 0.
        weights: of each pair of Gaussians; by default 1.

    Returns:
        float32, weighted.
    """
    mean, deviation, other_mean, other_deviation = _present(
        weights, (mean, 0.0), (deviation, 1.0), (other_mean, 0.0), (other_deviation, 1.0)
    )
    distance = jnp.square(mean - other_mean) + jnp.square(deviation - other_deviation)
    return _weighted(jnp.sum(distance, axis=-1), weights)


def _present(weights: Array | None, *parts: tuple[Array, float]) -> list[Array]:
    """float32 arrays [*b, d], with a number in place of those of weight 0."""
    arrays = [(array.astype(jnp.float32), fill) for array, fill in parts]
    if weights is None:
        return [array for array, _ in arrays]
    return [jnp.where(weights[..., None] > 0, array, fill) for array, fill in arrays]


def _weighted(values: Float[Array, "*b"], weights: Array | None) -> Float[Array, "*b"]:
    return values if weights is None else jnp.where(weights > 0, weights * values, 0.0)
