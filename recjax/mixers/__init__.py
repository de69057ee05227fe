"""Sequence mixers, by the names and letters a pattern uses."""

from recjax.mixers.attention import Attention
from recjax.mixers.hybrid import HybridAttention
from recjax.mixers.s4 import S4
from recjax.mixers.s4d import S4D

MIXERS = {
    "attention": Attention,
    "hybrid": HybridAttention,
    "s4": S4,
    "s4d": S4D,
}

LETTERS = {
    "a": "attention",
}
"""Short names, for patterns such as "rra"."""
