"""TIGER: an encoder-decoder that writes the codes of the next item (Rajput et al., NeurIPS 2023).

A history is read as the codes of its items, and the next item is predicted code by code. Items are found by a beam over
the trie of the catalog's codes, which is made of the column `codes` on the device, so a catalog that was not there in
training can be ranked.

A row is one history with one target, that of its last position: `Prefixes(Shifted(targets=1))` and data.pack=false.
With `causal`, rows are packed histories with a target at each position (`Shifted()`): items see those before them,
so that one pass of the encoder serves all targets. There are no user tokens. A code's probability is among the codes of
its slot, in the loss as in the scores, so the score of an item is its log-likelihood.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import CODES, Items
from recjax.decode.scoring import Stepwise
from recjax.decode.trie import device_trie
from recjax.limits import COUNT, refuse, require
from recjax.models.model import ItemStats, Model, ModelConfig, Rules, WeightedSums
from recjax.models.parts.flat_codes import FlatCodes, check_codes, codes_of
from recjax.ops.items.embedding import take_position
from recjax.text.lm.t5 import SHARDING_RULES, T5, DecoderCache, T5Config, seen_before
from recjax.typing import Array, Bool, Float, Int, Params

TRIE = "trie"
"""Name of the catalog's trie in `Items.prepared`."""

History = tuple[Any, Bool[Array, "b m"]]
"""Arrays that the encoder's inputs are made of, and where these are no padding."""


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
        causal: items of a history see those before them and their own codes; otherwise all of the history.
        dtype: compute type; parameters are float32.
    """

    ranks_unseen: ClassVar[bool] = True
    orders: ClassVar[bool] = True  # inputs are the items of a history in their order and nothing else

    width: int = 128
    layers: int = 4
    heads: int = 6
    channels: int = 64
    inner: int = 1024
    dropout: float = 0.1
    codes: int = 256
    beam: int | None = 50
    causal: bool = False
    dtype: str = "float32"

    def __post_init__(self) -> None:
        require(self, beam=COUNT)
        if self.causal and not self.orders:
            refuse(self, "causal", "False, since its inputs are more than the items of a history in their order")

    def build(self, stats: ItemStats) -> "TIGERModel":
        """The model for a catalog whose items have codes."""
        tokens = self.tokens(stats)
        return TIGERModel(self, T5(self.network(tokens)), tokens, stats)

    def tokens(self, stats: ItemStats) -> FlatCodes:
        """Numbering of the codes of a catalog; InputError where it has none, or more than there is room for."""
        check_codes(type(self).__name__, stats.code_sizes, self.codes)
        return FlatCodes(stats.code_sizes, self.codes)

    def network(self, tokens: FlatCodes) -> T5Config:
        """Sizes of the encoder-decoder over these tokens."""
        named = ("width", "heads", "channels", "inner", "layers", "dropout", "dtype")
        options = {name: getattr(self, name) for name in named}
        return T5Config(tokens.vocabulary, decoder_layers=self.layers, **options)


class Writing(NamedTuple):
    """Memory of prefixes in a search.

    Attributes:
        decoder: the network's.
        tokens: written so far, the start among them, int32 [q, w, t].
    """

    decoder: DecoderCache
    tokens: Array


@dataclass(frozen=True)
class TIGERModel(Model):
    """`TIGER` built for a catalog. The loss is the mean over targets of the nats of all their codes."""

    config: TIGER
    module: T5
    tokens: FlatCodes
    stats: ItemStats

    @property
    def packing(self) -> bool:
        return self.config.causal

    def row_bytes(self, batch: Batch) -> int:
        tokens = batch.items.shape[1] * len(self.tokens.sizes)
        tokens *= 1 + self.config.causal  # in the decoder as many again
        return tokens * self.config.width * jnp.dtype(self.config.dtype).itemsize

    @property
    def notes(self) -> dict[str, Any]:
        return {"beam": self.config.beam or "exact"}

    def init(self, key: Array, batch: Batch, items: Items) -> Params:
        read, mask = self.history(batch, items)
        return self.module.init(key, read, mask, jnp.zeros((len(mask), 1), jnp.int32))["params"]

    def history(self, source: Batch | Queries, items: Items) -> History:
        """Arrays that `read` takes, of each row."""
        return self.tokens.history(source, items)

    def loss(self, params: Params, batch: Batch, items: Items, key: Array | None) -> tuple[Array, WeightedSums]:
        if self.config.causal:
            weights, found = batch.weights, self.log_likelihoods(params, batch, items, key)
        else:
            weights = take_position(batch.weights, batch.last)
            found = self.log_likelihood(params, batch, take_position(batch.targets, batch.last), items, key)
        total, weight = -jnp.sum(jnp.where(weights > 0, weights * found, 0.0)), jnp.sum(weights)
        return total / jnp.maximum(weight, 1.0), {"loss": (total, weight)}

    def log_likelihoods(self, params: Params, batch: Batch, items: Items, key: Array | None) -> Float[Array, "b l"]:
        """Log-probabilities of the targets of all positions, each after the events of its history up to there."""
        (tokens, _), slots = self.history(batch, items), len(self.tokens.sizes)
        seen = seen_before(jnp.repeat(batch.segments, slots, axis=1), slots)
        codes = codes_of(items, batch.targets)

        def run(t5: T5) -> Array:
            states = t5.encode(self.read(t5, tokens), seen)
            return self.likelihood_of(t5, states, seen[:, slots - 1 :: slots], codes)

        return self._run(params, run, key)

    def log_likelihood(
        self, params: Params, source: Batch | Queries, targets: Int[Array, " b"], items: Items, key: Array | None = None
    ) -> Float[Array, " b"]:
        """Log-probability of one item after each history, by teacher forcing; with dropout where there is a key."""
        return self.log_likelihood_after(params, self.history(source, items), targets, items, key)

    def log_likelihood_after(
        self, params: Params, history: History, targets: Int[Array, " b"], items: Items, key: Array | None = None
    ) -> Float[Array, " b"]:
        """The same after anything that `read` reads."""
        mask, codes = history[1], codes_of(items, targets)
        return self._run(params, lambda t5: self.likelihood_of(t5, self.states(t5, history), mask, codes), key)

    def states(self, t5: T5, history: History) -> Float[Array, "b m d"]:
        """States of the encoder."""
        tokens, mask = history
        return t5.encode(
            self.read(t5, tokens), seen_before(mask, len(self.tokens.sizes)) if self.config.causal else mask
        )

    def likelihood_of(
        self, t5: T5, states: Float[Array, "b m d"], mask: Bool[Array, "b *k m"], codes: Int[Array, "b *k slots"]
    ) -> Float[Array, "b *k"]:
        """The same of codes, after states of the encoder."""
        hidden, total = (
            t5.decode(self.written(t5, self.tokens.written(codes)), states, mask),
            jnp.zeros(codes.shape[:-1]),
        )
        for slot in range(codes.shape[-1]):
            found = jax.nn.log_softmax(t5.logits(hidden[..., slot, :], *self.tokens.span(slot)))
            total += jnp.take_along_axis(found, codes[..., slot, None], axis=-1)[..., 0]
        return total

    def read(self, t5: T5, tokens: Any) -> Float[Array, "b m d"]:
        """Inputs of the encoder, here of the codes of a history's items end to end, int32 [b, m]."""
        return t5.embed(tokens)

    def written(self, t5: T5, tokens: Int[Array, "*b t"]) -> Float[Array, "*b t d"]:
        """Inputs of the decoder: the start and the codes of one item so far, each of which depends on none after it."""
        return t5.embed(tokens)

    def sharding_rules(self) -> Rules:
        return SHARDING_RULES

    def prepare(self, params: Params, items: Items) -> dict[str, Any]:
        del params
        return {TRIE: device_trie(items[CODES], self.tokens.sizes, items.start, items.size)}

    def scoring(self, params: Params, queries: Queries, items: Items) -> Stepwise:
        return self.search(params, self.history(queries, items), items)

    def search(self, params: Params, history: History, items: Items) -> Stepwise:
        """Items by their likelihood after anything that `read` reads."""

        def begin(history: History) -> Writing:
            mask = history[1]
            cache = self._run(params, lambda t5: t5.begin(self.states(t5, history), mask))
            return Writing(cache, jnp.zeros((len(mask), 1, 0), jnp.int32))

        def step(cache: Writing, codes: Int[Array, "q b"]) -> tuple[Array, Writing]:
            slot = cache.tokens.shape[2]
            before = jnp.broadcast_to(cache.tokens, (*codes.shape, slot))
            tokens = jnp.concatenate([before, self.tokens.following(codes, slot)[..., None]], axis=2)

            def logits(t5: T5) -> tuple[Array, Writing]:
                hidden, grown = t5.step(cache.decoder, self.written(t5, tokens)[:, :, -1])
                return t5.logits(hidden, *self.tokens.span(slot)), Writing(grown, tokens)

            return self._run(params, logits)

        trie = (items.prepared or self.prepare(params, items))[TRIE]
        return Stepwise(begin, step, history, trie, self.config.beam)

    def _run(self, params: Params, function: Callable[[T5], Any], key: Array | None = None) -> Any:
        rngs = None if key is None else {"dropout": key}
        return self.module.apply({"params": params}, method=function, rngs=rngs)
