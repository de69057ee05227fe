"""Mender whose encoder is a language model that reads words: preferences, and titles of the history (Mender-Tok).

Paischer et al., Preference Discerning with LLM-Enhanced Generative Retrieval, 2024.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import Items
from recjax.limits import SIZE, refuse, require
from recjax.models.model import ItemStats, Rules
from recjax.models.parts.language_network import backbone, read_blocks
from recjax.models.parts.preferences import Preferences, PreferencesModel
from recjax.models.slmrec import SMALL
from recjax.models.tiger import History
from recjax.nn.dense import Dense
from recjax.nn.groups import FROZEN
from recjax.nn.lora import LoRA, joined, parted
from recjax.text.lm.config import DecoderConfig
from recjax.text.lm.decoder import SHARDING_RULES as LANGUAGE_RULES
from recjax.text.lm.decoder import Decoder
from recjax.text.lm.t5 import T5
from recjax.text.rows import TokenRows, without_gaps
from recjax.typing import Array, Bool, Float, InputError, Int, Params

TEXTS = ("{title}", "looks for {categories}", "avoids {categories}")
"""Templates of an item's texts: it was had, its kind is wanted, its kind is not wanted."""
TITLE, WANTED = 0, 1

LANGUAGE = "language"
"""Parameters of the language model."""

ADAPTED = LoRA(16, 1.0, ("query", "key", "value", "output"))
"""The published adapters."""


@dataclass(frozen=True)
class MenderText(Preferences):
    """`TIGER` whose encoder is a language model over words: preferences, the latest first, and then the titles of the
    history, the latest last. A linear map and a norm, T5's, of its states is what the decoder of codes sees.

    Of a folder, the first blocks and the vectors of tokens are frozen and adapters trained; from scratch, all is. The
    paper's encoder is FLAN-T5; ours a decoder of the Llama kind, so that a word sees those before it alone, and no word
    stands before the preferences or between them and the titles but those of the templates.

    `layers` are those of the decoder of codes.

    Attributes:
        words: columns of the tokens of `TEXTS` by one tokenizer, see `recjax.data.features.tokens.Tokens`.
        room: tokens of titles that are read, the last ones; preferences are read whole.
        base: sizes of the language model, with the folder's vocabulary; 0 for a network from scratch, which has that of
            the column.
        weights: folder of a language model whose first blocks these are, see `recjax.text.hub.find_folder`; None for a
            network from scratch.
        lora: adapters of the blocks from a folder.
    """

    words: tuple[str, str, str] = ("title", "wanted", "unwanted")
    room: int = 96
    base: DecoderConfig = SMALL
    weights: str | None = None
    lora: LoRA = ADAPTED

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, room=SIZE)
        if (self.weights is None) != (self.base.vocabulary == 0):
            refuse(self, "base", "sizes with the vocabulary of the folder, and with 0 where there are no weights")

    def build(self, stats: ItemStats) -> "MenderTextModel":
        tokens, known = self.tokens(stats), ", ".join(stats.columns) or "none"
        if missing := [name for name in self.words if name not in stats.sizes]:
            raise InputError(
                f"MenderText reads the tokens {missing[0]!r} of each item, but the columns are: {known}; the "
                f"recipe needs items={{{missing[0]!r}: Tokens(..., fitted=TEXTS)}}"
            )
        if len(stats.columns.get(self.kinds, ())) != 1:
            raise InputError(
                f"MenderText compares items by the vectors {self.kinds!r}, but the columns are: {known}; the recipe "
                f"needs items={{{self.kinds!r}: Texts()}}"
            )
        numbers = max(stats.sizes[self.words[TITLE]]) - 1
        if self.weights is not None and numbers > self.base.vocabulary:
            raise InputError(
                f"the tokenizer of {self.words[TITLE]!r} has {numbers} tokens, but {self.weights} knows "
                f"{self.base.vocabulary}; the column needs folder={self.weights!r}"
            )
        base = replace(self.base, vocabulary=self.base.vocabulary or numbers, tied=True)
        lora = None if self.weights is None else self.lora
        return MenderTextModel(self, WordsT5(self.network(tokens), base, lora), tokens, stats)

    def given(self) -> Params | None:
        """The folder's blocks and its vectors of tokens."""
        if self.weights is None:
            return None
        held = read_blocks(self.weights, self.base)[FROZEN]
        return {LANGUAGE: {FROZEN: {name: tree for name, tree in held.items() if name != "head"}}}  # it writes no word


class WordsT5(T5):
    """The encoder-decoder whose encoder is a language model.

    Attributes:
        base: sizes of the language model.
        lora: adapters, or None.
    """

    base: DecoderConfig = SMALL
    lora: LoRA | None = None

    def setup(self) -> None:
        super().setup()
        self.language = Decoder(self.base, self.lora)
        self.into = Dense(self.config.width, use_bias=False, dtype=jnp.dtype(self.config.dtype))

    def __call__(self, tokens: Int[Array, "b m"], mask: Bool[Array, "b m"], targets: Int[Array, "b t"]) -> Array:
        return self.logits(self.decode(self.embed(targets), self.read(tokens, mask), mask))

    def read(self, tokens: Int[Array, "b m"], mask: Bool[Array, "b m"]) -> Float[Array, "b m d"]:
        """States of tokens, numbered from 1; padding may stand anywhere, and places are counted without it."""
        places = jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0)
        rows = TokenRows(jnp.maximum(tokens - 1, 0), mask.astype(jnp.int32), places)
        states = self.language.states(self.language.embed(rows), rows)
        return self.dropout(self.encoder_norm(self.into(states)))


@dataclass(frozen=True)
class MenderTextModel(PreferencesModel):
    """`MenderText` built for a catalog."""

    config: MenderText
    module: WordsT5

    @property
    def notes(self) -> dict[str, Any]:
        return super().notes | {"backbone": backbone(self.config.base, self.config.weights)}

    def row_bytes(self, batch: Batch) -> int:
        tokens = self.config.memory * self.stats.columns[self.config.words[WANTED]][0] + self.config.room
        return tokens * self.config.base.width * jnp.dtype(self.config.base.dtype).itemsize

    def init(self, key: Array, batch: Batch, items: Items) -> Params:
        params = super().init(key, batch, items)
        return params if self.config.weights is None else {**params, LANGUAGE: parted(params[LANGUAGE])}

    def context(self, source: Batch | Queries, items: Items, preferences: Int[Array, "b p"]) -> History:
        title, wanted, unwanted = (items[name] for name in self.config.words)
        titles, stated = title[items.rows(source.items)], items.rows(jnp.abs(preferences))
        wishes = jnp.where((preferences < 0)[..., None], unwanted[stated], wanted[stated])
        wishes, titles = (texts.reshape(len(texts), -1) for texts in (wishes, titles))
        last = without_gaps(titles > 0, self.config.room, last=True)
        tokens = jnp.concatenate([wishes, jnp.take_along_axis(titles, last, axis=1)], axis=1)
        return tokens, tokens > 0

    def states(self, t5: Any, history: History) -> Float[Array, "b m d"]:
        return t5.read(*history)

    def sharding_rules(self) -> Rules:
        rules = super().sharding_rules()
        return [("^tokens$", ()), *((f"^{LANGUAGE}.*{pattern}", axes) for pattern, axes in LANGUAGE_RULES), *rules]

    def _run(self, params: Params, function: Callable[[T5], Any], key: Array | None = None) -> Any:
        if self.config.weights is not None:
            params = {**params, LANGUAGE: joined(params[LANGUAGE])}
        return super()._run(params, function, key)
