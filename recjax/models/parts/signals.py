"""Signals of the items that are linked to a user's last ones, merged item by item; see `recjax.models.evidence`."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp

from recjax.data.features.evidence import FADING, FOLLOWED, PRECEDED, USERS
from recjax.typing import Array, Bool, Float, Int

STRENGTHS = (8.0, 32.0, 128.0)
"""k: events that the prior of a posterior weighs as much as."""

DECAYS = (0.5, 0.8)
"""Per step back in a history. The second also fades with time, see `event_weights`."""

LASTING, DAYS = 0.2, 60.0
"""Of an event's weight this share lasts; the rest falls by 1/e in so many days."""

POPULAR = 0.5
"""Share of popularity in the prior; all of it for an item without text neighbours."""

SIGNALS = (
    *(f"{name} {decay}" for name in ("following", "together", "text") for decay in DECAYS),
    "preceding",
    *(f"posterior {strength:g} {decay}" for strength in STRENGTHS for decay in DECAYS),
)

POSTERIORS = tuple(place for place, name in enumerate(SIGNALS) if name.startswith("posterior"))
"""Places of the posteriors, which come last."""

TINY = 1e-12

DENSE = 2**17
"""Up to so many rows, the links of an item find each other by a table of all rows; above, by sorting."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Links:
    """Links of the recent items of each query.

    Attributes:
        recent: the items, last one first, 0-padded.
        totals: what is known of them, see `recjax.data.features.evidence.Totals`.
        ids: linked items of each relation, by name.
        values: counts or weights of the links.
        users: users of the linked items of `together`.
        weights: of the recent items, one a decay, see `event_weights`.
        own: events of the query's own user that have to be left out of all counts, 0-padded; none of them [q, 0].
    """

    recent: Int[Array, "q l"]
    totals: Float[Array, "q l 7"]
    ids: dict[str, Array]
    values: dict[str, Array]
    users: Float[Array, "q l k"]
    weights: Float[Array, "q l 2"]
    own: Int[Array, "q t"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Found:
    """Linked items of each query and their features.

    Attributes:
        listed: the items, each once, 0-padded.
        signals: in the order of `SIGNALS`, at most 1.
        popularity: log(1 + events), as a share of the catalog's largest.
        known: what weights depend on, in the order of `DEPENDS`.
        shares: of popularity in the posteriors.
        largest: what the signals have been divided by.
    """

    listed: Int[Array, "q m"]
    signals: Float[Array, "q m s"]
    popularity: Float[Array, "q m"]
    known: Float[Array, "q 3"]
    shares: Float[Array, "q p"]
    largest: Float[Array, "q s"]

    @property
    def features(self) -> Float[Array, "q m f"]:
        """All that scores are made of, in the order of `FEATURES`."""
        return jnp.concatenate([self.signals, jnp.sqrt(self.signals), self.popularity[..., None]], axis=2)


def event_weights(there: Bool[Array, "q l"], seconds: Int[Array, "q l"] | None) -> Float[Array, "q l 2"]:
    """Weights of the recent items of histories, last one first, one a decay of `DECAYS`.

    Args:
        there: whether there is an item.
        seconds: unix seconds of each, or None where there are no times.
    """
    age = jnp.arange(there.shape[1])
    short, long = (jnp.broadcast_to(decay**age, there.shape) for decay in DECAYS)
    if seconds is not None:
        days = jnp.maximum(seconds[:, :1] - seconds, 0) / 86_400.0
        long = long * (LASTING + (1 - LASTING) * jnp.exp(-days / DAYS))
    return jnp.where(there[..., None], jnp.stack([short, long], axis=2), 0.0)


def left_out(links: Links) -> Links:
    """The links less what the events `own` contributed to them: exact, but for links that are no longer among an
    item's strongest.
    """
    own, recent = links.own, links.recent
    if own.shape[1] < 2:
        return links
    gaps = range(1, min(len(FADING), own.shape[1] - 1) + 1)
    before = jnp.concatenate([own[:, :-gap] for gap in gaps], axis=1)
    after = jnp.concatenate([own[:, gap:] for gap in gaps], axis=1)
    weight = jnp.concatenate([jnp.full_like(own[:, gap:], FADING[gap - 1], float) for gap in gaps], axis=1)
    weight = jnp.where((before > 0) & (after > 0) & (before != after), weight, 0.0)

    def pairs(source: Array, target: Array, ids: Array) -> tuple[Array, Array]:
        """Own counts of the links, and of all pairs from each recent item."""
        starts = jnp.where(source[:, None] == recent[..., None], weight[:, None], 0.0)
        ends = (target[:, None, None] == ids[..., None]).astype(weight.dtype)
        return jnp.einsum("qlp,qlkp->qlk", starts, ends), jnp.sum(starts, axis=2)

    following, followed = pairs(before, after, links.ids["following"])
    preceding, preceded = pairs(after, before, links.ids["preceding"])
    among = jnp.any(own[:, None, None] == links.ids["together"][..., None], axis=3)
    among &= links.ids["together"] > 0
    mine = jnp.any(own[:, None] == recent[..., None], axis=2) & (recent > 0)
    values = dict(links.values)
    values["following"] = _rest(values["following"], following)
    values["preceding"] = _rest(values["preceding"], preceding)
    values["together"] = jnp.maximum(values["together"] - (among & mine[..., None]), 0.0)
    totals = links.totals
    for column, part in ((FOLLOWED, followed), (PRECEDED, preceded), (USERS, mine)):
        totals = totals.at[..., column].set(_rest(totals[..., column], part))
    return replace(links, totals=totals, values=values, users=links.users - among)


def _rest(whole: Array, part: Array | float) -> Array:
    """whole - part, and 0 where nothing but rounding is left."""
    rest = whole - part
    return jnp.where(rest < FADING[-1] / 2, 0.0, rest)


def first_of_each(ids: Int[Array, " m"], rows: int) -> Int[Array, " m"]:
    """The place of the first link of each link's item: where all of them are added up."""
    places = jnp.arange(len(ids))
    if rows <= DENSE:
        return jnp.full(rows, len(ids), jnp.int32).at[ids].min(places)[ids]
    order = _order(ids, rows)
    ordered = ids[order]
    starts = ordered != jnp.concatenate([jnp.full(1, -1), ordered[:-1]])
    first = order[jax.lax.cummax(jnp.where(starts, places, 0))]
    return jnp.zeros_like(places).at[order].set(first, unique_indices=True)


def _order(ids: Int[Array, " m"], largest: int) -> Int[Array, " m"]:
    """Places of ascending ids; one sort of (id, place) as one number, where they fit, is several times as fast."""
    places = len(ids)
    if (largest + 1) * places > 2**32:
        return jnp.argsort(ids)
    packed = jnp.sort(ids.astype(jnp.uint32) * places + jnp.arange(places, dtype=jnp.uint32))
    return (packed % places).astype(jnp.int32)


def merged(rows: int, query: tuple[Links, Array]) -> tuple[Array, Array, Array]:
    """One query's linked items, each once, int32 [m]; sums of their signals [m, s]; popularity in its posteriors."""
    links, seen = query
    short, long = links.weights[:, :1], links.weights[:, 1:]
    pairs = [(weight, k) for k in STRENGTHS for weight in (short, long)]
    none = [0] * len(pairs)
    totals = links.totals[..., None, :]
    n = totals[..., FOLLOWED]
    counts, text = links.values["following"], links.values["text"]
    popular = jnp.where(jnp.sum(text, axis=1, keepdims=True) > 0, POPULAR, 1.0)

    def per(values: Array, whole: Array) -> Array:
        return jnp.where(values > 0, values / jnp.maximum(whole, TINY), 0.0)

    follow = per(counts, n)
    cosine = per(links.values["together"], jnp.sqrt(jnp.maximum(totals[..., USERS] * links.users, 0.0)))
    signals = {
        "following": [short * follow, long * follow, *([0] * 5), *(weight * counts / (n + k) for weight, k in pairs)],
        "together": [0, 0, short * cosine, long * cosine, 0, 0, 0, *none],
        "text": [
            *([0] * 4),
            short * text,
            long * text,
            0,
            *(weight * k * (1 - popular) * text / (n + k) for weight, k in pairs),
        ],
        "preceding": [*([0] * 6), short * per(links.values["preceding"], totals[..., PRECEDED]), *none],
    }
    ids = jnp.concatenate([links.ids[name].ravel() for name in signals])
    full = [jnp.stack([jnp.broadcast_to(x, links.ids[name].shape) for x in each], -1) for name, each in signals.items()]
    sums = jnp.concatenate([each.reshape(-1, len(SIGNALS)) for each in full])
    ids = jnp.where(jnp.isin(ids, seen, method="binary_search") if seen.shape[0] else False, 0, ids)
    first = first_of_each(ids, rows)
    sums = jnp.zeros_like(sums).at[first].add(sums)
    listed = jnp.where(first == jnp.arange(len(ids)), ids, 0)
    shares = jnp.stack([jnp.sum(weight * k * popular / (n + k)) for weight, k in pairs])
    listed = jnp.where(jnp.max(sums, axis=1) > 0, listed, 0)  # what nothing but left out events linked to is not linked
    return listed, jnp.where(listed[:, None] > 0, sums, 0.0), shares
