"""Groups of parameters that training treats in a way of their own, declared where the parameter is declared."""

import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax

from recjax.typing import Array, Params

SSM = "ssm"
"""Part of the path of every parameter of a state space (decays, step sizes, input matrices). Such parameters are
trained without weight decay and at a rate of their own (`optim.ssm_rate`): all the published recipes do so, because
decay would pull the time scales that an initialisation chose towards another value (Gu et al. 2022; Smith et al. 2023).
"""

FROZEN = "frozen"
"""Part of the path of every parameter that has no gradient: weights of a language model, centroids, a teacher, a phase
switch. No gradient is computed for it, the optimiser has no moments of it, it does not decay and has no average. It is
saved, restored and laid out as every parameter is; a model's `refresh` may change it between steps."""


def ssm_params(
    module: nn.Module, **declared: tuple[nn.initializers.Initializer, tuple[int, ...]]
) -> Mapping[str, Array]:
    """Declares parameters of the group `SSM` in a compact module; call it at most once in a module.

    Args:
        module: the module that owns them.
        declared: name -> (initialiser, shape).

    Returns:
        name -> parameter, float32.
    """

    def init(key: Array) -> dict[str, Any]:
        keys = jax.random.split(key, len(declared))
        return {name: make(k, shape) for k, (name, (make, shape)) in zip(keys, declared.items(), strict=True)}

    return module.param(SSM, init)


def path_name(path: tuple[Any, ...]) -> str:
    """The place of an array in its tree, joined by slashes: `encoder/layer_0/mlp/kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def is_frozen(path: str, freeze: tuple[str, ...] = ()) -> bool:
    """True if a parameter has no gradient: declared so, or with a match for one of the regular expressions."""
    return FROZEN in path.split("/") or any(re.search(pattern, path) for pattern in freeze)


def split_frozen(params: Params, freeze: tuple[str, ...] = ()) -> tuple[Params, Params]:
    """The trained and the frozen parameters: two trees like `params`, each with None where the other has an array.

    None is no leaf, so that gradients and optimiser states of the trained part have nothing in its place.

    >>> split_frozen({"items": 1.0, "frozen": {"centroids": 2.0}})
    ({'items': 1.0, 'frozen': {'centroids': None}}, {'items': None, 'frozen': {'centroids': 2.0}})

    Args:
        params: a tree of arrays, real or abstract.
        freeze: regular expressions; what has a match in its path is frozen beside what is declared so.
    """
    trained = jax.tree.map_with_path(lambda path, x: None if is_frozen(path_name(path), freeze) else x, params)
    frozen = jax.tree.map_with_path(lambda path, x: x if is_frozen(path_name(path), freeze) else None, params)
    return trained, frozen


def filled(part: Params, rest: Params) -> Params:
    """`part`, with the arrays of `rest` where it has None: the inverse of `split_frozen`, either way round."""
    return jax.tree.map(lambda a, b: b if a is None else a, part, rest, is_leaf=lambda x: x is None)
