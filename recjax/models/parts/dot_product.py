"""Base of models that score an item by the dot product of a user state and the item's vector."""

from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import Items
from recjax.decode.scoring import DotProduct
from recjax.mixers.mixer import SeqContext
from recjax.mixers.stack import Encoder, Stack
from recjax.models.model import ItemStats, Model, Rules, WeightedSums
from recjax.models.parts.objectives import Objective
from recjax.nn.dense import Dense
from recjax.nn.dropout import Dropout
from recjax.nn.norm import LayerNorm
from recjax.ops.items.embedding import RowGradientTable, lookup, table_rows
from recjax.ops.parts import by_parts
from recjax.typing import Array, Float, InputError, Int, Params


class ItemSequenceEncoder(nn.Module):
    """Item ids to user states: embedding, positions, encoder.

    Attributes:
        ids: item ids including padding and special tokens, i.e. largest id + 1.
        max_length: rows of the position table; 0 for an encoder that needs none.
        stack: the encoder.
        tied: score with the input table; otherwise a second table `output` of the same shape.
        scale: multiply embeddings by sqrt(width), as SASRec does.
        input_norm: normalise the sum of embeddings and positions, as BERT does.
        transform: dense + GELU + LN between encoder and scores, as BERT's masked-token head has.
        bias: a learned bias per item.
        init_scale: standard deviation of the tables.
    """

    ids: int
    max_length: int
    stack: Stack
    tied: bool = True
    scale: bool = True
    input_norm: bool = False
    transform: bool = False
    bias: bool = False
    init_scale: float = 0.02

    @nn.compact
    def __call__(
        self,
        items: Array,
        positions: Array,
        segments: Array,
        timestamps: Array | None = None,
        last: Array | None = None,
        continues: Array | None = None,
        state: tuple[Any, ...] | None = None,
        vectors: Array | None = None,
    ) -> Any:
        """States [b, l, d] of the positions; of those at `last` alone, [b, d]; and given `state`, the new one too.

        `vectors` are those of the items, float32 [b, l, d], where they have been looked up already.
        """
        width, dtype = self.stack.width, jnp.dtype(self.stack.dtype)
        init = nn.initializers.normal(self.init_scale)
        rows = table_rows(self.ids)
        table = self.param("items", init, (rows, width))
        if not self.tied:
            self.param("output", init, (rows, width))
        if self.bias:
            self.param("bias", nn.initializers.zeros, (rows,))

        x = (lookup(table, items) if vectors is None else vectors) * (width**0.5 if self.scale else 1.0)
        if self.max_length:
            x += jnp.take(self.param("positions", init, (self.max_length, width)), positions, axis=0, mode="clip")
        if self.input_norm:
            x = LayerNorm(name="input_norm")(x)
        x = Dropout(self.stack.dropout)(x.astype(dtype))
        context = SeqContext(segments, positions, timestamps, continues)
        x = self.encoded(x, context, last, state)
        if state is not None:
            x, state = x
        if self.transform:
            x = Dense(width, dtype=dtype, kernel_init=init, name="transform")(x)
            x = LayerNorm(dtype=dtype, name="transform_norm")(jax.nn.gelu(x))
        return x if state is None else (x, state)

    def encoded(self, x: Array, context: SeqContext, last: Array | None, state: tuple[Any, ...] | None) -> Any:
        """States as `Encoder` gives them, which a subclass may make of several; runs inside the compact `__call__`."""
        return Encoder(self.stack, name="encoder")(x, context, last, state)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StreamState:
    """State of users whose events come one by one; the first axis of every array is the user.

    Attributes:
        length: events so far.
        layers: the states of the encoder's mixers.
    """

    length: Int[Array, " q"]
    layers: tuple[Any, ...]


def last_token(segments: Int[Array, "b l"]) -> Int[Array, " b"]:
    """Index of the last token of each row that holds one sequence from its start; 0 for an empty row."""
    return jnp.maximum(jnp.sum(segments > 0, axis=1) - 1, 0)


Terms = dict[str, tuple[float | Array, Array, Array]]
"""Terms of a loss by name: (factor, sum, weight); each adds factor x sum / weight, and is logged without its factor."""


@dataclass(frozen=True)
class DotProductModel(Model):
    """An `ItemSequenceEncoder` with an objective and, in subclasses that define `terms`, more beside it."""

    module: ItemSequenceEncoder
    objective: Objective
    stats: ItemStats
    streams: ClassVar[bool] = True

    @property
    def learned_positions(self) -> bool:
        return self.module.max_length > 0

    @property
    def keeps_histories(self) -> bool:
        return any(mixer.capabilities.memory == "history" for mixer in self.module.stack.used)

    @property
    def packing(self) -> bool:
        return self.module.stack.packing

    def init(self, key: Array, batch: Batch, items: Items) -> Params:
        del items
        return self.module.init(key, batch.items, batch.positions, batch.segments, batch.timestamps)["params"]

    def loss(self, params: Params, batch: Batch, items: Items, key: Array | None) -> tuple[Array, WeightedSums]:
        dropout, sampling = jax.random.split(jax.random.key(0) if key is None else key)
        dropout = None if key is None else dropout
        hidden = self.encode(
            params, batch.items, batch.positions, batch.segments, timestamps=batch.timestamps, key=dropout
        )
        total = self.objective(hidden, self.table(params), params.get("bias"), batch, sampling, self.stats)
        weight = jnp.sum(batch.weights)
        loss = total / jnp.maximum(weight, 1.0)
        terms = self.terms(params, batch, items, hidden, None if key is None else jax.random.fold_in(key, 2))
        if not terms:
            return loss, {"loss": (total, weight)}
        loss += sum(factor * part / jnp.maximum(present, 1.0) for factor, part, present in terms.values())
        sums = {name: (part, present) for name, (_, part, present) in terms.items()}
        return loss, {"loss": (loss * weight, weight), "objective": (total, weight), **sums}

    def row_bytes(self, batch: Batch) -> int | None:
        plain = (type(self).loss, type(self).terms) == (DotProductModel.loss, DotProductModel.terms)
        return self._row_bytes(batch.items) if plain and self.objective.by_rows else None

    def terms(
        self, params: Params, batch: Batch, items: Items, hidden: Float[Array, "b l d"], key: Array | None
    ) -> Terms:
        """Terms that a system adds to its objective: by default none.

        A term that is left out, as one of factor 0 should be, leaves no trace in the loss or in the other terms.
        Under train.accumulate a batch is here one of its parts.

        Args:
            params: parameters.
            batch: with what its view puts beside the samples in `batch.more`.
            items: of the catalog.
            hidden: states of the batch, as the objective sees them.
            key: for randomness of the terms, or None for none.
        """
        del params, batch, items, hidden, key
        return {}

    def encode(
        self,
        params: Params,
        items: Int[Array, "b l"],
        positions: Int[Array, "b l"],
        segments: Int[Array, "b l"],
        *,
        timestamps: Int[Array, "b l"] | None = None,
        key: Array | None = None,
        **options: Any,
    ) -> Any:
        """States of sequences inside a loss, where tables may be read by rows; `key` switches dropout on.

        Args:
            params: parameters.
            items: item ids, 0 where padded.
            positions: index into the position table.
            segments: 1, 2, ... for the histories of a row, 0 = padding.
            timestamps: unix seconds, or None.
            key: of the dropout, or None for none.
            options: more of what `ItemSequenceEncoder` takes.
        """
        plain = {name: leaf.table if isinstance(leaf, RowGradientTable) else leaf for name, leaf in params.items()}
        vectors = lookup(params["items"], items)
        return self._apply(plain, items, positions, segments, timestamps, key=key, vectors=vectors, **options)

    def states(self, params: Params, batch: Batch, items: Items) -> Float[Array, "b l d"]:
        """States without dropout, float32, as a `Sweep` reads them."""
        del items
        hidden = self._apply(params, batch.items, batch.positions, batch.segments, batch.timestamps)
        return hidden.astype(jnp.float32)

    def encode_partners(
        self, params: Params, batch: Batch, key: Array | None = None, name: str = "partner"
    ) -> Float[Array, "b d"]:
        """Last states of the partners that a view `Partnered` puts beside the samples.

        Raises:
            InputError: the batch has none of that name.
        """
        more = batch.more
        if f"{name}_items" not in more:
            raise InputError(f"{type(self).__name__} reads partners of samples: data.view has to be a Partnered view")
        segments = more[f"{name}_segments"]
        return self.encode(
            params,
            more[f"{name}_items"],
            more[f"{name}_positions"],
            segments,
            timestamps=more.get(f"{name}_timestamps"),
            key=key,
            last=last_token(segments),
        )

    def users(self, params: Params, queries: Queries) -> Float[Array, "q d"]:
        """User states at the last token of each query; only that position of the last layer is computed."""

        def read(rows: tuple[Array, ...]) -> Array:
            *inputs, last = rows
            return self._apply(params, *inputs, last=last).astype(jnp.float32)

        rows = (queries.items, queries.positions, queries.segments, queries.timestamps, queries.last)
        return by_parts(read, rows, self._row_bytes(queries.items))

    def scoring(self, params: Params, queries: Queries, items: Items) -> DotProduct:
        return self.state_scoring(params, self.users(params, queries), items)

    def state_scoring(self, params: Params, states: Float[Array, "q d"], items: Items) -> DotProduct:
        del items
        return DotProduct(states, self.table(params), self.n_items, params.get("bias"))

    def init_state(self, users: int, max_length: int) -> StreamState:
        """State of `users` users without events, for `advance`; InputError where the model cannot be advanced."""
        if not self.streams:
            return super().init_state(users, max_length)
        return StreamState(jnp.zeros(users, jnp.int32), self.module.stack.init_state(users, max_length))

    def advance(
        self, params: Params, state: StreamState, items: Array, timestamps: Array | None = None
    ) -> tuple[Float[Array, "q d"], StreamState]:
        """User states after more events, equal to those that `users` gives for the longer histories."""
        valid = items > 0
        count = jnp.sum(valid, axis=1, dtype=jnp.int32)
        positions = state.length[:, None] + jnp.arange(items.shape[1])
        hidden, layers = self._apply(
            params,
            items,
            positions,
            valid.astype(jnp.int32),
            timestamps,
            last=jnp.maximum(count - 1, 0),
            continues=state.length > 0,
            state=state.layers,
        )
        return hidden.astype(jnp.float32), StreamState(state.length + count, layers)

    def table(self, params: Params) -> Float[Array, "n d"]:
        """Item vectors that user states are compared with."""
        return params["items"] if self.module.tied else params["output"]

    def sharding_rules(self) -> Rules:
        """Item tables and item biases by rows over the model axis; everything else, which is small, on every device."""
        # Mixers have matrices called `output` too, and what is inside the encoder is whole on every device.
        return [
            (r"(^|/)encoder/", ()),
            (r"(^|/)(items|output)$", ("model", None)),
            (r"^bias$", ("model",)),
            (r".*", ()),
        ]

    @property
    def row_tables(self) -> tuple[str, ...]:
        return ("items",) if self.module.tied else ("items", "output")

    @property
    def item_rows(self) -> tuple[str, ...]:
        return (*self.row_tables, *(("bias",) if self.module.bias else ()))

    def _row_bytes(self, items: Int[Array, "b l"]) -> int:
        return items.shape[1] * self.module.stack.width * jnp.dtype(self.module.stack.dtype).itemsize

    def _apply(self, params, *inputs, key: Array | None = None, **options: Any) -> Any:
        rngs = None if key is None else {"dropout": key}
        return self.module.apply({"params": params}, *inputs, rngs=rngs, **options)
