"""ILM, phase 1: queries over behaviour learn what titles say, and what users have next to each other.

Yang et al., Item-Language Model for Conversational Recommendation, 2024; `recjax.models.ilm` is phase 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import Items
from recjax.decode.scoring import DotProduct
from recjax.limits import COUNT, above, at_least, require, within
from recjax.models.model import ItemStats, Model, ModelConfig, WeightedSums
from recjax.models.parts import qformer as parts
from recjax.models.parts.qformer import QFormer, QFormerConfig, Sight, read, read_all
from recjax.ops.activation import unit
from recjax.ops.contrast import info_nce
from recjax.ops.items.embedding import lookup, take_position
from recjax.typing import Array, Bool, Float, InputError, Int, Params

TABLE = "table"
"""Vectors of all items in `Items.prepared`."""


@dataclass(frozen=True)
class ILMAlignment(ModelConfig):
    """Phase 1: queries over a frozen vector of behaviour learn what a title says, and what users have next to it.

    Items for the terms of titles are drawn in each step from those with a title and behaviour; items of two consecutive
    events are the batch's. The loss is

        contrast + matching + generation + items

    InfoNCE of item and title, by the query that is most similar; whether a title is the item's, where wrong ones are
    drawn by those similarities; the title, word for word; and InfoNCE of consecutive items, by the mean over the
    queries of their cosines [ours]. The item's rank for a user is by the last. Not the paper's: the terms share a step
    and do not take turns, words have vectors from scratch where there was BERT, and users are no items.

    The view is one of consecutive events, such as `Prefixes(Shifted(2, targets=1))`, without packing.

    Attributes:
        qformer: sizes.
        texts: items of a step for the terms of titles.
        held: share of the items whose titles are never read, for questions about them; see `held_out`.
        temperature: of similarities.
        contrast: factor of its term.
        matching: factor of its term.
        generation: factor of its term.
        items: factor of its term.
        vectors: column of the frozen vectors.
        words: column of the titles' words.
        titles: column of vectors of whole titles by a frozen encoder, which contrast and matching read too; they stand
            in for a text branch that has learned language before [ours]. None for words alone.
    """

    qformer: QFormerConfig = field(default_factory=QFormerConfig)
    texts: int = 64
    held: float = 0.1
    temperature: float = 0.07
    contrast: float = 1.0
    matching: float = 1.0
    generation: float = 1.0
    items: float = 1.0
    vectors: str = "behaviour"
    words: str = "words"
    titles: str | None = None

    def __post_init__(self) -> None:
        factors = {name: at_least(0) for name in ("contrast", "matching", "generation", "items")}
        require(self, texts=COUNT, held=within(0, 1), temperature=above(0), **factors)

    def build(self, stats: ItemStats) -> "ILMAlignmentModel":
        check_vectors(self.vectors, stats)
        if self.words not in stats.sizes:
            raise InputError(
                f"ILMAlignment reads the words {self.words!r} of titles: items={{{self.words!r}: Words()}}"
            )
        if self.titles is not None and len(stats.columns.get(self.titles, ())) != 1:
            raise InputError(f"ILMAlignment reads the vectors {self.titles!r} of titles; the recipe needs `text`")
        return ILMAlignmentModel(self, QFormer(self.qformer, max(stats.sizes[self.words])), stats)


@dataclass(frozen=True)
class ILMAlignmentModel(Model):
    """`ILMAlignment` built for a catalog."""

    config: ILMAlignment
    qformer: QFormer
    stats: ItemStats

    @property
    def packing(self) -> bool:
        return False

    def init(self, key: Array, batch: Batch, items: Items) -> Params:
        keys, width = jax.random.split(key, 5), self.config.qformer.width
        vectors, words, titles = self.inputs(items, jnp.zeros(1, jnp.int32))
        params: Any = self.qformer.init(keys[0], vectors, words, "matching", titles)["params"]
        draw = jax.nn.initializers.lecun_normal()
        heads = {name: draw(k, (width, width)) for name, k in zip(("query", "text", "item"), keys[1:], strict=False)}
        return {"qformer": params, "heads": heads | {"match": draw(keys[4], (width, 1)), "bias": jnp.zeros(())}}

    def inputs(self, items: Items, rows: Int[Array, " b"]) -> tuple[Array, Array, Array | None]:
        """Vectors of behaviour of rows of the items, words of their titles, and vectors of these if there are any."""
        config = self.config
        titles = None if config.titles is None else items[config.titles][rows]
        return items[config.vectors][rows], items[config.words][rows], titles

    def run(
        self, params: Params, inputs: tuple[Array, Array, Array | None], what: Sight, key: Array | None
    ) -> tuple[Float[Array, "b k d"], Float[Array, "b t+1 d"]]:
        """Outputs of queries and titles, with dropout where there is a key."""
        vectors, words, titles = inputs
        rngs = {} if key is None else {"dropout": key}
        return self.qformer.apply({"params": params["qformer"]}, vectors, words, what, titles, rngs=rngs)  # pyright: ignore[reportReturnType]

    def similarities(
        self, params: Params, inputs: tuple[Array, Array, Array | None], key: Array | None = None
    ) -> Float[Array, "b b"]:
        """Cosines of items and titles, of each the query that is most similar; see `inputs`."""
        queries, text = self.run(params, inputs, "contrast", key)
        heads = params["heads"]
        return parts.best_query(unit(queries @ heads["query"]), unit(text[:, 0] @ heads["text"]))

    def matches(
        self, params: Params, inputs: tuple[Array, Array, Array | None], key: Array | None = None
    ) -> Float[Array, " b"]:
        """Logits of whether titles are the items', the mean over the queries; see `inputs`."""
        queries, _ = self.run(params, inputs, "matching", key)
        return jnp.mean(queries @ params["heads"]["match"], axis=(1, 2)) + params["heads"]["bias"]

    def drawn(self, items: Items, key: Array) -> tuple[Int[Array, " b"], Bool[Array, " b"]]:
        """Rows of different items with behaviour and a title that may be read, and False where there are no more."""
        vectors, words = items[self.config.vectors], items[self.config.words]
        ids = jnp.arange(len(vectors)) - items.start
        known = (ids > 0) & (ids <= items.size) & ~held_out(ids, self.config.held)
        known &= jnp.any(vectors != 0, axis=1) & jnp.any(words > 0, axis=1)
        order = jnp.where(known, jax.random.uniform(key, known.shape), -1.0)
        best, rows = jax.lax.top_k(order, min(self.config.texts, len(ids)))
        return rows, best >= 0

    def loss(self, params: Params, batch: Batch, items: Items, key: Array | None) -> tuple[Array, WeightedSums]:
        config, weight = self.config, jnp.sum(batch.weights)
        drop, drawn, *hard = jax.random.split(jax.random.key(0) if key is None else key, 4)
        keys = iter([None] * 5 if key is None else jax.random.split(drop, 5))
        rows, there = self.drawn(items, drawn)
        vectors, words, titles = inputs = self.inputs(items, rows)
        similar = self.similarities(params, inputs, next(keys)) / config.temperature
        alike = jnp.all(words[:, None] == words, axis=-1)  # other items may have the same title
        negative = ~alike & there[:, None] & there
        judged = there & jnp.any(negative, axis=1)
        of_item, of_title = _pairs(hard, similar, negative)
        pairs = vectors[of_item], words[of_title], None if titles is None else titles[of_title]
        logits = self.matches(params, pairs, next(keys)).reshape(3, -1)
        _, text = self.run(params, inputs, "generation", next(keys))
        table = params["qformer"]["text_inputs"]["words"][: self.qformer.vocabulary]
        terms = {
            "contrast": (parts.item_text_contrast(similar, negative), there),
            "matching": (parts.item_text_matching(logits), judged),
            "generation": (parts.text_generation(text[:, :-1] @ table.T, words), there),
            "items": (self.consecutive(params, batch, items, next(keys)), take_position(batch.weights, batch.last)),
        }
        sums = {name: (jnp.sum(value * w), jnp.sum(w).astype(jnp.float32)) for name, (value, w) in terms.items()}
        loss = sum(getattr(config, name) * total / jnp.maximum(w, 1.0) for name, (total, w) in sums.items())
        return jnp.asarray(loss), {"loss": (loss * weight, weight), **sums}

    def consecutive(self, params: Params, batch: Batch, items: Items, key: Array | None) -> Float[Array, " b"]:
        """InfoNCE of each row's last event and its target."""
        last, target = (take_position(x, batch.last) for x in (batch.items, batch.targets))
        weights = take_position(batch.weights, batch.last)
        rows = items.rows(jnp.stack([last, target], axis=1))
        vectors = lookup(items[self.config.vectors], rows)
        found = self.flat(params, vectors.reshape(-1, vectors.shape[-1]), key).reshape(*rows.shape, -1)
        one, other = found[:, 0], found[:, 1]
        # Whatever is not there is nobody's negative; the loss weighs once, outside.
        compare = partial(info_nce, temperature=self.config.temperature, weights=(weights > 0).astype(jnp.float32))
        return (compare(one, other, groups=target) + compare(other, one, groups=last)) / 2

    def flat(self, params: Params, vectors: Float[Array, "n v"], key: Array | None = None) -> Float[Array, "n k*d"]:
        """All query outputs of an item as one vector of length 1, for the term of items."""
        queries = read(self.qformer, params["qformer"], vectors, key)
        flat = unit(queries @ params["heads"]["item"]).reshape(len(vectors), -1)
        return flat * self.config.qformer.queries**-0.5

    def prepare(self, params: Params, items: Items) -> dict[str, Any]:
        return {TABLE: read_all(partial(self.flat, params), items[self.config.vectors])}

    def scoring(self, params: Params, queries: Queries, items: Items) -> DotProduct:
        table = (items.prepared or self.prepare(params, items))[TABLE]
        users = lookup(table, items.rows(take_position(queries.items, queries.last))[:, None])[:, 0]
        return DotProduct(users, table, items.size, start=items.start)


def held_out(ids: Int[Array, "*n"], share: float) -> Bool[Array, "*n"]:
    """Flags of the items of a share of the catalog that is spread evenly over it, by Knuth's multiplicative hash."""
    return ids.astype(jnp.uint32) * jnp.uint32(2654435761) < min(share * 2.0**32, 2.0**32 - 1)


def _pairs(
    keys: Sequence[Array], similar: Float[Array, "b b"], negative: Bool[Array, "b b"]
) -> tuple[Int[Array, "3*b"], Int[Array, "3*b"]]:
    """Items and titles of the term of matching: those that belong together, wrong titles, and wrong items."""
    own = jnp.arange(len(similar))
    title = parts.hard_negatives(keys[0], similar, negative)
    item = parts.hard_negatives(keys[1], similar.T, negative.T)
    return jnp.concatenate([own, own, item]), jnp.concatenate([own, title, own])


def check_vectors(name: str, stats: ItemStats) -> None:
    """Raises InputError where items have no such column of vectors."""
    if len(stats.columns.get(name, ())) != 1:
        known = ", ".join(stats.columns) or "none"
        raise InputError(
            f"ILM reads the vectors {name!r} of each item, but the columns are: {known}; the recipe needs "
            f"items={{{name!r}: Behaviour()}} or VectorFile"
        )
