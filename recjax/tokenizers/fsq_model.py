"""The autoencoder behind FSQ: sub-vectors to digits, and digits back to the vector."""

from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from recjax.mixers.attention import Attention
from recjax.mixers.mixer import SeqContext
from recjax.mixers.stack import Encoder, Stack
from recjax.nn.dense import Dense
from recjax.ops.fsq import Bound, bound, centred, round_through
from recjax.tokenizers.training import VectorBatch
from recjax.typing import Array, Float, Params

Loss = Literal["l1", "l2"]


class FSQAutoencoder(nn.Module):
    """Sub-vectors are projected, bounded and rounded; a small bidirectional encoder over the slots undoes it.

    Projections there and back are shared by the slots; positions are learned. The last network reads all slots, or,
    as the published model does, the last one only.

    Attributes:
        slots: sub-vectors of a vector.
        levels: of each digit.
        bound: see `recjax.ops.fsq.bound`.
        layers: blocks of the decoder.
        heads: attention heads of the decoder.
        dropout: rate in the decoder's blocks.
        last_only: reconstruct from the last slot's output.
    """

    slots: int
    levels: tuple[int, ...]
    bound: Bound
    layers: int
    heads: int
    dropout: float
    last_only: bool

    @nn.compact
    def __call__(self, vectors: Float[Array, "b d"]) -> tuple[Float[Array, "b slots k"], Float[Array, "b d"]]:
        """Digit coordinates before rounding, and the reconstruction."""
        rows, width = vectors.shape
        inner = width // self.slots
        activations = Dense(len(self.levels), name="project")(vectors.reshape(rows, self.slots, inner))
        coordinates = bound(activations, self.levels, self.bound)
        x = Dense(inner, name="unproject")(centred(round_through(coordinates), self.levels))
        x = x + self.param("positions", nn.initializers.normal(0.02), (self.slots, inner))
        stack = Stack(
            pattern=(Attention(heads=self.heads, dropout=self.dropout),),
            layers=self.layers,
            width=inner,
            causal=False,
            norm="pre",
            inner=4 * inner,
            activation="gelu",
            dropout=self.dropout,
        )
        ones = jnp.ones((rows, self.slots), jnp.int32)
        x = Encoder(stack, name="decoder")(x, SeqContext(ones, jnp.cumsum(ones, axis=1) - 1))
        x = x[:, -1] if self.last_only else x.reshape(rows, width)
        x = nn.relu(Dense(width, name="hidden")(x))
        return coordinates, Dense(width, name="output")(x)


@dataclass(frozen=True)
class FSQModel:
    """The autoencoder as a model that can be trained.

    Attributes:
        module: the network.
        distance: "l1" or "l2", of the reconstruction.
        steps: how long to train it.
        learning_rate: at the start.
    """

    module: FSQAutoencoder
    distance: Loss
    steps: int
    learning_rate: float

    def init(self, key: Array, batch: VectorBatch) -> Params:
        """Parameters for vectors as wide as those of `batch`."""
        return self.module.init({"params": key}, batch.vectors)["params"]

    def loss(
        self, params: Params, batch: VectorBatch, key: Array | None
    ) -> tuple[Array, dict[str, tuple[Array, Array]]]:
        """Mean distance of a coordinate from its reconstruction; `key=None` switches dropout off.

        Beside it the cosine between vectors and reconstructions is summed.
        """
        rngs = None if key is None else {"dropout": key}
        outputs: Any = self.module.apply({"params": params}, batch.vectors, rngs=rngs)
        found: Array = outputs[1]
        error = jnp.abs(found - batch.vectors) if self.distance == "l1" else jnp.square(found - batch.vectors)
        total, weight = jnp.sum(jnp.mean(error, axis=-1)), jnp.float32(len(batch.vectors))
        lengths = jnp.linalg.norm(found, axis=-1) * jnp.linalg.norm(batch.vectors, axis=-1)
        cosine = jnp.sum(jnp.sum(found * batch.vectors, axis=-1) / jnp.maximum(lengths, 1e-9))
        return total / weight, {"loss": (total, weight), "cosine": (cosine, weight)}

    def coordinates(self, params: Params, vectors: Float[Array, "b d"]) -> Float[Array, "b slots k"]:
        """Digit coordinates before rounding."""
        return self.module.apply({"params": params}, vectors)[0]
