"""PISA: sessions weighted by memory strength, and attention over them.

Tran et al., Transformers Meet ACT-R: Repeat-Aware and Sequential Listening Session Recommendation, RecSys 2024.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import Items
from recjax.limits import RATE, above, at_least, require, within
from recjax.mixers.stack import Norm
from recjax.models.model import ItemStats, WeightedSums
from recjax.models.next_item import NextItem
from recjax.models.parts.dot_product import DotProductModel
from recjax.models.parts.objectives import BPR, Objective
from recjax.ops.activation import base_level, event_times, forget, matching, shares, spreading, traces, unit
from recjax.ops.items.embedding import lookup, take_position
from recjax.ops.sessions import Runs, runs
from recjax.typing import Array, Float, Params

Activation = Literal["base", "spreading", "matching"]


@dataclass(frozen=True)
class PISA(NextItem):
    """A model of sessions: runs of events with one time stamp, such as baskets.

    A session is a weighted sum of the unit vectors of its items; an item weighs more the oftener and the later it was
    in the history ("base"), the more the session's other items occur together with it ("spreading") and the nearer it
    is to them ("matching"). The user after a session is, by a learned gate, what an encoder makes of the sessions so
    far and the memory, which is the items of the history by what is left of each; plus the session itself. Items are
    scored by user + long x memory, over 1 + long. The loss is

        task x ((1 - ahead) x L(session) + ahead x L(user) + long x L(memory)) + (1 - task) x (1 - cos(user, session))

    where L is the objective of the items of a session, and user and memory are those before it. The view is
    `NextSession`; to others each event is a session. In the paper memory holds the twenty strongest items, here all
    that the view does. A `bias` is not the paper's: it begins as the logarithm of the items' counts.

    Attributes:
        memory: the activations that weigh the items of a session, each by a learned factor; none for the plain mean.
        relation: between items, along which activation spreads, such as `SessionCoOccurrence`.
        decay: power of its age with which the trace of an event falls; 0 counts events.
        age_seconds: unit of ages (the view has to carry times), or None to count sessions.
        long: factor of the memory in the loss and in scores; 0 leaves it out of both, but not of the user.
        forget: share of the events that a training step leaves out of memory and sessions; the paper forgets none.
        task: share of the objectives in the loss.
        ahead: share of the user's objective, beside the session's own.
        temper: factor of the products of unit vectors; the paper's BPR takes them as they are.
    """

    heads: int = 2
    norm: Norm = "sasrec"
    loss: Objective = field(default_factory=BPR)
    memory: tuple[Activation, ...] = ("base", "spreading", "matching")
    relation: str = "sessions"
    decay: float = 0.5
    age_seconds: float | None = None
    long: float = 0.5
    forget: float = 0.0
    task: float = 0.9
    ahead: float = 0.1
    temper: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, decay=at_least(0), age_seconds=above(0), long=at_least(0), temper=above(0))
        require(self, task=within(0, 1), ahead=within(0, 1), forget=RATE)

    def build(self, stats: ItemStats) -> "PISAModel":
        return PISAModel(super().build(stats).module, self.loss, stats, self)


@dataclass(frozen=True)
class PISAModel(DotProductModel):
    """The built model; beside the encoder's, its parameters are the gate and the factors of the activations."""

    config: PISA

    @property
    def row_tables(self) -> tuple[str, ...]:
        return ()  # the table is read whole, for its vectors of length 1

    def init(self, key: Array, batch: Batch, items: Items) -> Params:
        gate = {"kernel": jnp.zeros((2 * self.module.stack.width, 2)), "bias": jnp.zeros(2)}
        params = {**super().init(key, batch, items), "gate": gate, "factors": jnp.ones(len(self.config.memory))}
        if "bias" in params:
            counts = self.stats.counts + 1.0
            params["bias"] = params["bias"].at[: len(counts)].set(np.log(counts / counts.mean()))
        return params

    def table(self, params: Params) -> Float[Array, "n d"]:
        return unit(params["items"])

    def read(self, params: Params, rows: Batch | Queries, items: Items, key: Array | None = None) -> dict[str, Any]:
        """`runs` of rows, `sessions` of each event, and after each session `users`, `memory` and its share, `gate`."""
        found, vectors = runs(rows.segments, rows.positions), unit(lookup(params["items"], rows.items))
        times, gate = event_times(found.number, rows.timestamps, self.config.age_seconds), params["gate"]
        left = traces(times, found.seen, self.config.decay)
        weights = shares(self.activation(params, rows.items, vectors, left, found, items), found.together)
        if key is not None:
            left, weights = forget(left, weights, self.config.forget, jax.random.fold_in(key, 1))
        sessions = jnp.matmul(found.together.astype(vectors.dtype), weights[..., None] * vectors)
        memory = unit(jnp.matmul(take_position(left, found.ends), vectors))
        ids, places, own = (take_position(x, found.ends) for x in (rows.items, rows.positions, sessions))
        short = unit(self._apply(params, ids, places, found.segments, key=key, vectors=own).astype(jnp.float32))
        share = jax.nn.softmax(jnp.concatenate([memory, short], axis=-1) @ gate["kernel"] + gate["bias"])[..., :1]
        users = unit(share * memory + (1 - share) * short + own)
        return {"runs": found, "sessions": sessions, "users": users, "memory": memory, "gate": share[..., 0]}

    def activation(self, params: Params, ids: Array, vectors: Array, left: Array, found: Runs, items: Items) -> Array:
        """Activation of the item of each event in its session, float32 [b, l]."""
        parts = {"base": base_level(left, ids), "matching": matching(vectors, ids, found.together)}
        if "spreading" in self.config.memory:
            relation, at = items.relation(self.config.relation), items.rows(ids)
            parts["spreading"] = spreading(ids, found.together, relation.ids[at], relation.values[at])
        factors = zip(jax.nn.relu(params["factors"]), self.config.memory, strict=True)
        return sum((factor * parts[kind] for factor, kind in factors), jnp.zeros(ids.shape))

    def loss(self, params: Params, batch: Batch, items: Items, key: Array | None) -> tuple[Array, WeightedSums]:
        keys: Any = jax.random.split(jax.random.key(0) if key is None else key, 4)
        found, config = self.read(params, batch, items, None if key is None else keys[0]), self.config
        events: Runs = found["runs"]
        before = jnp.maximum(events.number - 1, 0)
        asked = (events.number > 0) & (take_position(events.segments, before) == batch.segments)
        batch = replace(batch, targets=batch.items, weights=jnp.where(asked, batch.weights, 0.0))
        user, memory, gate = (take_position(found[name], before) for name in ("users", "memory", "gate"))
        compared = {"session": (found["sessions"], 1 - config.ahead), "user": (user, config.ahead)}
        compared["memory"] = (memory, config.long)
        weight, ends, loss, sums = jnp.sum(batch.weights), batch.weights * events.last, 0.0, {}
        table, bias = self.table(params), params.get("bias")
        for (name, (states, factor)), own in zip(compared.items(), keys[1:], strict=True):
            part = self.objective(config.temper * states, table, bias, batch, own, self.stats)
            loss += config.task * factor * part / jnp.maximum(weight, 1.0)
            sums[name] = (part, weight)
        apart = 1 - jnp.sum(user * unit(found["sessions"]), axis=-1)
        sums |= {name: (jnp.sum(ends * x), jnp.sum(ends)) for name, x in (("apart", apart), ("gate", gate))}
        loss += (1 - config.task) * sums["apart"][0] / jnp.maximum(sums["apart"][1], 1.0)
        return loss, {"loss": (loss * weight, weight), **sums}

    def scoring(self, params: Params, queries: Queries, items: Items) -> Any:
        found, long = self.read(params, queries, items), self.config.long
        at = take_position(found["runs"].number, queries.last)
        states = take_position(found["users"], at) + long * take_position(found["memory"], at)
        return self.state_scoring(params, self.config.temper * states / (1 + long), items)  # a bias counts once
