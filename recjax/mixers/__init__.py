"""Sequence mixers, by the names a pattern uses."""

from recjax.mixers.attention import Attention
from recjax.mixers.hybrid import HybridAttention

MIXERS = {"attention": Attention, "hybrid": HybridAttention}
