"""The autoencoder behind RQ-VAE: a vector to the latent space, residual codes there, and back; and its losses."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from recjax.nn.dense import Dense
from recjax.ops.balanced import balanced_clusters, balancing_prices, squared_distances
from recjax.ops.contrast import info_nce
from recjax.ops.items.softmax import EXCLUDED
from recjax.ops.kmeans import assign, kmeans
from recjax.tokenizers.training import VectorBatch
from recjax.typing import Array, Float, Int, Params

Start = Literal["kmeans", "random"]

ROUNDS = 30
"""Sinkhorn's rounds in a training step."""

REFRESH_ROWS = 65_536
"""Most vectors that a refresh looks at."""


class RQAutoencoder(nn.Module):
    """Two networks with ReLU between their layers, and the codebooks.

    Attributes:
        inputs: coordinates of a vector.
        hidden: widths between the vector and the latent; the decoder has them in reverse.
        width: coordinates of the latent and of codebook entries.
        slots: codebooks.
        clusters: entries of each.
        behaviour: coordinates that the quantised latent is projected to, to be compared with vectors of behaviour; 0
            where these are as wide as it, or not used.
        diverse: whether entries have a group, see `RQVAEModel`.
    """

    inputs: int
    hidden: tuple[int, ...]
    width: int
    slots: int
    clusters: int
    behaviour: int = 0
    diverse: bool = False

    def setup(self) -> None:
        self.encoder = [Dense(width) for width in (*self.hidden, self.width)]
        self.decoder = [Dense(width) for width in (*self.hidden[::-1], self.inputs)]
        shape = (self.slots, self.clusters, self.width)
        self.codebooks = self.param("codebooks", _uniform(1.0 / self.clusters), shape)
        if self.behaviour:
            self.project = Dense(self.behaviour, use_bias=False)
        if self.diverse:
            self.groups = self.param("groups", nn.initializers.zeros, shape[:2])

    def __call__(self, vectors: Float[Array, "b d"]) -> Float[Array, "b d"]:
        latents = self.encode(vectors)
        self.compared(latents)
        return self.decode(latents)

    def encode(self, vectors: Float[Array, "b d"]) -> Float[Array, "b w"]:
        """Latents before they are quantised."""
        return _through(self.encoder, vectors)

    def decode(self, latents: Float[Array, "b w"]) -> Float[Array, "b d"]:
        """Reconstructions."""
        return _through(self.decoder, latents)

    def compared(self, latents: Float[Array, "b w"]) -> Float[Array, "b e"]:
        """Representation that is compared with vectors of behaviour."""
        return self.project(latents) if self.behaviour else latents


class Quantised(NamedTuple):
    """Residual codes of latents.

    Attributes:
        codes: of each slot.
        residuals: what each slot quantises: the latent less the entries before.
        entries: that it takes.
    """

    codes: Int[Array, "b slots"]
    residuals: Float[Array, "b slots w"]
    entries: Float[Array, "b slots w"]


def quantised(
    latents: Float[Array, "b w"], codebooks: Float[Array, "slots k w"], prices: Float[Array, " k"]
) -> Quantised:
    """The nearest entry of each codebook, one after another; prices are taken off the distances in the last slot."""
    return _residual(latents, codebooks, lambda distances: distances - prices)


def _residual(latents: Array, codebooks: Array, priced: Any) -> Quantised:
    residual, codes, residuals, entries = latents, [], [], []
    for slot, codebook in enumerate(codebooks):
        distances = jax.lax.stop_gradient(squared_distances(residual, codebook))
        code = jnp.argmin(priced(distances) if slot + 1 == len(codebooks) else distances, axis=1)
        entry = codebook[code]
        codes.append(code)
        residuals.append(residual)
        entries.append(entry)
        residual = residual - jax.lax.stop_gradient(entry)
    return Quantised(jnp.stack(codes, axis=1), jnp.stack(residuals, axis=1), jnp.stack(entries, axis=1))


@dataclass(frozen=True)
class RQVAEModel:
    """The autoencoder as a model that can be trained.

    Vectors of a batch are those of the items' texts; with `collaborative` they are followed by the vectors of behaviour
    and a coordinate that is 1 where there is one.

    Attributes:
        module: the network.
        commitment: weight of the pull of residuals to their entries; that of entries to their residuals is 1.
        collaborative: weight of LETTER's alignment with behaviour.
        diversity: weight of LETTER's spreading of entries.
        groups: of entries, for `diversity`.
        sinkhorn: balance the codes of the last slot over each batch.
        start: codebooks from "kmeans" of the first batch, or "random".
        steps: how long to train it.
        learning_rate: at the start.
    """

    module: RQAutoencoder
    commitment: float
    collaborative: float
    diversity: float
    groups: int
    sinkhorn: bool
    start: Start
    steps: int
    learning_rate: float

    def init(self, key: Array, batch: VectorBatch) -> Params:
        """Parameters; codebooks are the centroids of the batch's latents, level by level, if they start so."""
        key, start_key, group_key = jax.random.split(key, 3)
        vectors = batch.vectors[:, : self.module.inputs]
        params = dict(self.module.init(key, vectors)["params"])
        if self.start == "kmeans":

            def level(residuals: Array, key: Array) -> tuple[Array, Array]:
                centroids = kmeans(residuals, self.module.clusters, key, iterations=10)
                return residuals - centroids[assign(residuals, centroids)[0]], centroids

            keys = jax.random.split(start_key, self.module.slots)
            params["codebooks"] = jax.lax.scan(level, self.latents(params, vectors), keys)[1]
        return self._grouped(params, group_key)

    def latents(self, params: Params, vectors: Float[Array, "b d"]) -> Float[Array, "b w"]:
        """Latents of the vectors of texts alone."""
        found: Any = self.module.apply({"params": params}, vectors, method=RQAutoencoder.encode)
        return found

    def loss(
        self, params: Params, batch: VectorBatch, key: Array | None
    ) -> tuple[Array, dict[str, tuple[Array, Array]]]:
        """The sum of weighted terms, and each term beside it; squares are means over coordinates.

        |v - v'|^2 + sum_l (|sg r_l - e_l|^2 + commitment |r_l - sg e_l|^2)   (TIGER, section 3.1)
        + collaborative InfoNCE(quantised, behaviour) + diversity L_div       (LETTER)
        """
        vectors = batch.vectors[:, : self.module.inputs]
        latents, codebooks, stop = self.latents(params, vectors), params["codebooks"], jax.lax.stop_gradient
        found = _residual(latents, codebooks, self._priced if self.sinkhorn else lambda distances: distances)
        through = latents + stop(jnp.sum(found.entries, axis=1) - latents)
        rebuilt: Any = self.module.apply({"params": params}, through, method=RQAutoencoder.decode)
        terms = {
            "reconstruction": (1.0, jnp.mean(jnp.square(rebuilt - vectors), axis=-1)),
            "codebook": (1.0, _squares(stop(found.residuals) - found.entries)),
            "commitment": (self.commitment, _squares(found.residuals - stop(found.entries))),
        }
        rows = jnp.float32(len(vectors))
        sums = {name: (jnp.sum(values), rows) for name, (_, values) in terms.items()}
        total = sum(weight * jnp.mean(values) for weight, values in terms.values())
        if self.collaborative:
            known = batch.vectors[:, -1]
            own: Any = self.module.apply({"params": params}, through, method=RQAutoencoder.compared)
            values = info_nce(own, batch.vectors[:, self.module.inputs : -1], weights=known)
            sums["collaborative"] = (jnp.sum(values), jnp.sum(known))
            total += self.collaborative * jnp.sum(values) / jnp.maximum(jnp.sum(known), 1.0)
        if self.diversity:
            values = self._diversity(params, found.codes, jax.random.key(0) if key is None else key)
            sums["diversity"] = (jnp.sum(values), rows)
            total += self.diversity * jnp.mean(values)
        return jnp.asarray(total), {"loss": (total * rows, rows), **sums}

    def _priced(self, distances: Array) -> Array:
        return distances - balancing_prices(distances, rounds=ROUNDS)

    def _diversity(self, params: Params, codes: Int[Array, "b slots"], key: Array) -> Float[Array, " b"]:
        """-log of the share that an entry drawn from the same group has of the similarities to all other entries."""
        own = jnp.eye(self.module.clusters, dtype=bool)

        def of_entries(codebook: Array, groups: Array, key: Array) -> Array:
            logits = jnp.where(own, EXCLUDED, codebook @ codebook.T)
            alike = (groups == groups[:, None]) & ~own
            drawn = jax.random.categorical(key, jnp.where(alike, 0.0, EXCLUDED))
            loss = jax.nn.logsumexp(logits, axis=1) - jnp.take_along_axis(logits, drawn[:, None], axis=1)[:, 0]
            return jnp.where(jnp.any(alike, axis=1), loss, 0.0)

        groups = jax.lax.stop_gradient(params["groups"])
        losses = jax.vmap(of_entries)(params["codebooks"], groups, jax.random.split(key, self.module.slots))
        return jnp.mean(losses[jnp.arange(self.module.slots), codes], axis=1)

    def refresh(self, params: Params, vectors: Float[Array, "n d"], key: Array, *, revive: bool = True) -> Params:
        """Moves entries that no vector takes to random residuals of their slot, and groups the entries anew.

        Where the last slot is balanced, it is left alone: it has no such entries.

        Args:
            params: of now.
            vectors: of items' texts; at least as many as a codebook has entries.
            key: of the draws.
            revive: move entries.
        """
        key, group_key = jax.random.split(key)
        return self._grouped(self._revived(params, vectors, key) if revive else params, group_key)

    def _revived(self, params: Params, vectors: Float[Array, "n d"], key: Array) -> Params:
        found = quantised(self.latents(params, vectors), params["codebooks"], jnp.zeros(self.module.clusters))

        def moved(book: Array, codes: Array, residuals: Array, key: Array) -> Array:
            rows = jax.random.choice(key, len(vectors), (len(book),), replace=False)
            unused = jnp.zeros(len(book), jnp.int32).at[codes].add(1) == 0
            return jnp.where(unused[:, None], residuals[rows], book)

        keys = jax.random.split(key, self.module.slots)
        books = jax.vmap(moved, in_axes=(0, 1, 1, 0))(params["codebooks"], found.codes, found.residuals, keys)
        if self.sinkhorn:
            books = books.at[-1].set(params["codebooks"][-1])
        return {**params, "codebooks": books}

    def _grouped(self, params: Params, key: Array) -> Params:
        if not self.module.diverse:
            return params
        grouped = jax.vmap(partial(balanced_clusters, clusters=self.groups))
        keys = jax.random.split(key, self.module.slots)
        return {**params, "groups": grouped(params["codebooks"], key=keys).astype(jnp.float32)}


def _squares(differences: Float[Array, "b slots w"]) -> Float[Array, " b"]:
    """Sums over slots of mean squares over coordinates."""
    return jnp.sum(jnp.mean(jnp.square(differences), axis=-1), axis=-1)


def _through(layers: list[Dense], x: Array) -> Array:
    for layer in layers[:-1]:
        x = nn.relu(layer(x))
    return layers[-1](x)


def _uniform(bound: float) -> nn.initializers.Initializer:
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)
