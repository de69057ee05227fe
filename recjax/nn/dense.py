"""The dense layer that mixers, feed-forward networks and models share."""

from typing import Any

import flax.linen as nn

from recjax.ops.products import projected


class Dense(nn.Dense):
    """`flax.linen.Dense`, with the same parameters and outputs; its gradients are those of `projected`."""

    dot_general: Any = projected
