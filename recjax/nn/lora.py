"""Low-rank adapters of dense layers (LoRA, Hu et al. 2022): training of a few parameters beside frozen ones."""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from recjax.limits import SIZE, above, require
from recjax.nn.groups import FROZEN
from recjax.nn.quantised import SCALE, restored
from recjax.ops.products import projected
from recjax.typing import Array, Params

ADAPTERS = "lora"
"""Key of the adapters beside `FROZEN`, the key of what they adapt; see `beside`."""

DOWN, UP = "lora_a", "lora_b"
"""Parameters of an adapter, beside `kernel`."""


@dataclass(frozen=True)
class LoRA:
    """Settings of adapters: x W becomes x W + (alpha / rank) x A B.

    A is normal and B zero at first, so that a fresh adapter changes nothing, to the bit.

    Attributes:
        rank: columns of A.
        alpha: see above; a change of the rank then needs no other learning rate.
        targets: names of the layers that have one, among query, key, value, output, gate, up, down.
    """

    rank: int = 16
    alpha: float = 16.0
    targets: tuple[str, ...] = ("query", "value")

    def __post_init__(self) -> None:
        require(self, rank=SIZE, alpha=above(0))


class AdaptedDense(nn.Module):
    """A dense layer, with an adapter where `lora` names the layer.

    Given a parameter `kernel_scale`, its kernel is one of eight bits, see `recjax.nn.quantised`.

    Attributes:
        features: of the output.
        use_bias: whether there is a bias.
        lora: adapters, or None.
        dtype: compute type; parameters are float32.
        kernel_init: initialiser of the kernel.
    """

    features: int
    use_bias: bool = False
    lora: LoRA | None = None
    dtype: jnp.dtype = jnp.dtype("float32")
    kernel_init: nn.initializers.Initializer = nn.initializers.normal(0.02)

    @nn.compact
    def __call__(self, x: Array) -> Array:
        width = x.shape[-1]
        x = x.astype(self.dtype)
        y = projected(x, self.param("kernel", self.kernel_init, (width, self.features)).astype(self.dtype))
        if self.has_variable("params", SCALE):
            y = y * self.get_variable("params", SCALE).astype(self.dtype)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        if self.lora is None or self.name not in self.lora.targets:
            return y
        rank = self.lora.rank
        a = self.param(DOWN, _down(width), (width, rank)).astype(self.dtype)
        b = self.param(UP, nn.initializers.zeros, (rank, self.features)).astype(self.dtype)
        return y + (x @ a) @ b * (self.lora.alpha / rank)


def beside(base: Params, module: nn.Module, key: Array, *inputs: Any) -> Params:
    """Parameters of a model: fresh adapters, which are trained, and what they adapt, which is not, under `FROZEN`.

    Args:
        base: parameters of the module without adapters; they stay as they are, arrays of NumPy and half precision too.
        module: with adapters.
        key: of the fresh ones.
        inputs: what the module may be called with, real or abstract.
    """
    shapes: Any = jax.eval_shape(module.init, key, *inputs)["params"]
    flat: Any = flatten_dict(shapes)
    own = {}
    for number, (path, leaf) in enumerate(sorted(flat.items())):
        if path[-1] == DOWN:
            own[path] = _down(leaf.shape[0])(jax.random.fold_in(key, number), leaf.shape)
        elif path[-1] == UP:
            own[path] = jnp.zeros(leaf.shape)
    return {FROZEN: base, ADAPTERS: unflatten_dict(own)}


def _down(width: int) -> nn.initializers.Initializer:
    return nn.initializers.normal(width**-0.5)


def joined(params: Params) -> Params:
    """The module's parameters out of those that `beside` has made."""
    return unflatten_dict({**flatten_dict(params[FROZEN]), **flatten_dict(params[ADAPTERS])})


def parted(params: Params) -> Params:
    """The inverse of `joined`, for a module's fresh parameters."""
    flat: Any = flatten_dict(params)
    own = {path: flat.pop(path) for path in list(flat) if path[-1] in (DOWN, UP)}
    return {FROZEN: unflatten_dict(flat), ADAPTERS: unflatten_dict(own)}


def merged(params: Params, lora: LoRA) -> Params:
    """Parameters of the same module without adapters: each kernel with the product of its adapter added to it.

    A kernel of eight bits that has an adapter is one of float32 afterwards.

    Args:
        params: of an adapted module.
        lora: its settings.
    """
    flat: dict[Any, Any] = dict(flatten_dict(params))
    for path in [path for path in flat if path[-1] == DOWN]:
        kernel, scale = (*path[:-1], "kernel"), flat.pop((*path[:-1], SCALE), None)
        a, b = flat.pop(path), flat.pop((*path[:-1], UP))
        product = jax.numpy.asarray(a) @ b * (lora.alpha / lora.rank)
        whole = flat[kernel].astype(jnp.float32) if scale is None else restored(flat[kernel], scale)
        flat[kernel] = (whole + product).astype(flat[kernel].dtype if scale is None else jnp.float32)
    return unflatten_dict(flat)
