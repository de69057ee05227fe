"""TIGER: an encoder-decoder that writes the codes of the next item (Rajput et al., NeurIPS 2023).

A history is read as the codes of its items, and the next item is predicted code by code. Items are found by a beam over
the trie of the catalog's codes, which is made of the column `codes` on the device, so a catalog that was not there in
training can be ranked.

A row is one history with one target, that of its last position: `Prefixes(Shifted(targets=1))` and data.pack=false.
There are no user tokens. A code's probability is among the codes of its slot, in the loss as in the scores, so the
score of an item is its log-likelihood.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import CODES, Items
from recjax.decode.scoring import Stepwise
from recjax.decode.trie import device_trie
from recjax.limits import COUNT, require
from recjax.models.model import ItemStats, Model, ModelConfig, WeightedSums
from recjax.models.parts.flat_codes import FlatCodes, codes_of
from recjax.models.parts.t5 import T5, DecoderCache, T5Config
from recjax.ops.items.embedding import take_position
from recjax.typing import Array, Float, InputError, Int, Params

TRIE = "trie"
"""Name of the catalog's trie in `Items.prepared`."""


@dataclass(frozen=True)
class TIGER(ModelConfig):
    """The encoder-decoder and the width of the search; the defaults are the published sizes.

    Attributes:
        width: of the residual stream.
        layers: blocks of the encoder, and of the decoder.
        heads: attention heads.
        channels: of a head.
        inner: width inside the feed-forward network.
        dropout: rate on embeddings, attention weights, and outputs of parts.
        codes: rows of the token table for each slot, whatever the slot's size, so that parameters fit other catalogs.
        beam: prefixes kept after each code; None expands every prefix of the catalog: exact, for a few users at a time.
        dtype: compute type; parameters are float32.
    """

    ranks_unseen: ClassVar[bool] = True

    width: int = 128
    layers: int = 4
    heads: int = 6
    channels: int = 64
    inner: int = 1024
    dropout: float = 0.1
    codes: int = 256
    beam: int | None = 50
    dtype: str = "float32"

    def __post_init__(self) -> None:
        require(self, beam=COUNT)

    def build(self, stats: ItemStats) -> "TIGERModel":
        """The model for a catalog whose items have codes."""
        if not stats.code_sizes:
            raise InputError(
                "TIGER reads codes of items, but there are none: the recipe needs `text` and a `tokenizer`, or "
                "items={'codes': Codes(...)}"
            )
        if max(stats.code_sizes) > self.codes:
            raise InputError(f"a slot has {max(stats.code_sizes)} codes, but model.codes is {self.codes}")
        tokens = FlatCodes(stats.code_sizes, self.codes)
        named = ("width", "heads", "channels", "inner", "layers", "dropout", "dtype")
        options = {name: getattr(self, name) for name in named}
        network = T5Config(tokens.vocabulary, decoder_layers=self.layers, **options)
        return TIGERModel(self, T5(network), tokens, stats)


@dataclass(frozen=True)
class TIGERModel(Model):
    """`TIGER` built for a catalog. The loss is the mean over targets of the nats of all their codes."""

    config: TIGER
    module: T5
    tokens: FlatCodes
    stats: ItemStats

    @property
    def packing(self) -> bool:
        return False

    @property
    def notes(self) -> dict[str, Any]:
        return {"beam": self.config.beam or "exact"}

    def init(self, key: Array, batch: Batch, items: Items) -> Params:
        tokens, mask = self.tokens.history(batch, items)
        return self.module.init(key, tokens, mask, tokens[:, :1])["params"]

    def loss(self, params: Params, batch: Batch, items: Items, key: Array | None) -> tuple[Array, WeightedSums]:
        last = jnp.maximum(jnp.sum(batch.segments > 0, axis=1) - 1, 0)
        weights = take_position(batch.weights, last)
        found = self.log_likelihood(params, batch, take_position(batch.targets, last), items, key)
        total, weight = -jnp.sum(jnp.where(weights > 0, weights * found, 0.0)), jnp.sum(weights)
        return total / jnp.maximum(weight, 1.0), {"loss": (total, weight)}

    def log_likelihood(
        self, params: Params, source: Batch | Queries, targets: Int[Array, " b"], items: Items, key: Array | None = None
    ) -> Float[Array, " b"]:
        """Log-probability of one item after each history, by teacher forcing; with dropout where there is a key."""
        tokens, mask = self.tokens.history(source, items)
        codes = codes_of(items, targets)

        def nats(t5: T5) -> Array:
            states = t5.encode(t5.embed(tokens), mask)
            hidden, total = t5.decode(t5.embed(self.tokens.written(codes)), states, mask), jnp.zeros(len(codes))
            for slot in range(codes.shape[1]):
                found = jax.nn.log_softmax(t5.logits(hidden[:, slot], *self.tokens.span(slot)))
                total += jnp.take_along_axis(found, codes[:, slot, None], axis=1)[:, 0]
            return total

        return self._run(params, nats, key)

    def prepare(self, params: Params, items: Items) -> dict[str, Any]:
        del params
        return {TRIE: device_trie(items[CODES], self.tokens.sizes, items.start, items.size)}

    def scoring(self, params: Params, queries: Queries, items: Items) -> Stepwise:
        def begin(history: tuple[Array, Array]) -> DecoderCache:
            tokens, mask = history
            return self._run(params, lambda t5: t5.begin(t5.encode(t5.embed(tokens), mask), mask))

        def step(cache: DecoderCache, codes: Int[Array, "q b"]) -> tuple[Array, DecoderCache]:
            slot = cache.own[0][0].shape[2]

            def logits(t5: T5) -> tuple[Array, DecoderCache]:
                hidden, grown = t5.step(cache, t5.embed(self.tokens.following(codes, slot)))
                return t5.logits(hidden, *self.tokens.span(slot)), grown

            return self._run(params, logits)

        trie = (items.prepared or self.prepare(params, items))[TRIE]
        return Stepwise(begin, step, self.tokens.history(queries, items), trie, self.config.beam)

    def _run(self, params: Params, function: Callable[[T5], Any], key: Array | None = None) -> Any:
        rngs = None if key is None else {"dropout": key}
        return self.module.apply({"params": params}, method=function, rngs=rngs)
