"""Dropout as a layer."""

import flax.linen as nn

from recjax.ops.dropout import dropout
from recjax.typing import Array


class Dropout(nn.Module):
    """Dropout (Srivastava et al. 2014) with the hashed masks of `recjax.ops.dropout`.

    Active when the caller gives the `dropout` random stream; without it the layer is the identity.
    """

    rate: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return dropout(x, self.rate, self.make_rng("dropout") if self.rate and self.has_rng("dropout") else None)
