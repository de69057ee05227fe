"""ColaRec: a generator of codes made of behaviour, which reads texts, for recommendation without order.

Wang et al., Content-Based Collaborative Generation for Recommender Systems, CIKM 2024.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import CODES, Items
from recjax.limits import at_least, require
from recjax.models.model import ItemStats, WeightedSums
from recjax.models.parts.flat_codes import codes_of
from recjax.models.tiger import TIGER, History, TIGERModel
from recjax.nn.dense import Dense
from recjax.ops.items.softmax import EXCLUDED
from recjax.text.lm.t5 import T5, T5Config
from recjax.typing import Array, Bool, Float, InputError, Int, Params

USER, ITEM = 0, 1
"""Tasks: a user's items to the next one's codes, an item's text to its own."""


@dataclass(frozen=True)
class ColaRec(TIGER):
    """`TIGER` over texts: each item of a user is a slot for its vector of behaviour and then its words, and a task
    stands before all. An item's own text, with a slot for the user, is read for the codes of the item itself. Items of
    a user have no order: a fresh one in every step of training, the latest first otherwise. The loss is

        generation (L_rec + L_index+ + L_index-) - log s(u.p - u.n) - contrast log s(p.q - p.n)

    of a user u, an item p that the user had, an item n that the user has not, and an item q that has all codes of p but
    the last; these are the encoder's states of the last token. s is the logistic function.

    The codes are those of `HierarchicalKMeans` of vectors of behaviour. The view is a `Cloze` that masks one item. Not
    the paper's: the network is trained from scratch, a user's vector is the mean of the items', and a negative is none
    of the items of the sample.

    Attributes:
        words: column of numbers of words, see `recjax.data.features.columns.Words`.
        behaviour: column of vectors.
        atomic: read the vectors of behaviour.
        generation: weight of the generation losses.
        index: weight of L_index beside L_rec.
        ranking: weight of the loss of u.
        contrast: weight of the loss of q.
    """

    orders: ClassVar[bool] = False

    words: str = "words"
    behaviour: str = "behaviour"
    atomic: bool = True
    generation: float = 0.08
    index: float = 1.0
    ranking: float = 1.0
    contrast: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, generation=at_least(0), index=at_least(0), ranking=at_least(0), contrast=at_least(0))

    def build(self, stats: ItemStats) -> "ColaRecModel":
        tokens = self.tokens(stats)
        for name in (self.words, self.behaviour):
            if len(stats.columns.get(name, ())) != 1:
                known = ", ".join(stats.columns) or "none"
                raise InputError(
                    f"ColaRec reads {name!r} of each item, but the columns are: {known}; the recipe needs "
                    "items={'words': Words(), 'behaviour': Behaviour(), 'codes': Codes(..., of='behaviour')}"
                )
        return ColaRecModel(self, TextT5(self.network(tokens), stats.sizes[self.words][0]), tokens, stats)

    def network(self, tokens: Any) -> T5Config:
        found = super().network(tokens)
        return T5Config(**{**vars(found), "tied": False})  # heads of their own for each slot


class TextT5(T5):
    """The encoder-decoder whose encoder reads words and vectors of behaviour.

    Attributes:
        known_words: numbers of words that there are.
    """

    known_words: int = 2

    def setup(self) -> None:
        super().setup()
        width, dtype, init = self.config.width, jnp.dtype(self.config.dtype), nn.initializers.normal(1.0)
        self.word_table = self.param("words", init, (self.known_words, width))
        self.tasks = self.param("tasks", init, (2, width))
        self.vector = Dense(width, use_bias=False, dtype=dtype, kernel_init=init)

    def __call__(self, inputs: Any, mask: Array, targets: Array) -> Array:
        states = self.encode(self.read(inputs), mask)
        return self.logits(self.decode(self.embed(targets), states, mask))

    def read(self, inputs: Any) -> Float[Array, "b m d"]:
        """Inputs of a task, and of each item a vector and words."""
        task, vectors, words = inputs
        dtype = self.config.dtype
        each = jnp.concatenate([self.vector(vectors)[..., None, :], self.word_table[words].astype(dtype)], axis=-2)
        each = each.reshape(len(each), -1, each.shape[-1])
        first = self.tasks[task][:, None].astype(dtype)
        return jnp.concatenate([first, each], axis=1)


@dataclass(frozen=True)
class ColaRecModel(TIGERModel):
    """`ColaRec` built for a catalog."""

    config: ColaRec
    module: TextT5

    def read(self, t5: Any, tokens: Any) -> Float[Array, "b m d"]:
        return t5.read(tokens)

    def row_bytes(self, batch: Batch) -> int:
        return super().row_bytes(batch) // len(self.tokens.sizes) * (1 + self.stats.sizes[self.config.words][0])

    def history(self, source: Batch | Queries, items: Items) -> History:
        latest_first = -jnp.arange(source.items.shape[1])
        return self.set_of(self._arranged(source.items, latest_first), items)

    def _arranged(self, ids: Int[Array, "b l"], places: Array) -> Int[Array, "b l"]:
        """The items of each row in the order of `places`, padding and masks behind them as 0."""
        held = (ids > 0) & (ids <= self.n_items)
        order = jnp.argsort(jnp.where(held, places, jnp.inf), axis=1)
        return jnp.take_along_axis(jnp.where(held, ids, 0), order, axis=1)

    def set_of(self, ids: Int[Array, "b l"], items: Items) -> History:
        """Items of each user in the order in which they are read."""
        return self._texts(USER, ids, items[self.config.behaviour][items.rows(ids)], ids > 0, items)

    def item_of(self, ids: Int[Array, " b"], user: Float[Array, "b e"], items: Items) -> History:
        """The words of one item, after a slot for the user."""
        held = jnp.ones((len(ids), 1), bool)
        return self._texts(ITEM, ids[:, None], user[:, None], held, items)

    def _texts(self, task: int, ids: Array, vectors: Array, held: Array, items: Items) -> History:
        words = items[self.config.words][items.rows(ids)]
        slots = jnp.broadcast_to(held & self.config.atomic, held.shape)[..., None]
        mask = jnp.concatenate([slots, (words > 0) & held[..., None]], axis=-1).reshape(len(ids), -1)
        return (jnp.full(len(ids), task), vectors, words), jnp.pad(mask, [(0, 0), (1, 0)], constant_values=True)

    def encoded(
        self, params: Params, history: History, targets: Int[Array, " t"], items: Items, key: Array | None
    ) -> tuple[Float[Array, " t"], Float[Array, "b d"]]:
        """Log-probabilities of items after the first t rows, and the encoder's states of the last token of each row."""
        (inputs, mask), codes = history, codes_of(items, targets)
        last = mask.shape[1] - 1 - jnp.argmax(mask[:, ::-1], axis=1)

        def run(t5: Any) -> tuple[Array, Array]:
            states, count = t5.encode(t5.read(inputs), mask), len(codes)
            return self.likelihood_of(t5, states[:count], mask[:count], codes), states

        found, states = self._run(params, run, key)
        return found, jnp.take_along_axis(states, last[:, None, None], axis=1)[:, 0].astype(jnp.float32)

    def loss(self, params: Params, batch: Batch, items: Items, key: Array | None) -> tuple[Array, WeightedSums]:
        config, keys = self.config, jax.random.split(jax.random.key(0) if key is None else key, 4)
        target = jnp.max(jnp.where(batch.weights > 0, batch.targets, 0), axis=1)
        weights = jnp.max(batch.weights, axis=1)
        places = -jnp.arange(batch.items.shape[1])
        if key is not None:
            places = jax.random.uniform(keys[0], batch.items.shape)
        ids = self._arranged(batch.items, places)
        negative, alike, known = self.drawn(batch, target, items, keys[1])
        vectors = items[config.behaviour][items.rows(ids)]  # zeros for padding
        user = jnp.sum(vectors, axis=1) / jnp.maximum(jnp.sum(ids > 0, axis=1), 1)[:, None]
        texts = self.item_of(jnp.concatenate([target, negative, alike]), jnp.tile(user, (3, 1)), items)
        drops = [None if key is None else drop for drop in keys[2:]]
        found, u = self.encoded(params, self.set_of(ids, items), target, items, drops[0])
        own, states = self.encoded(params, texts, jnp.concatenate([target, negative]), items, drops[1])
        p, n, q = jnp.split(states, 3)

        def above(a: Array, b: Array, c: Array) -> Array:
            return jax.nn.softplus(jnp.sum(a * (c - b), axis=1) * u.shape[1] ** -0.5)

        terms = {
            "generated": (config.generation, -found),
            "index": (config.generation * config.index, -jnp.sum(own.reshape(2, -1), axis=0)),
            "ranking": (config.ranking, above(u, p, n)),
            "contrast": (config.contrast, jnp.where(known, above(p, q, n), 0.0)),
        }
        weight = jnp.sum(weights)

        def summed(each: Array) -> Array:
            return jnp.sum(jnp.where(weights > 0, weights * each, 0.0))

        sums = {name: (summed(each), weight) for name, (_, each) in terms.items()}
        total = sum((share * sums[name][0] for name, (share, _) in terms.items()), jnp.zeros(()))
        return total / jnp.maximum(weight, 1.0), {"loss": (total, weight), **sums}

    def drawn(
        self, batch: Batch, target: Int[Array, " b"], items: Items, key: Array
    ) -> tuple[Int[Array, " b"], Int[Array, " b"], Bool[Array, " b"]]:
        """An item that is not in the sample; one with the target's codes but the last, if any; whether there is one."""
        every = jnp.arange(1, self.n_items + 1)
        noise = jax.random.gumbel(key, (2, len(target), self.n_items))
        rows = jnp.arange(len(target))[:, None]
        present = jnp.zeros((len(target), self.n_items + 2), bool).at[rows, batch.items].set(True)
        present = present.at[rows[:, 0], target].set(True)[:, 1:-1]
        negative = every[jnp.argmax(jnp.where(present, EXCLUDED, noise[0]), axis=1)]
        leaf = items[CODES][items.rows(every)][:, :-1]
        own = items[CODES][items.rows(target)][:, :-1]
        near = jnp.all(leaf == own[:, None], axis=2) & (every != target[:, None])
        alike = every[jnp.argmax(jnp.where(near, noise[1], EXCLUDED), axis=1)]
        return negative, alike, jnp.any(near, axis=1)
