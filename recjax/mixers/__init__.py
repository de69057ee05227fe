"""Sequence mixers, by the names a pattern uses."""

from recjax.mixers.attention import Attention

MIXERS = {"attention": Attention}
