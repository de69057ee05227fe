"""DARE: what decides which past events matter, and what they say, in tables of their own.

Feng et al., Long-Sequence Recommendation Models Need Decoupled Embeddings, ICLR 2025.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import jax
import jax.numpy as jnp

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import Items
from recjax.decode.scoring import Pairs
from recjax.limits import COUNT, SIZE, at_least, refuse, require
from recjax.models.model import ItemStats, Model, ModelConfig, Rules, WeightedSums
from recjax.models.parts.dot_product import last_token
from recjax.models.parts.objectives import Negatives
from recjax.ops.items.embedding import lookup, table_rows, take_position
from recjax.typing import Array, Bool, Float, InputError, Int, Params

SEARCH = "search_"
"""Beginning of the names of tables that the search alone reads."""


@dataclass(frozen=True)
class DARE(ModelConfig):
    """Click prediction: a search for the past events that matter to a target, and a network that reads those.

    An event and a target are an item, its category and how many events ago it was, a vector each. The search scores
    each event by products of such vectors with the target's and keeps the best `keep`; by a softmax over their scores
    the vectors of the events are averaged; a network gets the target's vector, that mean and their product. One loss
    more, of another network of the kind, has the mean over all events, so that those that are not kept learn too. The
    loss is the cross-entropy of clicks, of the target against `negatives` by popularity that the row does not have.

    Samples have one target each: `Windows(Shifted(targets=1), step=5)`; data.pack is false.

    Attributes:
        width: of each of the three vectors.
        tables: "separate" ones for the search, or "shared" with what is averaged (TWIN), or "projected", one linear map
            of shared ones: the controls.
        search_width: of each vector of the search, where its tables are separate; None for `width`.
        keep: events that the search keeps.
        inner: widths inside the network.
        product: False leaves out the product of target and mean.
        auxiliary: factor of the loss by all events.
        negatives: for each target.
        category: column of the items, or None for ids alone.
        max_length: most events of a history.
    """

    width: int = 16
    tables: Literal["separate", "shared", "projected"] = "separate"
    search_width: int | None = None
    keep: int = 20
    inner: tuple[int, ...] = (200, 80)
    product: bool = True
    auxiliary: float = 1.0
    negatives: int = 2
    category: str | None = "category"
    max_length: int = 200

    def __post_init__(self) -> None:
        require(self, width=SIZE, search_width=SIZE, keep=COUNT, inner=SIZE, negatives=SIZE, max_length=SIZE)
        require(self, auxiliary=at_least(0))
        if self.search_width is not None and self.tables != "separate":
            refuse(self, "search_width", "none where the search has no tables of its own")

    @property
    def longest(self) -> int:
        return self.max_length

    def build(self, stats: ItemStats) -> "DAREModel":
        return DAREModel(self, stats)


@dataclass(frozen=True)
class DAREModel(Model):
    """The built model; `items`, `categories` and `ago` are the tables, by "search_" those of the search."""

    config: DARE
    stats: ItemStats

    @property
    def packing(self) -> bool:
        return False

    @property
    def per_item(self) -> tuple[str, ...]:
        return ("items", f"{SEARCH}items")

    def init(self, key: Array, batch: Batch, items: Items) -> Params:
        config, params, keys = self.config, {}, iter(jax.random.split(key, 16))
        own = {SEARCH: config.search_width or config.width} if config.tables == "separate" else {}
        rows = {"items": table_rows(self.n_items + 1), "ago": config.max_length + 1}
        if config.category is not None:
            if config.category not in self.stats.sizes:
                known = ", ".join(self.stats.sizes) or "none"
                raise InputError(
                    f"model.category is {config.category!r}, but the items have columns of entries: {known}"
                )
            rows["categories"] = self.stats.sizes[config.category][0]
        for start, width in {"": config.width, **own}.items():
            params |= {start + name: 0.1 * jax.random.normal(next(keys), (n, width)) for name, n in rows.items()}
        if config.tables == "projected":
            params["projected"] = {name: jnp.eye(config.width) for name in rows}
        read = config.width * len(rows) * (3 if config.product else 2)
        sizes, dense = (read, *config.inner, 1), jax.nn.initializers.glorot_uniform()
        for network in ("network", "network_of_all"):
            params[network] = {
                str(number): {"kernel": dense(next(keys), (before, after)), "bias": jnp.zeros(after)}
                for number, (before, after) in enumerate(pairwise(sizes))
            }
        return params

    def tables(self, params: Params, search: bool) -> dict[str, Array]:
        """Tables by name, for the search or for what is averaged."""
        names = [name for name in ("items", "categories", "ago") if name in params]
        if search and self.config.tables == "projected":
            return {name: params[name] @ params["projected"][name] for name in names}
        start = SEARCH if search and self.config.tables == "separate" else ""
        return {name: params[start + name] for name in names}

    def vectors(self, tables: dict[str, Array], ids: Int[Array, "b l"], items: Items) -> Float[Array, "b l d"]:
        """Vectors of items and their categories side by side."""
        parts = [lookup(tables["items"], ids)]
        if self.config.category is not None:
            parts.append(jnp.take(tables["categories"], items[self.config.category][items.rows(ids)], axis=0))
        return jnp.concatenate(parts, axis=-1)

    def history(self, params: Params, rows: Batch | Queries, last: Array, items: Items) -> dict[str, Array]:
        """Histories as targets read them: keys [b, l, d], scores by age [b, l], values [b, l, e], presence."""
        search, read = self.tables(params, True), self.tables(params, False)
        ago = jnp.clip(last[:, None] - jnp.arange(rows.items.shape[1]) + 1, 0, self.config.max_length)
        level = jnp.matmul(search["ago"], search["ago"][0]) / search["ago"].shape[1] ** 0.5
        values = [self.vectors(read, rows.items, items), jnp.take(read["ago"], ago, axis=0)]
        found = {"keys": self.vectors(search, rows.items, items), "level": jnp.take(level, ago)}
        return {**found, "values": jnp.concatenate(values, axis=-1), "there": rows.segments > 0}

    def clicks(
        self,
        params: Params,
        history: dict[str, Array],
        queries: Float[Array, "... c d"],
        targets: Float[Array, "... c e"],
    ) -> tuple[Float[Array, "... c"], Float[Array, "... c"]]:
        """Logits of targets, by the events that are kept and by all, of histories with the same leading axes."""
        scores = self.search(history, queries)
        there = history["there"][..., None, :]
        now = jnp.broadcast_to(self.tables(params, False)["ago"][0], (*targets.shape[:-1], self.config.width))
        targets, logits = jnp.concatenate([targets, now], axis=-1), []
        for network, mask in (("network", kept(scores, there, self.config.keep)), ("network_of_all", there)):
            weights = jnp.where(mask, jax.nn.softmax(jnp.where(mask, scores, -jnp.inf), axis=-1), 0.0)
            pooled = jnp.matmul(weights, history["values"])
            x = jnp.concatenate([targets, pooled, *([targets * pooled] * self.config.product)], axis=-1)
            for number in range(layers := len(params[network])):
                x = x @ params[network][str(number)]["kernel"] + params[network][str(number)]["bias"]
                x = jax.nn.relu(x) if number < layers - 1 else x
            logits.append(x[..., 0])
        return logits[0], logits[1]

    def search(self, history: dict[str, Array], queries: Float[Array, "... c d"]) -> Float[Array, "... c l"]:
        """Scores of events for targets."""
        product = jnp.matmul(queries, jnp.swapaxes(history["keys"], -1, -2))
        return product / queries.shape[-1] ** 0.5 + history["level"][..., None, :]

    def loss(self, params: Params, batch: Batch, items: Items, key: Array | None) -> tuple[Array, WeightedSums]:
        key, last = jax.random.key(0) if key is None else key, last_token(batch.segments)
        drawn = Negatives(self.config.negatives, "popularity", "row", outside_history=True)
        target = take_position(batch.targets, last[:, None])
        asked = jnp.concatenate([target, drawn.draw(batch, key, self.stats)], axis=1)
        queries, targets = (self.vectors(self.tables(params, search), asked, items) for search in (True, False))
        found = self.clicks(params, self.history(params, batch, last, items), queries, targets)
        clicked = jnp.arange(asked.shape[1]) == 0
        each = [jnp.mean(jax.nn.softplus(jnp.where(clicked, -logits, logits)), axis=1) for logits in found]
        there = take_position(batch.weights, last[:, None])[:, 0]
        weight = jnp.sum(there)
        own, every = (jnp.sum(there * part) for part in each)
        loss = (own + self.config.auxiliary * every) / jnp.maximum(weight, 1.0)
        return loss, {"loss": (loss * weight, weight), "objective": (own, weight), "all_events": (every, weight)}

    def scoring(self, params: Params, queries: Queries, items: Items) -> Pairs:
        everything = jnp.arange(params["items"].shape[0])
        rows = [self.rows(self.tables(params, search), everything, items) for search in (True, False)]
        network = {name: params[name] for name in params if not name.endswith("items")}

        def score(histories: dict[str, Array], rows: Any) -> Array:
            return jax.lax.map(lambda history: self.clicks(network, history, *rows)[0], histories)

        return Pairs(score, self.history(params, queries, queries.last, items), tuple(rows), self.n_items)

    def rows(self, tables: dict[str, Array], numbers: Int[Array, " n"], items: Items) -> Float[Array, "n d"]:
        """Vectors of all items and their categories, a row each; laid out as the table of items is."""
        if self.config.category is None:
            return tables["items"]
        column = jnp.take(items[self.config.category], items.rows(numbers), mode="clip")
        return jnp.concatenate([tables["items"], jnp.take(tables["categories"], column, axis=0)], axis=-1)

    def sharding_rules(self) -> Rules:
        return [(rf"^({SEARCH})?items$", ("model", None)), (".*", ())]


def kept(scores: Float[Array, "... l"], there: Bool[Array, "... l"], count: int) -> Bool[Array, "... l"]:
    """The `count` events with the highest scores of those that are there, and others that tie with the last of them."""
    if count >= scores.shape[-1]:
        return jnp.broadcast_to(there, scores.shape)
    scores = jax.lax.stop_gradient(jnp.where(there, scores, -jnp.inf))
    return there & (scores >= jax.lax.top_k(scores, count)[0][..., -1:])
