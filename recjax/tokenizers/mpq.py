"""Parallel mixture quantiser (REG4Rec, Xing et al., 2025): experts side by side, each with a codebook; codes without
an order."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recjax.limits import LENGTH, SIZE, at_least, require, within
from recjax.ops.activation import unit
from recjax.ops.kmeans import assign, kmeans
from recjax.tokenizers.collisions import Policy, Tuple
from recjax.tokenizers.item_codes import State
from recjax.tokenizers.pq import nearest_tuples
from recjax.tokenizers.preparation import Preparation, check_enough, fit_preparation, prepared
from recjax.tokenizers.tokenizer import EqualSlots
from recjax.tokenizers.training import Trainer, VectorBatch, VectorBatches, train_plainly
from recjax.typing import Array, Float, Int, Params


@dataclass(frozen=True)
class MPQ(EqualSlots):
    """`slots` experts map a vector v to latents e_r = E_r(v), each of which is quantised by a codebook of its own; a
    gate h = softmax(W v) weighs the entries z_r, and a decoder makes v of their sum. The loss is

        |v - D(sum_r h_r z_r)|^2 + sum_r (|sg e_r - z_r|^2 + commitment |e_r - sg z_r|^2)
        + orthogonality mean_{r != s} cos^2(e_r, e_s)

    Of the paper are experts, gate and orthogonality; sizes and the weights of the other terms are not public.

    Attributes:
        slots: experts.
        clusters: entries of each codebook; at the start the centroids of the first batch's latents.
        hidden: width of the layer inside an expert, and inside the decoder.
        width: coordinates of a latent.
        commitment: weight of the pull of latents to their entries.
        orthogonality: weight.
        prepare: "standardise", "whiten" or "none"; see `recjax.tokenizers.preparation`.
        steps: of training.
        batch: vectors of a step.
        learning_rate: at the start; it falls to 0 along a cosine.
        collisions: "none", "suffix", "nearest-free" or "random"; see `recjax.tokenizers.collisions`.
    """

    slots: int = 8
    clusters: int = 300
    hidden: int = 128
    width: int = 32
    commitment: float = 0.25
    orthogonality: float = 0.1
    prepare: Preparation = "none"
    steps: int = 1000
    batch: int = 1024
    learning_rate: float = 1e-3
    collisions: Policy = "nearest-free"

    def __post_init__(self) -> None:
        require(self, slots=within(1, 64), clusters=LENGTH, hidden=SIZE, width=SIZE, batch=SIZE)
        zero = at_least(0)
        require(self, commitment=zero, orthogonality=zero, steps=zero, learning_rate=zero)

    @property
    def ordered(self) -> bool:
        return False

    def fit(self, vectors: np.ndarray, known: np.ndarray, key: Array, trainer: Trainer | None = None) -> dict[str, Any]:
        """Learns the preparation, experts, codebooks, gate and decoder.

        Args:
            vectors: float32 [n + 1, d], row 0 padding.
            known: bool [n + 1], the items that have one; the others are not looked at.
            key: of the parameters and the order of training.
            trainer: trains the experts; by default a plain loop.
        """
        check_enough(known, self.clusters)
        preparation = fit_preparation(vectors[known], self.prepare)
        ready = prepared(preparation, vectors, known).astype(np.float32)
        batches = VectorBatches(ready, known, self.batch, int(jax.random.bits(jax.random.fold_in(key, 1))))
        params = (trainer or train_plainly)(MPQModel(self), batches, key)
        return {"preparation": preparation, "params": jax.tree.map(np.asarray, jax.device_get(params))}

    def encode(self, state: State, vectors: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Codes int32 [n + 1, slots], row 0 zeros. An item without a vector gets those of a vector of zeros."""
        ready = jnp.asarray(prepared(state["preparation"], vectors, known), jnp.float32)
        codes = np.array(_codes(state["params"], ready), np.int32)
        codes[0] = 0
        return codes

    def candidates(self, state: State, vectors: np.ndarray) -> Sequence[Iterator[Tuple]]:
        """For each vector [m, d], all tuples by the sum of the squared distances of its latents to the entries."""
        ready = jnp.asarray(prepared(state["preparation"], vectors, np.ones(len(vectors), bool)), jnp.float32)
        books = np.asarray(state["params"]["codebooks"])
        return [nearest_tuples(own, books) for own in np.asarray(latents_of(state["params"], ready))]


@dataclass(frozen=True)
class MPQModel:
    """The quantiser as a model that can be trained.

    Attributes:
        config: sizes and weights.
    """

    config: MPQ

    @property
    def steps(self) -> int:
        return self.config.steps

    @property
    def learning_rate(self) -> float:
        return self.config.learning_rate

    def init(self, key: Array, batch: VectorBatch) -> Params:
        config, d = self.config, batch.vectors.shape[1]
        keys, draw = jax.random.split(key, 6), jax.nn.initializers.glorot_normal(batch_axis=(0,))
        one = jax.nn.initializers.glorot_normal()
        params = {
            "first": draw(keys[0], (config.slots, d, config.hidden)),
            "first_bias": jnp.zeros((config.slots, config.hidden)),
            "second": draw(keys[1], (config.slots, config.hidden, config.width)),
            "gate": one(keys[2], (d, config.slots)),
            "decoder": one(keys[3], (config.width, config.hidden)),
            "decoder_bias": jnp.zeros(config.hidden),
            "rebuilt": one(keys[4], (config.hidden, d)),
        }
        latents = latents_of(params, batch.vectors)
        books = jax.lax.map(
            lambda own: kmeans(own[0], config.clusters, own[1], iterations=10),
            (jnp.moveaxis(latents, 1, 0), jax.random.split(keys[5], config.slots)),
        )
        return {**params, "codebooks": books}

    def loss(
        self, params: Params, batch: VectorBatch, key: Array | None
    ) -> tuple[Array, dict[str, tuple[Array, Array]]]:
        """The sum of weighted terms, and each term beside it; squares are means over coordinates."""
        del key
        vectors, stop = batch.vectors, jax.lax.stop_gradient
        latents = latents_of(params, vectors)
        codes = nearest(stop(latents), stop(params["codebooks"]))
        entries = params["codebooks"][jnp.arange(self.config.slots), codes]
        through = latents + stop(entries - latents)
        gate = jax.nn.softmax(vectors @ params["gate"])
        mixed = jnp.einsum("br,brw->bw", gate, through)
        rebuilt = jax.nn.relu(mixed @ params["decoder"] + params["decoder_bias"]) @ params["rebuilt"]
        terms = {
            "reconstruction": (1.0, jnp.sum(jnp.square(rebuilt - vectors), axis=-1)),
            "codebook": (1.0, jnp.sum(jnp.mean(jnp.square(stop(latents) - entries), axis=-1), axis=-1)),
            "commitment": (
                self.config.commitment,
                jnp.sum(jnp.mean(jnp.square(latents - stop(entries)), axis=-1), axis=-1),
            ),
            "orthogonality": (self.config.orthogonality, overlap(latents)),
        }
        rows = jnp.float32(len(vectors))
        total = sum(weight * jnp.mean(values) for weight, values in terms.values())
        return jnp.asarray(total), {
            "loss": (total * rows, rows),
            **{name: (jnp.sum(values), rows) for name, (_, values) in terms.items()},
        }


def latents_of(params: Params, vectors: Float[Array, "b d"]) -> Float[Array, "b slots w"]:
    """Outputs of each expert for the vectors."""
    hidden = jax.nn.relu(jnp.einsum("bd,rdh->brh", vectors, params["first"]) + params["first_bias"])
    return jnp.einsum("brh,rhw->brw", hidden, params["second"])


def overlap(latents: Float[Array, "b slots w"]) -> Float[Array, " b"]:
    """Mean squared cosine between the latents of two experts; 0 where they are orthogonal, or there is one."""
    slots = latents.shape[1]
    cosines = jnp.einsum("brw,bsw->brs", unit(latents), unit(latents))
    apart = 1 - jnp.eye(slots)
    return jnp.sum(jnp.square(cosines) * apart, axis=(1, 2)) / max(slots * (slots - 1), 1)


def nearest(latents: Float[Array, "b slots w"], codebooks: Float[Array, "slots k w"]) -> Int[Array, "b slots"]:
    """The nearest entry of each latent's codebook."""
    return jax.vmap(lambda own, book: assign(own, book)[0], in_axes=(1, 0), out_axes=1)(latents, codebooks)


@jax.jit
def _codes(params: Params, vectors: Float[Array, "n d"]) -> Int[Array, "n slots"]:
    return nearest(latents_of(params, vectors), params["codebooks"])
