"""Items as tokens of their texts: the column that language models read and write."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from recjax.data.features.feature import Feature, Source, State
from recjax.limits import SIZE, at_least, refuse, require
from recjax.text.folder import read_tokenizer, refused, token_count
from recjax.text.hub import LANGUAGE_MODEL, find_folder
from recjax.text.items import ItemText
from recjax.typing import InputError

TOKENIZER = "tokenizer"
"""Array of a state that holds a tokenizer, as the bytes of its file."""
END = "<|endoftext|>"
"""The one special token of a fitted tokenizer; its number is 0."""
FILE = "tokenizer.json"


@dataclass(frozen=True)
class Tokens(Feature):
    """Tokens of each item's text by a language model's tokenizer: int32 [rows, count], 0 where there are fewer.

    A token's entry is its number + 1, so that a table of a language model's is looked up at entries - 1. The tokenizer
    is saved with the run, which needs the folder no more.

    Attributes:
        template: text of an item, see `recjax.text.items.ItemText`.
        count: most tokens of an item.
        folder: of the language model whose tokenizer it is, see `recjax.text.hub.find_folder`; None for a byte-level
            one (byte-pair encoding, Sennrich et al. 2016) that is fitted to the texts.
        vocabulary: most tokens of one that is fitted.
        fitted: templates of the texts that it is fitted to, so that several columns share one; none for `template`.
        end: what follows each text, also one that is cut, such as a new line.
    """

    template: str = "{title}"
    count: int = 16
    folder: str | None = None
    vocabulary: int = 4096
    fitted: tuple[str, ...] = ()
    end: str = ""

    def __post_init__(self) -> None:
        require(self, count=SIZE, vocabulary=at_least(257))
        for template in (self.template, *self.fitted):
            ItemText(template)

    @property
    def dtype(self) -> Any:
        return np.int32

    def shape(self) -> tuple[int, ...]:
        return (self.count,)

    def fit(self, sources: Sequence[Source], seed: int) -> State:
        if self.folder is not None:
            tokenizer = self._of_folder()
        else:
            templates = self.fitted or (self.template,)
            texts = [text for source in sources for template in templates for text in _texts(template, source)]
            if not any(texts):
                raise InputError(f"no item has a text of the template {' or '.join(map(repr, templates))}")
            tokenizer = fit_tokenizer([text + self.end for text in texts], self.vocabulary)
        return {TOKENIZER: np.frombuffer(tokenizer.to_str().encode(), np.uint8)}

    def make(self, source: Source, state: State) -> np.ndarray:
        tokenizer = self.tokenizer(state)
        end = [token + 1 for token in tokenizer.encode(self.end, add_special_tokens=False).ids]
        if len(end) >= self.count:
            refuse(self, "end", f"fewer than the {self.count} tokens of an item")
        found = np.zeros((source.dataset.n_items + 1, self.count), np.int32)
        with refused("the language model's tokenizer cannot read a text"):
            encoded = tokenizer.encode_batch_fast(_texts(self.template, source), add_special_tokens=False)
        for item, encoding in enumerate(encoded, 1):
            if encoding.ids:
                row = [token + 1 for token in encoding.ids[: self.count - len(end)]] + end
                found[item, : len(row)] = row
        return found

    def sizes(self, state: State) -> tuple[int, ...]:
        if self.folder is None:
            return (self.vocabulary + 1,) * self.count  # also where the texts make fewer: tables are laid out by it
        return (token_count(self.tokenizer(state) if state else self._of_folder()) + 1,) * self.count

    def tokenizer(self, state: State) -> Tokenizer:
        """The tokenizer of a state; special tokens in texts are letters like others."""
        with refused("the run's tokenizer cannot be read"):
            tokenizer = Tokenizer.from_buffer(np.asarray(state[TOKENIZER]).tobytes())
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = True
        return tokenizer

    def _of_folder(self) -> Tokenizer:
        assert self.folder is not None
        return read_tokenizer(find_folder(self.folder, LANGUAGE_MODEL) / FILE)


def fit_tokenizer(texts: Sequence[str], vocabulary: int) -> Tokenizer:
    """Byte-level byte-pair encoding of texts; any text has tokens, and `END` is token 0."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _texts(template: str, source: Source) -> list[str]:
    return [text or "" for text in ItemText(template).texts(source.dataset.catalog)]
