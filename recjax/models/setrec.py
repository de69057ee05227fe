"""SETRec: an item is a set of vectors without an order, all of which are generated at once.

Lin et al., Order-agnostic Identifier for Large Language Model-based Generative Recommendation, SIGIR 2025.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import VECTORS, Items, by_rows
from recjax.decode.scoring import DotProduct
from recjax.limits import RATE, SIZE, at_least, require, within
from recjax.models.model import ItemStats, Model, ModelConfig, Rules, WeightedSums
from recjax.ops.items.embedding import take_position
from recjax.ops.items.softmax import full_softmax
from recjax.text.lm.t5 import SHARDING_RULES, T5, T5Config, seen_before
from recjax.typing import Array, Float, InputError, Params

TOKENS = "tokens"
"""Name of the catalog's sets in `Items.prepared`."""


@dataclass(frozen=True)
class SETRec(ModelConfig):
    """An encoder-decoder over sets of vectors: one made of an item's vector of behaviour, the others of its text.

    The vector of behaviour goes through a linear map, the text's through an autoencoder whose bottleneck is cut into
    `slots` vectors. A history is the slots of its items, which share their item's position. The decoder answers one
    learned query a slot; queries do not see each other. Item i scores

        (1 - share) q_0 . v_i0 + share sum_j q_j . v_ij

    so that a catalog is ranked by one product, and an item without an event by its text. The loss is the mean over
    slots of the cross-entropies over the catalog, and `rebuild` times the squared distance of the texts of the batch's
    items from what the autoencoder makes of them. No parameter belongs to an item. Not the paper's: the network is
    trained from scratch and reads no prompt, and the distance is no mean over coordinates, for texts have length 1.

    The view is `Prefixes(Shifted(targets=1))`, data.pack=false; with `causal`, rows are packed histories with a target
    at each position (`Shifted()`), and one pass of the encoder serves all of them. It trains on one catalog; items of
    another one are ranked by their texts.

    Attributes:
        behaviour: column of the vectors of behaviour, zeros for an item without one.
        vectors: column of the vectors of texts.
        slots: vectors of an item's text.
        share: of the text in scores; to be chosen on validation.
        rebuild: weight of that distance.
        hidden: widths of the autoencoder between text and bottleneck.
        width: of the residual stream and of each vector.
        layers: blocks of the encoder, and of the decoder.
        heads: attention heads.
        channels: of a head.
        inner: width inside the feed-forward network.
        dropout: rate on inputs, attention weights, and outputs of parts.
        causal: items of a history see those before them and their own set; otherwise all of the history.
        dtype: compute type of the network; parameters are float32.
    """

    ranks_unseen: ClassVar[bool] = True

    behaviour: str = "behaviour"
    vectors: str = VECTORS
    slots: int = 4
    share: float = 0.5
    rebuild: float = 0.7
    hidden: tuple[int, ...] = (512, 256, 128)
    width: int = 128
    layers: int = 4
    heads: int = 6
    channels: int = 64
    inner: int = 1024
    dropout: float = 0.1
    causal: bool = False
    dtype: str = "float32"

    def __post_init__(self) -> None:
        require(self, slots=within(1, 64), share=within(0, 1), rebuild=at_least(0), hidden=SIZE, dropout=RATE)

    def build(self, stats: ItemStats) -> "SETRecModel":
        """The model for a catalog whose items have both columns."""
        for name in (self.behaviour, self.vectors):
            if len(stats.columns.get(name, ())) != 1:
                known = ", ".join(stats.columns) or "none"
                raise InputError(
                    f"SETRec reads the vectors {name!r} of each item, but the columns are: {known}; the recipe needs "
                    "`text`, and items={'behaviour': Behaviour()} or VectorFile"
                )
        named = ("width", "heads", "channels", "inner", "layers", "dropout", "dtype")
        options = {name: getattr(self, name) for name in named}
        network = T5Config(1 + self.slots, decoder_layers=self.layers, **options)  # its tokens are the queries
        return SETRecModel(self, T5(network), stats)


@dataclass(frozen=True)
class SETRecModel(Model):
    """`SETRec` built for a catalog."""

    config: SETRec
    module: T5
    stats: ItemStats

    @property
    def packing(self) -> bool:
        return self.config.causal

    def sharding_rules(self) -> Rules:
        return SHARDING_RULES

    def init(self, key: Array, batch: Batch, items: Items) -> Params:
        config, keys = self.config, iter(jax.random.split(key, 2 * len(self.config.hidden) + 4))
        (behaviour,), (text,) = (self.stats.columns[name] for name in (config.behaviour, config.vectors))
        ways = [text, *config.hidden, config.slots * config.width]
        tokens = jnp.zeros((len(batch.items), 1 + config.slots), jnp.int32)
        draw = jax.nn.initializers.glorot_normal()

        def layers(widths: list[int]) -> list[Params]:
            return [{"kernel": draw(next(keys), pair), "bias": jnp.zeros(pair[1])} for pair in pairwise(widths)]

        return {
            **self.module.init(next(keys), tokens, tokens == 0, tokens)["params"],
            "behaviour": draw(next(keys), (behaviour, config.width)),
            "text": layers(ways),
            "rebuilt": layers(ways[::-1]),
        }

    def sets(self, params: Params, items: Items, rows: Any = slice(None)) -> tuple[Array, Array, Array]:
        """The vectors of items, [..., 1 + slots, width], their texts, and these rebuilt from the vectors."""
        config, text = self.config, items[self.config.vectors][rows]
        found = items[config.behaviour][rows] @ params["behaviour"]
        bottleneck = _through(params["text"], text)
        cut = bottleneck.reshape(*bottleneck.shape[:-1], config.slots, config.width)
        return jnp.concatenate([found[..., None, :], cut], axis=-2), text, _through(params["rebuilt"], bottleneck)

    def answers(
        self,
        params: Params,
        source: Batch | Queries,
        items: Items,
        key: Array | None = None,
        *,
        everywhere: bool = False,
    ) -> Float[Array, "b *l slots d"]:
        """The decoder's answers, one a slot, with dropout where there is a key.

        After whole rows; with `everywhere`, at each position after the events of its history up to there.
        """
        vectors = self.sets(params, items, items.rows(source.items))[0]
        rows, length, slots, width = vectors.shape
        histories = jnp.repeat(source.segments, slots, axis=1)
        seen = seen_before(histories, slots) if self.config.causal else histories > 0
        asked = seen[:, slots - 1 :: slots] if everywhere else histories > 0
        places = jnp.broadcast_to(jnp.repeat(jnp.arange(length), slots), histories.shape)

        def run(t5: T5) -> Array:
            states = t5.encode(vectors.reshape(rows, length * slots, width), seen, places)
            questions = jnp.broadcast_to(t5.embed(jnp.arange(slots)), (*asked.shape[:-1], slots, width))
            return t5.decode(questions, states, asked, apart=True).astype(jnp.float32)

        return self._run(params, run, key)

    def loss(self, params: Params, batch: Batch, items: Items, key: Array | None) -> tuple[Array, WeightedSums]:
        weights, targets, causal = batch.weights, batch.targets, self.config.causal
        if not causal:
            weights, targets = take_position(weights, batch.last), take_position(targets, batch.last)
        answers, table = self.answers(params, batch, items, key, everywhere=causal), self.table(params, items)
        weight = jnp.sum(weights)
        each = [
            full_softmax(answers[..., slot, :], table[:, slot], None, targets, weights, items=self.n_items)
            for slot in range(1 + self.config.slots)
        ]
        _, text, rebuilt = self.sets(params, items, items.rows(batch.items))
        present = (batch.items > 0).astype(jnp.float32)
        error = jnp.sum(present * jnp.sum(jnp.square(rebuilt - text), axis=-1))
        sums = {"behaviour": (each[0], weight), "text": (sum(each[1:]) / self.config.slots, weight)}
        sums["rebuild"] = (error, jnp.sum(present))
        loss = sum(each) / len(each) / jnp.maximum(weight, 1.0)
        loss += self.config.rebuild * error / jnp.maximum(jnp.sum(present), 1.0)
        return loss, {"loss": (loss * weight, weight), **sums}

    def table(self, params: Params, items: Items) -> Float[Array, "rows slots d"]:
        """The sets of all items."""
        return by_rows(self.sets(params, items)[0])

    def prepare(self, params: Params, items: Items) -> dict[str, Any]:
        return {TOKENS: self.table(params, items)}

    def scoring(self, params: Params, queries: Queries, items: Items) -> DotProduct:
        share = jnp.full(1 + self.config.slots, self.config.share).at[0].set(1 - self.config.share)
        users = share[:, None] * self.answers(params, queries, items)
        table = (items.prepared or self.prepare(params, items))[TOKENS]
        users, table = (x.reshape(len(x), -1) for x in (users, table))
        return DotProduct(users, table, items.size, start=items.start)

    def _run(self, params: Params, function: Callable[[T5], Any], key: Array | None) -> Any:
        rngs = None if key is None else {"dropout": key}
        return self.module.apply({"params": params}, method=function, rngs=rngs)


def _through(layers: list[Params], x: Array) -> Array:
    """A network with ReLU between its layers."""
    for number, layer in enumerate(layers):
        x = (x if number == 0 else jax.nn.relu(x)) @ layer["kernel"] + layer["bias"]
    return x
