"""Texts to vectors with a pretrained sentence encoder, in batches of like length."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from recjax.limits import COUNT, at_least, require
from recjax.parallel.mesh import MeshShape
from recjax.parallel.sharding import data_size, local_rows, row_sharding, to_devices
from recjax.text import folder
from recjax.text.folder import EncoderFolder, Pooling
from recjax.text.hub import find_folder
from recjax.text.items import TEMPLATE, ItemText
from recjax.track.console import tracked
from recjax.typing import DATA_AXIS, Array, Float, InputError, Int, Params

WIDTHS = (8, 12, 16, 20, 24, 32, 40, 48, 64, 96, 128, 192, 256, 384, 512)
"""Tokens to which texts are padded: each is one compilation."""

IN_FLIGHT = 2
"""Batches whose vectors have not been fetched yet, so that the device never waits for the host."""

TEXTS_AT_ONCE = 4096
"""Texts that the tokenizer gets in one call."""


@dataclass(frozen=True)
class SentenceEncoder:
    """A pretrained sentence encoder of the BERT or MPNet family.

    Attributes:
        folder: its folder, a name under `$RECJAX_ENCODERS`, or an `owner/name` of the Hugging Face hub.
        template: text of an item, see `recjax.text.items.ItemText`.
        max_tokens: cut texts here; None: where the encoder's folder says.
        batch_tokens: tokens of a batch, padding included.
        dtype: compute type; vectors are float32.

    Raises:
        InputError: `batch_tokens` is not positive.
    """

    folder: str
    template: str = TEMPLATE
    max_tokens: int | None = None
    batch_tokens: int = 8192
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        require(self, max_tokens=at_least(3), batch_tokens=COUNT)
        ItemText(self.template)

    def fingerprint(self) -> str:
        """Identity of the vectors besides the texts."""
        return f"sentence {folder.fingerprint(find_folder(self.folder))} {self.max_tokens} {self.dtype}"

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> np.ndarray:
        """Vectors of texts, float32 [n, d]; a row of zeros where the tokenizer finds nothing in a text.

        Rows of a batch are spread over the data axis of the current mesh; without one, over all devices.

        Raises:
            InputError: see `find_folder` and `read_folder`; or a vector is not finite.
        """
        read = folder.read_folder(find_folder(self.folder), max_tokens=self.max_tokens, dtype=self.dtype)
        distinct = list(dict.fromkeys(texts))
        row = {text: number for number, text in enumerate(distinct)}
        vectors = encode_texts(read, distinct, batch_tokens=self.batch_tokens, progress=progress)
        if not np.isfinite(vectors).all():
            raise InputError(f"the sentence encoder {self.folder} gave vectors that are not finite, in {self.dtype}")
        return vectors[[row[text] for text in texts]] if len(distinct) < len(texts) else vectors


def encode_texts(
    encoder: EncoderFolder, texts: Sequence[str], *, batch_tokens: int = 8192, progress: bool = False
) -> np.ndarray:
    """Vectors of texts, float32 [n, d], by an encoder that has been read; see `SentenceEncoder.encode`."""
    vectors = np.zeros((len(texts), encoder.module.sizes.width), np.float32)
    tokens = tokenise(encoder, texts)
    filled = np.flatnonzero([len(ids) > 0 for ids in tokens])
    lengths = np.array([len(tokens[number]) for number in filled], np.int64)
    sharding = row_sharding() or NamedSharding(MeshShape().build(), PartitionSpec(DATA_AXIS))
    whole = NamedSharding(sharding.mesh, PartitionSpec())
    params = jax.device_put(encoder.params, whole)
    embed = partial(
        _embed, module=encoder.module, pooling=encoder.pooling, normalise=encoder.normalise, replicated=whole
    )
    work = list(batches(lengths, encoder.max_tokens, batch_tokens, data_size(sharding)))
    waiting: deque[tuple[np.ndarray, Array]] = deque()
    # Matrix products of float32 are not rounded to less on devices that would.
    precision = "float32" if encoder.module.dtype == np.float32 else None
    with jax.default_matmul_precision(precision):
        for chosen, rows, width in tracked(work, len(work), "encoding texts", progress):
            held = local_rows(sharding, rows)
            batch = _padded([tokens[filled[number]] for number in chosen], rows, width)
            batch = jax.tree.map(lambda array, held=held: array[held], batch)
            waiting.append((filled[chosen], embed(params, *to_devices(batch, sharding, rows))))
            while len(waiting) > IN_FLIGHT:
                _fetch(waiting.popleft(), vectors)
        while waiting:
            _fetch(waiting.popleft(), vectors)
    return vectors


def tokenise(encoder: EncoderFolder, texts: Sequence[str]) -> list[np.ndarray]:
    """Token ids of each text, int32; none where there are only special tokens."""
    tokens = []
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        part = [text.lower() if encoder.lower else text for text in texts[start : start + TEXTS_AT_ONCE]]
        with folder.refused("the sentence encoder's tokenizer cannot read a text"):
            encoded = encoder.tokenizer.encode_batch_fast(part)
        for found in encoded:
            empty = sum(found.special_tokens_mask) == len(found.ids)
            tokens.append(np.array([] if empty else found.ids, np.int32))
    return tokens


def batches(
    lengths: np.ndarray, max_tokens: int, batch_tokens: int, devices: int
) -> Iterator[tuple[np.ndarray, int, int]]:
    """The texts of each batch, longest first, and its shape: (numbers of texts, rows, width).

    There is one shape a width of `WIDTHS`; rows are a multiple of `devices`.
    """
    order = np.argsort(-lengths, kind="stable")
    most = -(-len(order) // devices) * devices
    start = 0
    while start < len(order):
        longest = lengths[order[start]]
        width = min(next((width for width in WIDTHS if width >= longest), max_tokens), max_tokens)
        rows = min(max(batch_tokens // width // devices, 1) * devices, most)
        yield order[start : start + rows], rows, width
        start += rows


def _padded(tokens: Sequence[np.ndarray], rows: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Token ids int32 [rows, width] and lengths int32 [rows]; rows beyond the texts have one token, any."""
    ids = np.zeros((rows, width), np.int32)
    lengths = np.ones(rows, np.int32)
    for row, text in enumerate(tokens):
        ids[row, : len(text)] = text
        lengths[row] = len(text)
    return ids, lengths


def _fetch(pair: tuple[np.ndarray, Array], into: np.ndarray) -> None:
    numbers, vectors = pair
    into[numbers] = np.asarray(vectors)[: len(numbers)]


@partial(jax.jit, static_argnames=("module", "pooling", "normalise", "replicated"))
def _embed(
    params: Params,
    tokens: Int[Array, "b l"],
    lengths: Int[Array, " b"],
    *,
    module: Any,
    pooling: Pooling,
    normalise: bool,
    replicated: NamedSharding,
) -> Float[Array, "b d"]:
    """Pooled vectors, float32, on every device."""
    mask = jnp.arange(tokens.shape[1]) < lengths[:, None]
    hidden = module.apply({"params": params}, tokens, mask)
    return jax.lax.with_sharding_constraint(pooled(hidden, lengths, pooling, normalise), replicated)


def pooled(
    hidden: Float[Array, "b l d"], lengths: Int[Array, " b"], pooling: Pooling, normalise: bool
) -> Float[Array, "b d"]:
    """One vector of a text's hidden states, float32: their mean or the first one, of length 1 if `normalise`."""
    hidden = hidden.astype(jnp.float32)
    if pooling == "cls":
        vectors = hidden[:, 0]
    else:
        mask = jnp.arange(hidden.shape[1]) < lengths[:, None]
        vectors = jnp.sum(jnp.where(mask[..., None], hidden, 0.0), axis=1) / jnp.maximum(lengths, 1)[:, None]
    if normalise:
        vectors = vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    return vectors
