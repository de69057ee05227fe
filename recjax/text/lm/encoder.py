"""Vectors of texts by a language model, or by the encoder of a T5: the mean of its last states over each text."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from recjax.files import read_json
from recjax.limits import COUNT, LAYERS, at_least, require
from recjax.text.block import same_text
from recjax.text.folder import fingerprint
from recjax.text.hub import CONFIG, LANGUAGE_MODEL, find_folder
from recjax.text.items import TEMPLATE, ItemText
from recjax.text.lm.config import read_config
from recjax.text.lm.decoder import Decoder
from recjax.text.lm.folder import read_language_model
from recjax.text.lm.t5 import T5
from recjax.text.lm.t5_folder import FAMILY, read_t5, read_t5_config
from recjax.text.packing import pack_texts, pooled_texts
from recjax.text.rows import TokenRows
from recjax.track.console import tracked
from recjax.typing import Array, Dtype, Float, Params


@dataclass(frozen=True)
class LanguageModelEncoder:
    """A decoder of the Llama kind, or the encoder of a T5, as an encoder of texts, for a channel of a `TextSpace`.

    States of a language model share a large common part, so the channel should whiten.

    Attributes:
        folder: its folder, a name under `$RECJAX_LANGUAGE_MODELS`, or an `owner/name` of the Hugging Face hub.
        template: text of an item, see `recjax.text.items.ItemText`.
        layers: the first so many blocks alone; None for all.
        max_tokens: texts are cut here.
        batch_tokens: tokens of a batch, padding included.
        dtype: compute type; vectors are float32.
    """

    folder: str
    template: str = TEMPLATE
    layers: int | None = None
    max_tokens: int = 64
    batch_tokens: int = 4096
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        require(self, layers=LAYERS, max_tokens=at_least(3), batch_tokens=COUNT)
        ItemText(self.template)

    @property
    def width(self) -> int:
        """Coordinates of the vectors; InputError where the folder is not there."""
        content = read_json(find_folder(self.folder, LANGUAGE_MODEL) / CONFIG)
        return (read_t5_config if _is_t5(content) else read_config)(content).width

    def fingerprint(self) -> str:
        """Identity of the vectors besides the texts."""
        found = fingerprint(find_folder(self.folder, LANGUAGE_MODEL))
        return f"language model 1 {found} {self.layers} {self.max_tokens} {self.dtype}"

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> np.ndarray:
        """Vectors of texts, float32 [n, d]; a row of zeros where the tokenizer finds nothing in a text.

        Raises:
            InputError: see `find_folder` and `read_language_model`.
        """
        folder = find_folder(self.folder, LANGUAGE_MODEL)
        options: dict[str, Any] = {"dtype": self.dtype, "weights": self.dtype, "layers": self.layers}
        if _is_t5(read_json(folder / CONFIG)):
            model = read_t5(folder, encoder=True, **options)
            embed = partial(_mean_encoded, module=model.module)
        else:
            model = read_language_model(folder, **options)
            embed = partial(_mean_states, decoder=model.decoder)
        tokens = [found[: self.max_tokens] for found in model.tokenise(texts)]
        vectors = np.zeros((len(texts), self.width), np.float32)
        params = jax.device_put(model.params)
        work = pack_texts(tokens, self.batch_tokens)
        for batch in tracked(work, len(work), "encoding texts", progress):
            batch.put(np.asarray(embed(params, batch.rows)), vectors)
        return vectors


@partial(jax.jit, static_argnames="decoder")
def _mean_states(params: Params, rows: TokenRows, *, decoder: Decoder) -> Float[Array, "b n d"]:
    states: Any = decoder.apply({"params": params}, rows, method=lambda self, rows: self.states(self.embed(rows), rows))
    return pooled_texts(states, rows)


@partial(jax.jit, static_argnames="module")
def _mean_encoded(params: Params, rows: TokenRows, *, module: T5) -> Float[Array, "b n d"]:
    encoded = lambda t5: t5.encode(t5.embed(rows.tokens), same_text(rows), rows.positions)  # noqa: E731
    states: Any = module.apply({"params": params}, method=encoded)
    return pooled_texts(states, rows)


def _is_t5(content: Any) -> bool:
    return isinstance(content, dict) and content.get("model_type") == FAMILY
