"""RQ-VAE tokenizer (TIGER, Rajput et al., NeurIPS 2023), with the losses of LETTER (Wang et al., CIKM 2024)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recjax.limits import LENGTH, SIZE, at_least, require, within
from recjax.ops.balanced import balancing_prices, squared_distances
from recjax.tokenizers.collisions import Policy, Tuple
from recjax.tokenizers.item_codes import State
from recjax.tokenizers.preparation import Preparation, check_enough, fit_preparation, prepared
from recjax.tokenizers.rq_kmeans import residual_tuples
from recjax.tokenizers.rq_vae_model import REFRESH_ROWS, RQAutoencoder, RQVAEModel, Start, quantised
from recjax.tokenizers.tokenizer import EqualSlots
from recjax.tokenizers.training import Refresh, Trainer, VectorBatches, train_plainly
from recjax.typing import Array, Float, InputError

CHUNK = 4096
"""Vectors encoded at a time."""

BALANCED_ROWS = 16_384
"""Most items over which the codes of the last slot are balanced."""


@dataclass(frozen=True)
class RQVAE(EqualSlots):
    """An autoencoder whose latent is quantised level by level, each codebook the residual of those before it.

    Codebooks start at the centroids of the first batch; entries that nothing takes in an epoch move to random
    residuals. With `sinkhorn` the codes of the last slot are used about equally, over each batch in training and over
    the catalog that the tokenizer is fitted on: what that costs each code is part of the state, so that the codes of an
    item depend on no other. LETTER's losses pull items with like behaviour towards the same codes, and spread entries.

    Attributes:
        slots: levels.
        clusters: entries of each codebook.
        hidden: widths of the layers between vector and latent.
        width: coordinates of the latent.
        prepare: "standardise", "whiten" or "none"; see `recjax.tokenizers.preparation`.
        start: codebooks from "kmeans" of the first batch, or "random".
        revive: move entries that nothing takes.
        commitment: weight of the commitment loss.
        sinkhorn: balance the last slot.
        collaborative: weight of the alignment with behaviour (LETTER: 0.01 to 0.1); `fit` then needs its vectors.
        diversity: weight of the diversity of entries (LETTER: 1e-4).
        groups: of entries, for `diversity`; grouped anew every epoch.
        steps: of training.
        batch: vectors of a step.
        learning_rate: at the start; it falls to 0 along a cosine.
        collisions: "none", "suffix", "nearest-free" or "random"; see `recjax.tokenizers.collisions`.
    """

    slots: int = 3
    clusters: int = 256
    hidden: tuple[int, ...] = (512, 256, 128)
    width: int = 32
    prepare: Preparation = "none"
    start: Start = "kmeans"
    revive: bool = True
    commitment: float = 0.25
    sinkhorn: bool = False
    collaborative: float = 0.0
    diversity: float = 0.0
    groups: int = 10
    steps: int = 2000
    batch: int = 1024
    learning_rate: float = 1e-3
    collisions: Policy = "suffix"

    def __post_init__(self) -> None:
        require(
            self,
            slots=within(1, 64),
            clusters=LENGTH,
            hidden=SIZE,
            width=SIZE,
            commitment=at_least(0),
            collaborative=at_least(0),
            diversity=at_least(0),
            groups=SIZE,
            steps=at_least(0),
            batch=SIZE,
            learning_rate=at_least(0),
        )

    @property
    def ordered(self) -> bool:
        return True

    def model(self, width: int, behaviour: int = 0) -> RQVAEModel:
        """The autoencoder for vectors of `width` coordinates, and vectors of behaviour of so many."""
        module = RQAutoencoder(
            width,
            self.hidden,
            self.width,
            self.slots,
            self.clusters,
            behaviour if behaviour != self.width else 0,
            self.diversity > 0,
        )
        return RQVAEModel(
            module,
            self.commitment,
            self.collaborative,
            self.diversity,
            self.groups,
            self.sinkhorn,
            self.start,
            self.steps,
            self.learning_rate,
        )

    def fit(
        self,
        vectors: np.ndarray,
        known: np.ndarray,
        key: Array,
        trainer: Trainer | None = None,
        *,
        behaviour: np.ndarray | None = None,
    ) -> dict[str, Any]:
        """Learns the preparation, the networks and the codebooks.

        Args:
            vectors: float32 [n + 1, d], row 0 padding.
            known: bool [n + 1], the items that have one; the others are not looked at.
            key: of the parameters, the order of training and all draws.
            trainer: trains the autoencoder; by default a plain loop. With another one entries are neither revived nor
                grouped anew.
            behaviour: float32 [n + 1, e], what users do with items (the item table of a trained model, say), zeros
                where that is not known; for `collaborative`.

        Returns:
            The state: the preparation, the parameters, decoder included, and prices [clusters] of the last slot's
            codes.

        Raises:
            InputError: too few items, or vectors of behaviour that are missing, not finite or of other items.
        """
        self._check(vectors, known, behaviour)
        order_key, train_key, refresh_key = jax.random.split(key, 3)
        seed = int(jax.random.bits(order_key))
        preparation = fit_preparation(vectors[known], self.prepare, seed)
        ready = prepared(preparation, vectors, known)
        columns = ready
        if behaviour is not None and self.collaborative:
            columns = np.concatenate([ready, behaviour, behaviour.any(axis=1, keepdims=True)], axis=1, dtype=np.float32)
        model = self.model(vectors.shape[1], columns.shape[1] - ready.shape[1] - 1 if columns is not ready else 0)
        batches = VectorBatches(columns, known, self.batch, seed)
        if trainer is None:
            trainer = partial(train_plainly, refresh=self._refresh(model, ready[known], batches.steps(1), refresh_key))
        params = jax.tree.map(np.asarray, jax.device_get(trainer(model, batches, train_key)))
        return {"preparation": preparation, "params": params, "prices": self._prices(model, params, ready[known])}

    def _check(self, vectors: np.ndarray, known: np.ndarray, behaviour: np.ndarray | None) -> None:
        check_enough(known, self.clusters)
        if not self.collaborative:
            return
        if behaviour is None:
            raise InputError(
                f"tokenizer.collaborative is {self.collaborative}, but `fit` was given no vectors of behaviour"
            )
        if behaviour.ndim != 2 or len(behaviour) != len(vectors):
            raise InputError(f"vectors of behaviour have shape {behaviour.shape}, expected [{len(vectors)}, e]")
        if not np.isfinite(behaviour).all():
            item = int(np.flatnonzero(~np.isfinite(behaviour).all(axis=1))[0])
            raise InputError(f"the vector of behaviour of item {item} has a number that is not finite")

    def _refresh(self, model: RQVAEModel, ready: np.ndarray, epoch: int, key: Array) -> Refresh | None:
        """Work done once an epoch, if any."""
        if not (self.revive or self.diversity):
            return None
        rows = np.random.default_rng(0).permutation(len(ready))[:REFRESH_ROWS]
        vectors, update = jnp.asarray(ready[rows]), jax.jit(partial(model.refresh, revive=self.revive))
        return Refresh(epoch, lambda params, step: update(params, vectors, jax.random.fold_in(key, step)))

    def _prices(self, model: RQVAEModel, params: Any, ready: np.ndarray) -> np.ndarray:
        """float32 [clusters], of the last slot's codes; zeros without `sinkhorn`."""
        prices, codebooks = jnp.zeros(self.clusters), jnp.asarray(params["codebooks"])
        if self.sinkhorn:
            rows = np.random.default_rng(0).permutation(len(ready))[:BALANCED_ROWS]
            found = quantised(model.latents(params, jnp.asarray(ready[rows])), codebooks, prices)
            prices = balancing_prices(squared_distances(found.residuals[:, -1], codebooks[-1]))
        return np.asarray(prices)

    def encode(self, state: State, vectors: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Codes int32 [n + 1, slots], row 0 zeros. An item without a vector gets those of a vector of zeros."""
        model, found = self.model(vectors.shape[1]), []
        ready = prepared(state["preparation"], vectors, known)
        for start in range(0, len(ready), CHUNK):
            chunk = ready[start : start + CHUNK]
            # Always the same shape, so that one compilation serves every catalog.
            filled = np.pad(chunk, [(0, CHUNK - len(chunk)), (0, 0)])
            found.append(np.asarray(_codes(model, state["params"], filled, state["prices"]))[: len(chunk)])
        codes = np.concatenate(found).astype(np.int32)
        codes[0] = 0
        return codes

    def candidates(self, state: State, vectors: np.ndarray) -> Sequence[Iterator[Tuple]]:
        """For each vector [m, d], all tuples: first those that differ in the last level, by distance in the latent
        space, then those that differ in the level before, and so on."""
        ready = prepared(state["preparation"], vectors, np.ones(len(vectors), bool))
        latents = np.asarray(self.model(vectors.shape[1]).latents(state["params"], jnp.asarray(ready)))
        return [residual_tuples(row, state["params"]["codebooks"], state["prices"]) for row in latents]


@partial(jax.jit, static_argnums=0)
def _codes(model: RQVAEModel, params: Any, vectors: Float[Array, "c d"], prices: Array) -> Array:
    return quantised(model.latents(params, vectors), params["codebooks"], prices).codes
