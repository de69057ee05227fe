"""Vectors of items learned from the graph of users and items: GraphSAGE (Hamilton et al., NeurIPS 2017) with BPR."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from recjax.data.features.columns import entry_numbers, saved_entries
from recjax.data.features.feature import Feature, Source, State, column
from recjax.data.transitions import user_items
from recjax.late import optax
from recjax.limits import RATE, SIZE, at_least, require
from recjax.ops.dropout import dropout
from recjax.ops.graph import neighbour_means
from recjax.tokenizers.item_codes import flat_state, nested_state
from recjax.track.console import tracked
from recjax.typing import Array, Float, InputError, Int, Params

VECTORS, NETWORK = "vectors", "network"
"""Parts of the state: vectors of the items that were there, and what makes those of others."""


class Graph(NamedTuple):
    """Users and items as nodes, users first, each edge in both directions.

    Attributes:
        sources: node that an edge comes from.
        targets: node that it ends at, ascending.
        users: of each pair of a user and an item that the user had.
        items: of each pair, from 0.
        had: items that someone had.
        features: of all items.
    """

    sources: Int[Array, " m"]
    targets: Int[Array, " m"]
    users: Int[Array, " p"]
    items: Int[Array, " p"]
    had: Int[Array, " h"]
    features: Float[Array, "v f"]


@dataclass(frozen=True)
class GraphVectors(Feature):
    """Vectors of items made of their features and of who had them, float32 [rows, width]; their mean length is 1.

    The graph has the training events as edges. An item starts as an affine map of its features, followed by a leaky
    ReLU, and a user as a vector of its own. In each of two layers a node becomes

        x' = x W + (mean of its neighbours' x) V + b

    with a leaky ReLU after the first; users and items share W, V and b. They are trained so that the product of a user
    and an item that the user had is above those of drawn items (BPR). An item that is not in the graph of the fit has
    no neighbours, and so a vector of its features alone.

    Attributes:
        of: columns of vectors, one for each modality, side by side.
        hidden: width of starts and of the first layer.
        width: of the vectors.
        dropout: rate on what a layer reads.
        negatives: drawn for each pair, of the items that someone had; one may be the user's.
        steps: of training.
        batch: pairs of a step, drawn anew each time.
        learning_rate: at the start; it falls to 0 along a cosine.
        weight_decay: of all parameters (AdamW).
    """

    of: tuple[str, ...] = ("vectors",)
    hidden: int = 128
    width: int = 64
    dropout: float = 0.2
    negatives: int = 5
    steps: int = 300
    batch: int = 4096
    learning_rate: float = 5e-3
    weight_decay: float = 1e-6

    def __post_init__(self) -> None:
        require(
            self,
            hidden=SIZE,
            width=SIZE,
            dropout=RATE,
            negatives=SIZE,
            steps=at_least(0),
            batch=SIZE,
            learning_rate=at_least(0),
            weight_decay=at_least(0),
        )

    @property
    def reads(self) -> tuple[str, ...]:
        return self.of

    def shape(self) -> tuple[int, ...]:
        return (self.width,)

    def fit(self, sources: Sequence[Source], seed: int) -> State:
        if len(sources) != 1:
            raise InputError(f"a graph is made of the events of one catalog, but there are {len(sources)}")
        (source,) = sources
        graph, users = self._graph(source)
        params = self._trained(graph, users, jax.random.key(seed))
        vectors = np.asarray(jax.jit(embedded)(params, graph))[users:]
        scale = 1 / max(float(np.linalg.norm(vectors, axis=1).mean()), 1e-9)
        network = {"scale": np.float32(scale), **{name: params[name] for name in params if name != "users"}}
        kept = {VECTORS: vectors * np.float32(scale), NETWORK: jax.tree.map(np.asarray, network)}
        return {**saved_entries(source.dataset.item_ids[1:]), **flat_state(kept)}

    def make(self, source: Source, state: State) -> np.ndarray:
        numbers, kept = entry_numbers(state), nested_state(state)
        rows = np.array([0, *(numbers.get(raw, 0) for raw in source.dataset.item_ids[1:])])
        network, vectors = kept[NETWORK], kept[VECTORS]
        alone = np.asarray(isolated(network, jnp.asarray(self._features(source)))) * network["scale"]
        found = np.where((rows > 0)[:, None], vectors[rows - 1], np.concatenate([alone[:1] * 0, alone]))
        found[0] = 0.0
        return found.astype(np.float32)

    def _features(self, source: Source) -> np.ndarray:
        rows = source.dataset.n_items + 1
        return np.concatenate([column(source, name)[1:rows] for name in self.of], axis=1, dtype=np.float32)

    def _graph(self, source: Source) -> tuple[Graph, int]:
        """The graph, and how many users it has."""
        pairs = user_items(source.train, source.dataset.n_items).tocoo()
        users, items, count = pairs.row.astype(np.int32), pairs.col.astype(np.int32) - 1, len(source.train)
        ends = np.concatenate([users, items + count]), np.concatenate([items + count, users])
        order = np.argsort(ends[1], kind="stable")
        edges = (ends[0][order], ends[1][order])
        arrays = (*edges, users, items, np.unique(items), self._features(source))
        return Graph(*(jnp.asarray(array) for array in arrays)), count

    def _trained(self, graph: Graph, users: int, key: Array) -> Params:
        init_key, key = jax.random.split(key)
        params = init(init_key, users, graph.features.shape[1], self.hidden, self.width)
        schedule = optax.cosine_decay_schedule(self.learning_rate, max(self.steps, 1))
        optimiser = optax.adamw(schedule, weight_decay=self.weight_decay)

        def update(params: Params, moments: Any, graph: Graph, key: Array) -> tuple[Params, Any]:
            grads = jax.grad(self.loss)(params, graph, key)
            changes, moments = optimiser.update(grads, moments, params)
            return optax.apply_updates(params, changes), moments

        step, moments = jax.jit(update, donate_argnums=(0, 1)), optimiser.init(params)
        for number in tracked(range(self.steps), self.steps, "fitting vectors of the graph"):
            params, moments = step(params, moments, graph, jax.random.fold_in(key, number))
            jax.block_until_ready(params)
        return params

    def loss(self, params: Params, graph: Graph, key: Array) -> Array:
        """BPR of drawn pairs: the mean over pairs and negatives of -log sigmoid(u.i - u.n)."""
        pair_key, negative_key, drop_key = jax.random.split(key, 3)
        nodes, users = embedded(params, graph, self.dropout, drop_key), len(params["users"])
        drawn = jax.random.randint(pair_key, (self.batch,), 0, len(graph.users))
        other = jax.random.randint(negative_key, (self.batch, self.negatives), 0, len(graph.had))
        user, own, others = (
            nodes[rows] for rows in (graph.users[drawn], users + graph.items[drawn], users + graph.had[other])
        )
        above = jnp.einsum("bd,bd->b", user, own)[:, None] - jnp.einsum("bd,bnd->bn", user, others)
        return jnp.mean(jax.nn.softplus(-above))


def init(key: Array, users: int, features: int, hidden: int, width: int) -> Params:
    """Parameters; deviations are those that keep lengths."""
    keys = iter(jax.random.split(key, 6))

    def dense(read: int, made: int) -> Array:
        return jax.random.normal(next(keys), (read, made)) * read**-0.5

    layers = {
        name: {"own": dense(hidden, made), "near": dense(hidden, made), "bias": jnp.zeros(made)}
        for name, made in (("first", hidden), ("second", width))
    }
    start = {"kernel": dense(features, hidden), "bias": jnp.zeros(hidden)}
    return {"users": 0.1 * jax.random.normal(next(keys), (users, hidden)), "start": start, **layers}


def embedded(params: Params, graph: Graph, rate: float = 0.0, key: Array | None = None) -> Float[Array, "n d"]:
    """Vectors of all nodes."""
    x = jnp.concatenate([params["users"], _started(params, graph.features)])
    for number, name in enumerate(("first", "second")):
        x = dropout(x, rate, None if key is None else jax.random.fold_in(key, number))
        layer = params[name]
        # A mean of products is the product of the mean, and V is no wider than what it reads.
        near = neighbour_means(x @ layer["near"], graph.sources, graph.targets)
        x = x @ layer["own"] + near + layer["bias"]
        x = jax.nn.leaky_relu(x) if name == "first" else x
    return x


def isolated(params: Params, features: Float[Array, "v f"]) -> Float[Array, "v d"]:
    """Vectors of items without neighbours."""
    first, second = params["first"], params["second"]
    x = jax.nn.leaky_relu(_started(params, features) @ first["own"] + first["bias"])
    return x @ second["own"] + second["bias"]


def _started(params: Params, features: Float[Array, "v f"]) -> Float[Array, "v h"]:
    return jax.nn.leaky_relu(features @ params["start"]["kernel"] + params["start"]["bias"])
