"""Groups of parameters that the optimiser treats in a way of their own, told where a parameter is declared."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax

from recjax.typing import Array

SSM = "ssm"
"""Part of the path of every parameter of a state space (decays, step sizes, input matrices). Such parameters are
trained without weight decay and at a rate of their own (`optim.ssm_rate`): all the published recipes do so, because
decay would pull the time scales that an initialisation chose towards another value (Gu et al. 2022; Smith et al. 2023).
"""


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
