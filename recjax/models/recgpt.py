"""RecGPT: recommendation from item texts alone, for any catalog (after Jiang et al., EMNLP 2025).

An item is read as the codes of its text vector and, beside them, the vector itself; attention is bidirectional inside
an item and causal between items; the codes of the next item are predicted from the slots of the last one, in parallel.
An item's score is the sum of two dot products:

* of the slots' outputs with the embeddings of the item's codes: the sum of its code logits, as published;
* of a predicted text vector with the item's text vector. The prediction is an anchor, the decaying sum of the user's
  last text vectors, plus what the encoder adds to it. Everything added starts at zero, so an untrained model ranks as
  text neighbours do, and training can only move away from that where the training catalogs pay for it.

Fine-tuned on one catalog, an item may also be given a vector of its own (`own_width`), read and scored beside its text:
what users do with it that its text cannot say. It starts at zero, so fine-tuning begins at the pre-trained model, and
stays there for items that no training event is of: those are known by their text alone.

The published model, weight for weight, is `recjax.models.recgpt_published`.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import CODES, DENSITY, KNOWN, VECTORS, Items, by_rows
from recjax.decode.scoring import DotProduct
from recjax.limits import COUNT, LAYERS, RATE, SIZE, WIDEST, above, at_least, between, refuse, require, within
from recjax.mixers.hybrid import HybridAttention
from recjax.mixers.mixer import SeqContext
from recjax.mixers.stack import Encoder, Stack
from recjax.models.model import ItemStats, Model, ModelConfig, WeightedSums
from recjax.nn.dense import Dense
from recjax.nn.norm import LayerNorm
from recjax.ops.items.chunked_logsumexp import log_partition, shared_products
from recjax.ops.items.embedding import lookup, lookup_shared, take_position
from recjax.ops.items.softmax import EXCLUDED
from recjax.typing import Array, Dtype, Float, InputError, Int, Params

OWN = "own"
"""Name of the parameters that hold items' own vectors, and start of the names of those that read and score them."""

REPRESENTED = "represented"
"""Name of the prepared vectors that user states are multiplied with to rank the items."""

TRAINED = "trained"
"""Column of items with training events, beside the parameters that `represent` uses."""


@dataclass(frozen=True)
class RecGPT(ModelConfig):
    """RecGPT's network and objective.

    The catalog term of the loss is the cross-entropy over the whole catalog of the batch, without the items that the
    user has already seen (they are not ranked either), against a background: with probability `1 - p` the next item is
    any item, `p` learned. What text cannot explain is left to the background; without it, such targets, which are
    most, pull the similarity away from the ones that it can.

    Attributes:
        width: model width.
        layers: blocks.
        heads: attention heads.
        dropout: rate on attention weights, mixer and feed-forward outputs.
        codes: read and predict item codes; False leaves text vectors alone.
        aux: read text vectors beside the codes; False leaves them to the anchor alone.
        mask: "hybrid", bidirectional inside an item; or "causal" between all tokens.
        memory: events that the anchor looks back on.
        decay: weight of each step back at the start.
        temperature: factor of the text score at the start.
        density_power: an item's text vector is divided by this power of how crowded its neighbourhood is, at the start:
            an item amid many like it is near to whatever is near to one of them, and would stand in every list.
        metric_rank: rank of a learned correction of the similarity between texts; 0 for none.
        positions: predictions of a packed row that the loss looks at, drawn afresh at each step; the catalog term
            costs a product with every item for each.
        code_weight: weight of the code cross-entropy beside the catalog term.
        background: probability at the start that text explains the next item; 1 for no background.
        negatives: items that the catalog term compares the next one with, drawn uniformly at each step and shared by
            its predictions; 0 for all items of the catalog.
        own_width: coordinates of a vector of its own for each item, for fine-tuning on one catalog; 0 for none, which
            is what a model for any catalog must have.
        chunk: items scored at a time in the loss.
        dtype: compute type; parameters stay float32.
        remat: recompute blocks in the backward pass to save memory.
    """

    ranks_unseen: ClassVar[bool] = True

    width: int = 128
    layers: int = 2
    heads: int = 4
    dropout: float = 0.1
    codes: bool = True
    aux: bool = True
    mask: Literal["hybrid", "causal"] = "hybrid"
    memory: int = 16
    decay: float = 0.5
    temperature: float = 12.0
    density_power: float = 0.5
    metric_rank: int = 0
    positions: int = 16
    code_weight: float = 0.1
    background: float = 0.3
    negatives: int = 0
    own_width: int = 0
    chunk: int = 4096
    dtype: Dtype = "float32"
    remat: bool = False

    def __post_init__(self) -> None:
        require(
            self,
            width=SIZE,
            layers=LAYERS,
            heads=COUNT,
            dropout=RATE,
            memory=SIZE,
            decay=between(0, 1),
            temperature=above(0),
            metric_rank=within(0, WIDEST),
            positions=SIZE,
            code_weight=at_least(0),
            background=above(0, most=1),
            negatives=within(0, WIDEST),
            own_width=within(0, WIDEST),
            chunk=COUNT,
        )
        if not (self.codes or self.aux):
            refuse(self, "codes", "true where aux is false too, or the encoder has nothing to read")
        self.stack(1).check()

    def build(self, stats: ItemStats) -> "RecGPTModel":
        """The model for a catalog, or for the joined catalogs of a mixture."""
        if VECTORS not in stats.columns:
            raise InputError(
                "RecGPT reads item texts: the recipe needs `text`, and `tokenizer` unless model.codes=false"
            )
        sizes = stats.code_sizes if self.codes else ()
        if self.codes and not sizes:
            raise InputError("model.codes is true, but the recipe has no `tokenizer` to make them")
        module = RecGPTModule(self, sizes, stats.columns[VECTORS][0], stats.items + 1, self.stack(len(sizes)))
        return RecGPTModel(self, module, stats)

    def stack(self, slots: int) -> Stack:
        """The encoder of items that have so many codes."""
        # A token is an item to itself where nothing is bidirectional.
        together = max(slots, 1) if self.mask == "hybrid" else 1
        return Stack(
            pattern=(HybridAttention(heads=self.heads, slots=together, dropout=self.dropout),),
            layers=self.layers,
            width=self.width,
            causal=True,
            norm="pre",
            inner=4 * self.width,
            activation="gelu",
            dropout=self.dropout,
            init_scale=0.02,
            remat=self.remat,
            dtype=self.dtype,
        )


class RecGPTModule(nn.Module):
    """Histories of items to user states, in the space of `RecGPTModel.represent`.

    Attributes:
        config: the recipe.
        sizes: codes of each slot; empty for none.
        vector_width: of the text vectors.
        rows: of the item table that are items, and row 0.
        stack: the encoder.
    """

    config: RecGPT
    sizes: tuple[int, ...]
    vector_width: int
    rows: int
    stack: Stack

    @nn.compact
    def __call__(
        self,
        vectors: Float[Array, "b l v"],
        codes: Int[Array, "b l slots"],
        known: Array,
        places: Int[Array, "b l"],
        segments: Int[Array, "b l"],
        positions: Int[Array, "b l"],
        at: Int[Array, "b s"] | None = None,
    ) -> Float[Array, "b s d"]:
        """States of all events, or with `at` of some of each row: what only they need is computed for them alone."""
        config, width = self.config, self.stack.width
        rows, length = segments.shape
        slots = max(len(self.sizes), 1)
        init = nn.initializers.normal(0.02)
        x = jnp.zeros((rows, length, slots, width))
        if config.aux:
            x = self._aux(vectors, slots, init) * known[..., None, None]
        if config.own_width:
            own = self.param(OWN, nn.initializers.zeros, (self.rows, config.own_width))
            read = Dense(width, use_bias=False, name=f"{OWN}_in")(jnp.take(own, places, axis=0, mode="clip"))
            x = x + read[:, :, None, :] * np.sqrt(config.own_width)
        if self.sizes:
            table = self.param("codes", init, (sum(self.sizes), width))
            x = x + LayerNorm(name="code_norm")(jnp.take(table, codes + offsets(self.sizes), axis=0))
        x = x + self.param("slots", init, (slots, width))
        repeat = lambda array: jnp.repeat(array, slots, axis=1)  # noqa: E731
        context = SeqContext(repeat(segments), repeat(positions))
        x = x.reshape(rows, length * slots, width).astype(self.stack.dtype)
        tokens = None if at is None else (at[:, :, None] * slots + jnp.arange(slots)).reshape(rows, -1)
        x = Encoder(self.stack, name="encoder")(x, context, tokens).astype(jnp.float32)
        out = x.reshape(rows, -1, slots * width)
        anchor = self._anchor(vectors, segments, jnp.tile(jnp.arange(length), (rows, 1)) if at is None else at)
        # Divided by the fan-in (Yang et al. 2022): the first steps of Adam move every weight alike, and would else move
        # the prediction by more than the anchor's length and undo what it knows.
        head = Dense(self.vector_width, kernel_init=nn.initializers.zeros, name="vector")
        predicted = anchor + head(out) / (slots * width)
        if config.metric_rank:
            narrow = Dense(config.metric_rank, use_bias=False, kernel_init=init, name="metric_in")(anchor)
            wide = Dense(self.vector_width, use_bias=False, kernel_init=nn.initializers.zeros, name="metric_out")
            predicted = predicted + wide(narrow)
        predicted = predicted * jnp.exp(self.param("gain", nn.initializers.zeros, (self.vector_width,)))
        temperature = self.param("temperature", nn.initializers.constant(np.log(config.temperature)), ())
        self.param("background", nn.initializers.constant(_logit(min(config.background, 0.999))), ())
        self.param("density_power", nn.initializers.constant(config.density_power), ())
        state = predicted * jnp.exp(temperature)
        parts = [state]
        if self.sizes:
            parts.append(out * self.param("code_share", nn.initializers.zeros, ()))
        if config.own_width:
            parts.append(Dense(config.own_width, use_bias=False, name=f"{OWN}_out")(out))
        return jnp.concatenate([*parts, out] if self.sizes else parts, axis=-1)

    def _aux(self, vectors: Array, slots: int, init: Any) -> Array:
        """The continuous stream: each slot's part of the vector, normalised, [b, l, slots, width]."""
        pad = -self.vector_width % slots
        parts = jnp.pad(vectors, [(0, 0), (0, 0), (0, pad)]).reshape(*vectors.shape[:2], slots, -1)
        kernel = self.param("aux", nn.initializers.lecun_normal(), (slots, parts.shape[-1], self.stack.width))
        return LayerNorm(name="aux_norm")(jnp.einsum("blsc,scw->blsw", parts, kernel))

    def _anchor(self, vectors: Array, segments: Array, at: Array) -> Array:
        """Sum of the last vectors of the same history, weighted by how many events ago they were, [b, s, v]."""
        memory = self.config.memory
        start = np.log(np.expm1(np.maximum(self.config.decay ** np.arange(memory), 1e-4)))
        weights = jax.nn.softplus(self.param("decay", lambda _: jnp.asarray(start, jnp.float32)))
        age = at[:, :, None] - jnp.arange(segments.shape[1])
        counts = (take_position(segments, at)[:, :, None] == segments[:, None]) & (age >= 0) & (age < memory)
        share = jnp.where(counts, weights[jnp.clip(age, 0, memory - 1)], 0.0)
        return jnp.einsum("bsl,blv->bsv", share, vectors, precision=jax.lax.Precision.HIGHEST)


@dataclass(frozen=True)
class RecGPTModel(Model):
    """`RecGPT` built for a catalog."""

    config: RecGPT
    module: RecGPTModule
    stats: ItemStats

    def init(self, key: Array, batch: Batch, items: Items) -> Params:
        inputs = self._inputs(batch, items)
        return self.module.init(key, *inputs, batch.segments, batch.positions)["params"]

    def loss(self, params: Params, batch: Batch, items: Items, key: Array | None) -> tuple[Array, WeightedSums]:
        dropout, drawing, others = jax.random.split(jax.random.key(0) if key is None else key, 3)
        rngs = None if key is None else {"dropout": dropout}
        at, place = self._loss_positions(batch, drawing), jnp.arange(batch.items.shape[1])
        inputs = self._inputs(batch, items)
        hidden: Any = self.module.apply({"params": params}, *inputs, batch.segments, batch.positions, at, rngs=rngs)
        pick = lambda array: array if at is None else take_position(array, at)  # noqa: E731
        targets = pick(batch.targets)
        same = pick(batch.segments)[..., None] == batch.segments[:, None, :]
        past = place <= (place[None] if at is None else at)[..., None]
        seen = jnp.where(same & past, batch.items[:, None, :], 0)
        # What the user has had is not ranked, so it is no target either.
        repeated = jnp.any(seen == targets[..., None], axis=-1)
        weights = jnp.where(repeated, 0.0, pick(batch.weights))
        flat = lambda array: array.reshape(-1, *array.shape[2:])  # noqa: E731
        return self._objective(params, items, others, *map(flat, (hidden, targets, seen, weights)))

    def _loss_positions(self, batch: Batch, key: Array) -> Int[Array, "b s"] | None:
        """Places of the predictions that the loss looks at: some of each row, so that a row's stay on its device; None
        for all."""
        if self.config.positions >= batch.items.shape[1]:
            return None
        priority = jax.random.uniform(key, batch.weights.shape) * (batch.weights > 0)
        return jax.lax.top_k(priority, self.config.positions)[1]

    def _objective(self, params, items: Items, key, hidden, targets, seen, weights) -> tuple[Array, WeightedSums]:
        width = hidden.shape[1] - self._code_width
        state, out = hidden[:, :width], hidden[:, width:]
        scoring = self._scoring_weights(params)
        rows = items.rows(targets)
        target = _rows(items, rows, lookup(items[VECTORS], rows[:, None])[:, 0])
        score = jnp.sum(state * self.represent(scoring, target), axis=-1)
        if self.config.negatives:
            normaliser = self._sampled_normaliser(scoring, items, key, state, score, targets, seen)
        else:
            normaliser = log_partition(
                self.represent, scoring, _columns(items), state, seen, items.start, items.size, chunk=self.config.chunk
            )
        likelihood = score - normaliser
        if self.config.background < 1.0:
            p = params["background"]
            rest = jax.nn.log_sigmoid(-p) - jnp.log(jnp.maximum(items.size, 1).astype(jnp.float32))
            likelihood = jnp.logaddexp(jax.nn.log_sigmoid(p) + likelihood, rest)
        total, weight = -jnp.sum(weights * likelihood), jnp.sum(weights)
        sums = {"catalog_loss": (total, weight)}
        loss = total
        if self.module.sizes:
            codes = self._code_loss(params, out, target["codes"], weights)
            sums["code_loss"] = (codes, weight)
            loss = loss + self.config.code_weight * codes
        return loss / jnp.maximum(weight, 1.0), {"loss": (loss, weight), **sums}

    def _sampled_normaliser(self, scoring, items: Items, key, state, score, targets, seen) -> Array:
        """The normaliser estimated from the target and uniform draws, each standing for its share of the others."""
        drawn = jax.random.randint(key, (self.config.negatives,), 1, jnp.maximum(items.size, 1) + 1)
        rows = items.rows(drawn)
        negatives = _rows(items, rows, lookup_shared(items[VECTORS], rows))
        scores = shared_products(self.represent, scoring, negatives, state)
        share = jnp.log(jnp.maximum(items.size, 1) / self.config.negatives)
        excluded = (targets[:, None] == drawn) | jnp.any(seen[:, :, None] == drawn, axis=1)
        return jnp.logaddexp(score, jax.nn.logsumexp(jnp.where(excluded, EXCLUDED, scores + share), axis=-1))

    def _code_loss(self, params: Params, out: Array, codes: Array, weights: Array) -> Array:
        """Weighted sum of the cross-entropies of the next item's codes, slot by slot (mean over slots)."""
        sizes, total = self.module.sizes, jnp.zeros((), jnp.float32)
        parts = jnp.split(out, len(sizes), axis=-1)
        first = offsets(sizes)
        for slot, size in enumerate(sizes):
            logits = parts[slot] @ params["codes"][first[slot] : first[slot] + size].T
            picked = jnp.take_along_axis(logits, codes[:, slot, None], axis=-1)[:, 0]
            total += jnp.sum(weights * (jax.nn.logsumexp(logits, axis=-1) - picked))
        return total / len(sizes)

    def represent(self, weights: Any, rows: Any) -> Array:
        """Vectors that user states meet: text vectors, embeddings of the codes, own vectors, side by side."""
        parts = [rows["vectors"] * (rows["density"] ** -weights["density_power"])[:, None]]
        if self.module.sizes:
            codes = jnp.take(weights["codes"], rows["codes"] + offsets(self.module.sizes), axis=0)
            parts.append(codes.reshape(codes.shape[0], -1))
        if OWN in weights:
            own = jnp.take(weights[OWN], rows["places"], axis=0, mode="clip")
            if TRAINED in weights:
                own = jnp.where(jnp.take(weights[TRAINED], rows["places"], mode="clip")[:, None], own, 0.0)
            parts.append(own)
        return jnp.concatenate(parts, axis=-1)

    def logits(self, params: Params, queries: Queries, items: Items) -> tuple[Float[Array, "q size"], ...]:
        """Logits of the next item's codes, one array a slot: what a decoder of codes alone would rank by."""
        out = self._states(params, queries, items)[:, -self._code_width :]
        first, sizes = offsets(self.module.sizes), self.module.sizes
        parts = jnp.split(out, len(sizes), axis=-1)
        return tuple(
            part @ params["codes"][start : start + size].T
            for part, start, size in zip(parts, first, sizes, strict=True)
        )

    def prepare(self, params: Params, items: Items) -> dict[str, Array]:
        """Representations of all items, which do not depend on the query."""
        return {REPRESENTED: by_rows(self.represent(self._scoring_weights(params), _columns(items)))}

    def scoring(self, params: Params, queries: Queries, items: Items) -> DotProduct:
        states = self._states(params, queries, items)
        vectors = items.prepared.get(REPRESENTED)
        if vectors is None:
            vectors = self.represent(self._scoring_weights(params), _columns(items))
        return DotProduct(states[:, : states.shape[1] - self._code_width], vectors, items.size, start=items.start)

    def _states(self, params: Params, queries: Queries, items: Items) -> Float[Array, "q d"]:
        """User states at the last event."""
        inputs = self._inputs(queries, items)
        last = queries.last[:, None]
        states: Any = self.module.apply({"params": params}, *inputs, queries.segments, queries.positions, last)
        return states[:, 0]

    @property
    def _code_width(self) -> int:
        return len(self.module.sizes) * self.module.stack.width

    def _scoring_weights(self, params: Params) -> Any:
        scoring = {name: params[name] for name in ("density_power", "codes", OWN) if name in params}
        # An item without a training event is only ever a negative: its vector would learn that nobody wants it.
        if OWN in scoring and self.stats.counts[1:].min(initial=1) == 0:
            scoring[TRAINED] = jnp.asarray(self.stats.counts > 0)
        return scoring

    def _inputs(self, batch: Batch | Queries, items: Items) -> tuple[Array, Array, Array, Array]:
        rows = items.rows(batch.items)
        known = jnp.take(items[KNOWN], rows, axis=0) & (batch.items > 0)
        codes = _codes(items, rows) if self.module.sizes else rows[..., None]
        return lookup(items[VECTORS], rows), codes, known.astype(jnp.float32), rows

    @property
    def item_rows(self) -> tuple[str, ...]:
        return (OWN,) if self.config.own_width else ()

    @property
    def per_item(self) -> tuple[str, ...]:
        return (OWN, f"{OWN}_in", f"{OWN}_out") if self.config.own_width else ()


def offsets(sizes: tuple[int, ...]) -> np.ndarray:
    """int32 [slots]: where the codes of each slot start in the shared table of code embeddings."""
    return np.cumsum((0, *sizes[:-1]), dtype=np.int32) if sizes else np.zeros(0, np.int32)


def _codes(items: Items, rows: Array) -> Array:
    return jnp.take(items[CODES], rows, axis=0, mode="clip")


def _columns(items: Items) -> dict[str, Array]:
    """Columns that `RecGPTModel.represent` reads, of all rows."""
    places = jnp.arange(items[VECTORS].shape[0])
    return {"vectors": items[VECTORS], "codes": items[CODES], "density": items[DENSITY], "places": places}


def _rows(items: Items, rows: Int[Array, " n"], vectors: Float[Array, "n v"]) -> dict[str, Array]:
    """The same of some rows, whose text vectors have been looked up."""
    density = jnp.take(items[DENSITY], rows, mode="clip")
    return {"vectors": vectors, "codes": _codes(items, rows), "density": density, "places": rows}


def _logit(p: float) -> float:
    return float(np.log(p / (1.0 - p)))
