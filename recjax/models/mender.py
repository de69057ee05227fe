"""Mender: a generator of item codes that is steered by stated preferences.

Paischer et al., Preference Discerning with LLM-Enhanced Generative Retrieval, 2024: the form with vectors of texts.
`recjax.models.mender_text` is the form that reads words.
"""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import VECTORS, Items
from recjax.models.model import ItemStats
from recjax.models.parts.preferences import Preferences, PreferencesModel
from recjax.models.tiger import History
from recjax.nn.dense import Dense
from recjax.text.lm.t5 import T5
from recjax.typing import Array, Float, InputError, Int


@dataclass(frozen=True)
class Mender(Preferences):
    """`TIGER` that reads vectors of texts: preferences, then the items of the history.

    A preference is the vector of an item's kind, in the column `kinds`, mapped, and a vector for wanted or unwanted.

    Attributes:
        vectors: column of the vectors of items' texts.
    """

    vectors: str = VECTORS

    def build(self, stats: ItemStats) -> "MenderModel":
        tokens = self.tokens(stats)
        for name in (self.vectors, self.kinds):
            if len(stats.columns.get(name, ())) != 1:
                known = ", ".join(stats.columns) or "none"
                raise InputError(
                    f"Mender reads the vectors {name!r} of each item, but the columns are: {known}; the recipe needs "
                    "`text`, and items={'kinds': Texts()}"
                )
        return MenderModel(self, ContextT5(self.network(tokens)), tokens, stats)


class ContextT5(T5):
    """The encoder-decoder whose encoder reads vectors of texts."""

    def setup(self) -> None:
        super().setup()
        width, init = self.config.width, nn.initializers.normal(1.0)  # vectors of length 1 to inputs like tokens
        dtype = jnp.dtype(self.config.dtype)
        self.item, self.kind = (Dense(width, use_bias=False, dtype=dtype, kernel_init=init) for _ in range(2))
        self.signs = self.param("signs", init, (2, width))

    def __call__(self, inputs: Any, mask: Array, targets: Array) -> Array:
        states = self.encode(self.read(inputs), mask)
        return self.logits(self.decode(self.embed(targets), states, mask))

    def read(self, inputs: Any) -> Float[Array, "b m d"]:
        """Inputs of preferences, then those of items."""
        kinds, unwanted, texts = inputs
        wishes = self.kind(kinds) + self.signs[unwanted.astype(jnp.int32)].astype(self.config.dtype)
        return jnp.concatenate([wishes, self.item(texts)], axis=1)


@dataclass(frozen=True)
class MenderModel(PreferencesModel):
    """`Mender` built for a catalog."""

    config: Mender
    module: ContextT5

    def context(self, source: Batch | Queries, items: Items, preferences: Int[Array, "b p"]) -> History:
        rows = items.rows(jnp.abs(preferences))
        kinds, texts = items[self.config.kinds][rows], items[self.config.vectors][items.rows(source.items)]
        mask = jnp.concatenate([preferences != 0, source.items > 0], axis=1)
        return (kinds, preferences < 0, texts), mask

    def read(self, t5: Any, tokens: Any) -> Float[Array, "b m d"]:
        return t5.read(tokens)
