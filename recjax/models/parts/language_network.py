"""A language model's blocks over vectors of another width: a linear map in, the blocks, and a linear map out."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from recjax.nn.groups import FROZEN
from recjax.nn.lora import ADAPTERS, LoRA, beside, joined
from recjax.text.hub import LANGUAGE_MODEL, find_folder
from recjax.text.lm.config import DecoderConfig
from recjax.text.lm.decoder import Decoder
from recjax.text.lm.folder import read_language_model
from recjax.text.rows import TokenRows
from recjax.typing import Array, Float, InputError, Params


@dataclass(frozen=True)
class Network:
    """Decoder without tokens, whose maps in and out have no bias.

    With adapters, its own weights are frozen and these are trained beside the maps; without, all is trained.

    Attributes:
        config: sizes; the vocabulary is 0.
        lora: adapters, or None.
    """

    config: DecoderConfig
    lora: LoRA | None = None

    def init(self, key: Array, width: int) -> Params:
        """Random parameters for vectors of a width."""
        one, two, three, four = jax.random.split(key, 4)
        draw, own = jax.nn.initializers.lecun_normal(), self.config.width
        inputs = jnp.zeros((1, 2, own)), TokenRows(*(jnp.ones((1, 2), jnp.int32),) * 2)
        base: Any = Decoder(self.config).init(one, *inputs, method=Decoder.states)["params"]
        module: Any = _States(self._decoder)
        params = {"blocks": base} if self.lora is None else beside(base, module, four, *inputs)
        return {**params, "into": draw(two, (width, own)), "out": draw(three, (own, width))}

    def __call__(
        self, params: Params, vectors: Float[Array, "b l v"], rows: TokenRows
    ) -> tuple[Float[Array, "b l d"], ...]:
        """Normed states before the first block and after each; of `rows`, tokens are not read."""
        blocks = params["blocks"] if self.lora is None else joined({name: params[name] for name in (FROZEN, ADAPTERS)})

        def run(decoder: Decoder) -> tuple[Array, ...]:
            return tuple(decoder.norm(states) for states in decoder.all_states(vectors @ params["into"], rows))

        return self._decoder.apply({"params": blocks}, method=run)  # pyright: ignore[reportReturnType]

    @property
    def _decoder(self) -> Decoder:
        return Decoder(self.config, self.lora)


@dataclass(frozen=True)
class _States:
    """A decoder's `states` as the call of a module, of which `beside` asks the shapes."""

    decoder: Decoder

    def init(self, key: Array, *inputs: Any) -> Params:
        return self.decoder.init(key, *inputs, method=Decoder.states)


def backbone(config: DecoderConfig, weights: str | None, how: str = "with adapters") -> str:
    """Description of a system's blocks for its reports: from scratch, or of the folder that `read_blocks` reads."""
    source = f"{config.layers} layers of {config.width}, from scratch"
    return source if weights is None else f"the first {config.layers} layers of {weights}, {how}"


def read_blocks(folder: str, config: DecoderConfig) -> Params:
    """The first blocks of a language model, as many as `config` has, and its last norm: parameters under `FROZEN`.

    With a vocabulary, the tables of tokens too.

    Raises:
        InputError: no such folder, or its sizes are not those of `config`.
    """
    model = read_language_model(find_folder(folder, LANGUAGE_MODEL), layers=config.layers)
    held = model.decoder.config
    ours = replace(held, dtype=config.dtype, remat=config.remat, positions=config.positions)
    ours = ours if config.vocabulary else replace(ours, vocabulary=0, tied=config.tied)
    if ours != config:
        raise InputError(f"the sizes of {folder} are {ours}, but the recipe has {config}")
    spare = () if config.vocabulary else ("head", "tokens")
    return {FROZEN: {name: tree for name, tree in model.params.items() if name not in spare}}
