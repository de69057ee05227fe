"""Texts to vectors with a pretrained sentence encoder, packed into rows."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from recjax.limits import COUNT, at_least, require
from recjax.ops.mesh_axes import platform
from recjax.parallel.mesh import MeshShape
from recjax.parallel.sharding import data_size, local_rows, row_sharding, to_devices
from recjax.text import folder
from recjax.text.folder import EncoderFolder, Pooling
from recjax.text.hub import find_folder
from recjax.text.items import TEMPLATE, ItemText
from recjax.text.packing import PackedTexts, pack_texts, pooled_texts
from recjax.text.rows import TokenRows
from recjax.track.console import tracked
from recjax.typing import DATA_AXIS, Array, Float, InputError, Int, Params

CPU_TOKENS, TOKENS = 2048, 16384
"""Tokens of a batch, a device: on a CPU what a block computes should stay in its caches."""

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
        batch_tokens: tokens of a batch, padding included; None: what suits the device.
        dtype: compute type; vectors are float32.

    Raises:
        InputError: `batch_tokens` is not positive.
    """

    folder: str
    template: str = TEMPLATE
    max_tokens: int | None = None
    batch_tokens: int | None = None
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
    encoder: EncoderFolder, texts: Sequence[str], *, batch_tokens: int | None = None, progress: bool = False
) -> np.ndarray:
    """Vectors of texts, float32 [n, d], by an encoder that has been read; see `SentenceEncoder.encode`."""
    vectors = np.zeros((len(texts), encoder.module.sizes.width), np.float32)
    sharding = row_sharding() or NamedSharding(MeshShape().build(), PartitionSpec(DATA_AXIS))
    whole = NamedSharding(sharding.mesh, PartitionSpec())
    devices = data_size(sharding)
    if batch_tokens is None:
        batch_tokens = devices * (CPU_TOKENS if platform() == "cpu" else TOKENS)
    params = jax.device_put(encoder.params, whole)
    embed = partial(
        _embed, module=encoder.module, pooling=encoder.pooling, normalise=encoder.normalise, replicated=whole
    )
    work = pack_texts(tokenise(encoder, texts), batch_tokens, devices)
    waiting: deque[tuple[PackedTexts, Array]] = deque()
    # Matrix products of float32 are not rounded to less on devices that would.
    precision = "float32" if encoder.module.dtype == np.float32 else None
    with jax.default_matmul_precision(precision):
        for batch in tracked(work, len(work), "encoding texts", progress):
            rows = len(batch.texts)
            held = local_rows(sharding, rows)
            own = jax.tree.map(lambda array, held=held: array[held], batch.rows)
            waiting.append((batch, embed(params, to_devices(own, sharding, rows))))
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


def _fetch(pair: tuple[PackedTexts, Array], into: np.ndarray) -> None:
    batch, vectors = pair
    batch.put(np.asarray(vectors), into)


@partial(jax.jit, static_argnames=("module", "pooling", "normalise", "replicated"))
def _embed(
    params: Params, rows: TokenRows, *, module: Any, pooling: Pooling, normalise: bool, replicated: NamedSharding
) -> Float[Array, "b n d"]:
    """Pooled vectors of each row's texts, float32, on every device."""
    hidden = module.apply({"params": params}, rows)
    vectors = pooled_texts(hidden, rows, first=pooling == "cls")
    return jax.lax.with_sharding_constraint(unit(vectors) if normalise else vectors, replicated)


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
    return unit(vectors) if normalise else vectors


def unit(vectors: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """Vectors of length 1; zeros stay."""
    return vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
