"""A loss of yes or no that looks away from what is right already."""

import jax

from recjax.typing import Array, Float


def focal(logits: Float[Array, "..."], gamma: float) -> Float[Array, "..."]:
    """Half of -(1 - p)^gamma log p, p being the probability of the right answer (Lin et al. 2017, alpha 1/2).

    >>> [round(float(focal(0.0, gamma)), 4) for gamma in (0.0, 2.0)]  # log(2) / 2, and a quarter of it
    [0.3466, 0.0866]
    """
    return 0.5 * jax.nn.sigmoid(-logits) ** gamma * jax.nn.softplus(-logits)
