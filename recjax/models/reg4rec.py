"""REG4Rec: unordered codes of parallel experts, generated in an order of the model's own choice, one by one.

Xing et al., REG4Rec: Reasoning-Enhanced Generative Model for Large-Scale Recommendation Systems, 2025. Of the paper are
the quantiser (`MPQ`) and the ideas; there is no official code, and all that is here beside them is this library's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import CODES, Items
from recjax.decode.any_order import AnyOrder, Order
from recjax.limits import COUNT, RATE, SIZE, above, require
from recjax.models.model import ItemStats, Model, ModelConfig, Rules, WeightedSums
from recjax.models.parts.flat_codes import check_codes, codes_of
from recjax.nn.dense import Dense
from recjax.ops.activation import unit
from recjax.ops.items.embedding import take_position
from recjax.ops.items.softmax import EXCLUDED
from recjax.text.lm.t5 import SHARDING_RULES, T5, T5Config
from recjax.typing import Array, Bool, Float, Int, Params


@dataclass(frozen=True)
class REG4Rec(ModelConfig):
    """An encoder over items, each made of all of its codes, and a decoder that is asked for the codes that are left.

    The decoder reads the sum of the vectors of the codes so far, so that their order says nothing. For slot r its state
    h becomes h + W2_r relu(W1_r h), and a code's logit is the cosine of that and the code's vector, over `temperature`.
    In training the codes of the next item come in an order drawn for each sample; before each of them the loss is the
    mean of the cross-entropies of all slots that are left. A search takes the slot whose likeliest code is likeliest
    (`order`), and may drop finished paths whose codes do not agree: the mean over slots of the log-probability of a
    code given all the others is below `agree` (CORP).

    The tokenizer is `MPQ`, the view `Prefixes(Shifted(targets=1))` with data.pack=false.

    Attributes:
        width: of the residual stream and of the codes' vectors.
        layers: blocks of the encoder, and of the decoder.
        heads: attention heads.
        channels: of a head.
        inner: width inside the feed-forward network.
        dropout: rate on inputs, attention weights, and outputs of parts.
        codes: rows of the code table for each slot, whatever the slot's size.
        temperature: of the cosines.
        beam: paths kept after each code but the last; None for as many as there are items.
        order: "confidence", "fixed" or "random".
        agree: nats; None keeps all paths.
        dtype: compute type; parameters are float32.
    """

    ranks_unseen: ClassVar[bool] = True

    width: int = 128
    layers: int = 3
    heads: int = 8
    channels: int = 16
    inner: int = 640
    dropout: float = 0.1
    codes: int = 300
    temperature: float = 0.1
    beam: int | None = 20
    order: Order = "confidence"
    agree: float | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        require(self, beam=COUNT, codes=SIZE, temperature=above(0), dropout=RATE)

    def build(self, stats: ItemStats) -> "REG4RecModel":
        """The model for a catalog whose items have codes."""
        check_codes("REG4Rec", stats.code_sizes, self.codes)
        named = ("width", "heads", "channels", "inner", "layers", "dropout", "dtype")
        options = {name: getattr(self, name) for name in named}
        network = T5Config(1, decoder_layers=self.layers, **options)  # its token is the start
        return REG4RecModel(self, SetT5(network, stats.code_sizes, self.codes, self.temperature), stats)


class SetT5(T5):
    """The encoder-decoder over items made of codes.

    Attributes:
        sizes: codes there are in each slot.
        room: rows of the table for each slot.
        temperature: see `REG4Rec`.
    """

    sizes: tuple[int, ...] = ()
    room: int = 0
    temperature: float = 0.1

    def setup(self) -> None:
        super().setup()
        slots, width, dtype = len(self.sizes), self.config.width, jnp.dtype(self.config.dtype)
        self.vectors = self.param("codes", nn.initializers.normal(1.0), (slots, self.room, width))
        self.merge = [Dense(width, dtype=dtype), Dense(width, dtype=dtype)]
        init = nn.initializers.normal(width**-0.5)
        self.up, self.down = (self.param(name, init, (slots, width, width)) for name in ("up", "down"))

    def __call__(
        self, tokens: Int[Array, "b l slots"], mask: Bool[Array, "b l"], targets: Int[Array, "b p slots"]
    ) -> Array:
        return self.asked(self.histories(tokens, mask), mask, targets, jnp.ones(targets.shape, bool))

    def histories(self, codes: Int[Array, "b l slots"], mask: Bool[Array, "b l"]) -> Float[Array, "b l d"]:
        """States of items."""
        x = self.vectors[jnp.arange(len(self.sizes)), codes].astype(self.config.dtype)
        x = self.merge[1](jax.nn.relu(self.merge[0](x.reshape(*codes.shape[:2], -1))))
        return self.encode(x, mask)

    def asked(
        self, states: Float[Array, "b l d"], mask: Bool[Array, "b l"], codes: Int[Array, "b p slots"], used: Array
    ) -> Float[Array, "b p slots k"]:
        """float32 logits of all slots after sets of codes, those of `codes` that are `used`."""
        taken = self.vectors[jnp.arange(len(self.sizes)), codes] * used[..., None]
        start = self.embed(jnp.zeros((), jnp.int32))
        hidden = self.decode(start + jnp.sum(taken, axis=2).astype(start.dtype), states, mask, apart=True)
        hidden = hidden.astype(jnp.float32)[:, :, None]
        inner = jax.nn.relu(jnp.einsum("bpsd,sde->bpse", jnp.broadcast_to(hidden, taken.shape), self.up))
        own = hidden + jnp.einsum("bpse,sed->bpsd", inner, self.down)
        size = max(self.sizes)
        logits = jnp.einsum("bpsd,skd->bpsk", unit(own), unit(self.vectors[:, :size])) / self.temperature
        return jnp.where(jnp.arange(size) < jnp.array(self.sizes)[:, None], logits, EXCLUDED)


@dataclass(frozen=True)
class REG4RecModel(Model):
    """`REG4Rec` built for a catalog. The loss is in nats a code."""

    config: REG4Rec
    module: SetT5
    stats: ItemStats

    @property
    def packing(self) -> bool:
        return False

    @property
    def notes(self) -> dict[str, Any]:
        return {"beam": self.config.beam or "every item", "order": self.config.order}

    def row_bytes(self, batch: Batch) -> int:
        return batch.items.shape[1] * self.config.width * jnp.dtype(self.config.dtype).itemsize

    def sharding_rules(self) -> Rules:
        return SHARDING_RULES

    def init(self, key: Array, batch: Batch, items: Items) -> Params:
        codes = codes_of(items, batch.items)
        return self.module.init(key, codes, batch.items > 0, codes[:, :1])["params"]

    def loss(self, params: Params, batch: Batch, items: Items, key: Array | None) -> tuple[Array, WeightedSums]:
        weights = take_position(batch.weights, batch.last)
        codes = codes_of(items, take_position(batch.targets, batch.last))
        slots = codes.shape[1]
        turn = jax.random.uniform(jax.random.key(0) if key is None else jax.random.fold_in(key, 1), codes.shape)
        place = jnp.argsort(jnp.argsort(turn, axis=1), axis=1)  # of each slot in the order of its sample
        used = place[:, None] < jnp.arange(slots)[:, None]
        sets = jnp.broadcast_to(codes[:, None], used.shape)

        def logits(t5: SetT5) -> Array:
            states = t5.histories(codes_of(items, batch.items), batch.items > 0)
            return t5.asked(states, batch.items > 0, sets, used)

        found = -_log_chances(self._run(params, logits, key), sets)
        nats = jnp.mean(jnp.mean(found, axis=2, where=~used), axis=1)
        total, weight = jnp.sum(jnp.where(weights > 0, weights * nats, 0.0)), jnp.sum(weights)
        return total / jnp.maximum(weight, 1.0), {"loss": (total, weight)}

    def scoring(self, params: Params, queries: Queries, items: Items) -> AnyOrder:
        def begin(history: tuple[Array, Array]) -> tuple[Array, Array]:
            return self._run(params, lambda t5: t5.histories(*history)), history[1]

        def step(cache: tuple[Array, Array], codes: Array, used: Array) -> Array:
            return self._run(params, lambda t5: t5.asked(*cache, codes, used))

        def judge(cache: tuple[Array, Array], codes: Int[Array, "q b slots"]) -> Array:
            return jnp.mean(self.agreement(params, cache, codes), axis=2)

        config, history = self.config, (codes_of(items, queries.items), queries.items > 0)
        judged = {} if config.agree is None else {"judge": judge, "least": config.agree}
        place: dict[str, Any] = {"order": config.order, "start": items.start, **judged}
        return AnyOrder(begin, step, history, items[CODES], self.n_items, config.beam, **place)

    def agreement(self, params: Params, cache: tuple[Array, Array], codes: Array) -> Float[Array, "q b slots"]:
        """Log-probability of each code of a tuple given all the others."""
        q, b, slots = codes.shape
        sets = jnp.repeat(codes, slots, axis=1)
        used = jnp.tile(~jnp.eye(slots, dtype=bool), (b, 1))[None]
        found = self._run(params, lambda t5: t5.asked(*cache, sets, jnp.broadcast_to(used, sets.shape)))
        chances = _log_chances(found, sets).reshape(q, b, slots, slots)
        return jnp.diagonal(chances, axis1=2, axis2=3)

    def _run(self, params: Params, function: Callable[[SetT5], Any], key: Array | None = None) -> Any:
        rngs = None if key is None else {"dropout": key}
        return self.module.apply({"params": params}, method=function, rngs=rngs)


def _log_chances(logits: Float[Array, "*b slots k"], codes: Int[Array, "*b slots"]) -> Float[Array, "*b slots"]:
    """Log-probability of each code among those of its slot."""
    return jnp.take_along_axis(jax.nn.log_softmax(logits), codes[..., None], axis=-1)[..., 0]
