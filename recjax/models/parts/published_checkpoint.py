"""The published RecGPT checkpoints to the parameters of their models here.

The model's file has GPT-2's names under `gpt2model.` (`wte`, `wpe`, `h.N.ln_1`, `h.N.attn.c_attn`, ...; projections
stored [in, out]) and `norm_seq`, `linear_layer`, `norm_aux`, `pred_head`. The tokenizer's file has the projections
`quantizer.project_in` and `quantizer.project_out`, the decoder, and an encoder that is never used.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import save as write_arrays

from recjax.files import replacing
from recjax.models.parts.torch_file import read_state_dict
from recjax.models.recgpt_published import RecGPTPublished, RecGPTPublishedModule
from recjax.tokenizers.fsq import FSQ
from recjax.tokenizers.item_codes import TOKENIZER
from recjax.typing import InputError, Params, shorten

PREFIXES = ("module.", "model.", "gpt2model.", "transformer.")
"""Wrappers that may stand before a name."""

UNUSED = (re.compile(r"(^|\.)attn\.(bias|masked_bias)$"), re.compile(r"^encoder\."))
"""Names that say nothing: GPT-2's constant masks, and the tokenizer's encoder, which only cuts vectors up."""

BLOCK = {"ln_1": "ln_1", "attn.c_attn": "c_attn", "attn.c_proj": "c_proj", "ln_2": "ln_2", "mlp.c_fc": "c_fc"}
BLOCK["mlp.c_proj"] = "mlp_c_proj"
"""Layers of a GPT-2 block, theirs and ours."""

DECODER = {
    "attention.linear_layers.0": "mixer/query",
    "attention.linear_layers.1": "mixer/key",
    "attention.linear_layers.2": "mixer/value",
    "attention.output_linear": "mixer/output",
    "feed_forward.w_1": "feed_forward/up",
    "feed_forward.w_2": "feed_forward/down",
    "input_sublayer.norm": "mixer_norm",
    "output_sublayer.norm": "inner_norm",
}
"""Layers of a block of the tokenizer's decoder, theirs and ours."""


@dataclass(frozen=True)
class Published:
    """The published model and tokenizer.

    Attributes:
        config: of the model, with the sizes found.
        params: its parameters, NumPy arrays.
        tokenizer: the recipe of the codes.
        state: what the tokenizer learned, as `FSQ.fit` returns it.
    """

    config: RecGPTPublished
    params: Params
    tokenizer: FSQ
    state: dict[str, Any]

    def save_tokenizer(self, folder: Path) -> None:
        """Writes the state where a run keeps its tokenizer's, for `load_state` of `recjax.tokenizers.item_codes`."""
        folder.mkdir(parents=True, exist_ok=True)
        flat = {name: np.ascontiguousarray(value) for name, value in flatten_dict(self.state, sep="/").items()}
        with replacing(folder / TOKENIZER) as new:
            new.write_bytes(write_arrays(flat))  # pyright: ignore[reportArgumentType]


def import_recgpt(
    checkpoint: Path,
    tokenizer: Path,
    *,
    heads: int = RecGPTPublished.heads,
    levels: tuple[int, ...] = FSQ.levels,
) -> Published:
    """Converts the two published files.

    Args:
        checkpoint: of the model, `layer_3_epoch_0_model_06.pt` (join the parts and unzip first).
        tokenizer: of the FSQ autoencoder, `vae_len4_fsq88865_ep90.pt`.
        heads: attention heads of the model, and
        levels: values of each digit of a code: all that the files do not say.

    Raises:
        InputError: a file is no PyTorch zip of plain tensors, or holds another model.
    """
    recipe, state = fsq_state(read_state_dict(tokenizer), tokenizer, levels)
    config, params = model_params(read_state_dict(checkpoint), checkpoint, recipe.slots, heads)
    inner = state["params"]["project"]["kernel"].shape[0]
    if config.aux_width != inner:
        raise InputError(
            f"{checkpoint} takes {config.aux_width} coordinates a token, but {tokenizer} cuts vectors into parts of "
            f"{inner}: they do not belong together"
        )
    if math.prod(recipe.levels) > config.vocabulary - 1:
        raise InputError(f"{tokenizer} has {math.prod(recipe.levels)} codes, {checkpoint} only {config.vocabulary - 1}")
    return Published(config, params, recipe, state)


def _named(found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Tensors by their names without wrappers, those that say nothing left out."""
    named = {}
    for name, value in found.items():
        while prefix := next((prefix for prefix in PREFIXES if name.startswith(prefix)), ""):
            name = name.removeprefix(prefix)
        if not any(pattern.search(name) for pattern in UNUSED):
            named[name] = value
    return named


def _converted(named: dict[str, np.ndarray], places: Mapping[str, tuple[str, bool]], path: Path) -> dict[str, Any]:
    """The tree: `places` says of each name where it goes, and whether it is transposed on the way."""
    missing, unmatched = sorted(set(places) - set(named)), sorted(set(named) - set(places))
    if missing or unmatched:
        lists = [
            f"{what}: {shorten(', '.join(names), 10_000)}"
            for what, names in (("missing", missing), ("not known", unmatched))
            if names
        ]
        raise InputError(f"{path} is not the published model; {'; '.join(lists)}")
    tree = {}
    for name, (place, transposed) in places.items():
        dimensions = 1 if place.endswith(("/scale", "/bias")) else 2
        if named[name].ndim != dimensions or not named[name].size:
            raise InputError(f"{path}: {name} has shape {named[name].shape}, expected {dimensions} dimensions")
        value = named[name].astype(np.float32)
        tree[place] = np.ascontiguousarray(value.T if transposed else value)
    return unflatten_dict(tree, sep="/")


def _layer(theirs: str, ours: str, *, norm: bool = False, transposed: bool = False) -> dict[str, tuple[str, bool]]:
    """Weight and bias of a layer. PyTorch's linear layers are stored [out, in], GPT-2's [in, out], like ours."""
    kernel = "scale" if norm else "kernel"
    return {f"{theirs}.weight": (f"{ours}/{kernel}", transposed), f"{theirs}.bias": (f"{ours}/bias", False)}


def model_params(found: Mapping[str, np.ndarray], path: Path, slots: int, heads: int) -> tuple[RecGPTPublished, Params]:
    """The model's config, by the shapes found, and its parameters.

    Rows of the token table beyond the vocabulary, which nothing reads, are left behind.

    Raises:
        InputError: names that are missing or not known, all of them; or shapes that do not fit.
    """
    named = _named(found)
    layers = _count(named, r"h\.(\d+)\.")
    places = {"wte.weight": ("wte", False), "wpe.weight": ("wpe", False), "pred_head.weight": ("pred_head", False)}
    places["linear_layer.weight"] = ("linear_layer/kernel", True)
    for name in ("norm_seq", "norm_aux", "ln_f"):
        places |= _layer(name, name, norm=True)
    for number in range(layers):
        for theirs, ours in BLOCK.items():
            places |= _layer(f"h.{number}.{theirs}", f"h_{number}/{ours}", norm=ours.startswith("ln"))
    params = _converted(named, places, path)
    vocabulary, width = params["pred_head"].shape
    if len(params["wte"]) < vocabulary:
        raise InputError(f"{path}: wte has {len(params['wte'])} rows, but pred_head {vocabulary} outputs")
    params["wte"] = params["wte"][:vocabulary]
    aux = params["linear_layer"]["kernel"].shape[0]
    config = RecGPTPublished(
        width=width,
        layers=layers,
        heads=heads,
        vocabulary=vocabulary,
        slots=slots,
        aux_width=aux,
        max_items=len(params["wpe"]) // slots,
    )
    _check_shapes(params, _expected_shapes(config), path)
    return config, params


def fsq_state(
    found: Mapping[str, np.ndarray], path: Path, levels: tuple[int, ...] = FSQ.levels
) -> tuple[FSQ, dict[str, Any]]:
    """The tokenizer's recipe and state.

    Codes depend on the projection alone. The decoder comes along for `FSQ`'s sake; it is not the published one to the
    last detail, which has no normalisation at its end.

    Raises:
        InputError: names that are missing or not known, all of them; or shapes that do not fit.
    """
    named = _named(found)
    layers = _count(named, r"decoder\.transformer_layers\.(\d+)\.")
    places = _layer("quantizer.project_in", "project", transposed=True)
    places |= _layer("quantizer.project_out", "unproject", transposed=True)
    places |= _layer("decoder.linear_layer.0", "hidden", transposed=True)
    places |= _layer("decoder.linear_layer.2", "output", transposed=True)
    places["decoder.position_emb.weight"] = ("positions", False)
    for number in range(layers):
        for theirs, ours in DECODER.items():
            norm = ours.endswith("_norm")
            theirs = f"decoder.transformer_layers.{number}.{theirs}"
            places |= _layer(theirs, f"decoder/block_{number}/{ours}", norm=norm, transposed=not norm)
    params = _converted(named, places, path)
    slots, inner = params["positions"].shape
    params["decoder"]["norm"] = {"scale": np.ones(inner, np.float32), "bias": np.zeros(inner, np.float32)}
    tokenizer = FSQ(slots=slots, levels=levels, prepare="none", layers=layers, published=True, collisions="none")
    width = slots * inner
    vectors = jax.ShapeDtypeStruct((1, width), np.float32)
    expected: Any = jax.eval_shape(tokenizer.model(width).module.init, jax.random.key(0), vectors)["params"]
    _check_shapes(params, expected, path)
    preparation = {"mean": np.zeros(width, np.float32), "matrix": np.eye(width, dtype=np.float32)}
    return tokenizer, {"preparation": preparation, "params": params}


def _count(named: Mapping[str, np.ndarray], pattern: str) -> int:
    """Layers that the names number from 0; never more than there are names."""
    matches = (re.match(pattern, name) for name in named)
    return max((min(int(match.group(1)[:9]) + 1, len(named)) for match in matches if match), default=1)


def _expected_shapes(config: RecGPTPublished) -> Params:
    rows = (1, 1)
    shapes = ((*rows, config.slots), (*rows, config.slots * config.aux_width), rows, rows, rows)
    types = (np.int32, np.float32, np.float32, np.int32, np.int32)
    inputs = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in zip(shapes, types, strict=True)]
    return jax.eval_shape(RecGPTPublishedModule(config).init, jax.random.key(0), *inputs)["params"]


def _check_shapes(params: Params, expected: Params, path: Path) -> None:
    ours: dict[str, Any] = dict(flatten_dict(expected, sep="/"))
    theirs: dict[str, Any] = dict(flatten_dict(params, sep="/"))
    if set(ours) != set(theirs):
        raise InputError(f"{path} has other layers than the published model: {sorted(set(ours) ^ set(theirs))}")
    for name, value in theirs.items():
        if value.shape != ours[name].shape:
            raise InputError(f"{path}: {name} has shape {value.shape}, expected {ours[name].shape}")
