"""Sequence mixers, by the names and letters a pattern uses."""

from recjax.mixers.attention import Attention
from recjax.mixers.hybrid import HybridAttention

MIXERS = {
    "attention": Attention,
    "hybrid": HybridAttention,
}

LETTERS = {
    "a": "attention",
}
"""Short names, for patterns such as "rra"."""
