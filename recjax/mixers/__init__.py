"""Sequence mixers, by the names and letters a pattern uses."""

from recjax.mixers.attention import Attention
from recjax.mixers.gla import GatedLinearAttention
from recjax.mixers.hstu import HSTU
from recjax.mixers.hybrid import HybridAttention
from recjax.mixers.lightnet import LightNet
from recjax.mixers.linear_attention import LinearAttention
from recjax.mixers.linformer import Linformer
from recjax.mixers.lru import LRU
from recjax.mixers.mamba2 import Mamba2
from recjax.mixers.memory import MemoryAttention
from recjax.mixers.performer import Performer
from recjax.mixers.reformer import Reformer
from recjax.mixers.retention import Retention
from recjax.mixers.rg_lru import RGLRU
from recjax.mixers.s4 import S4
from recjax.mixers.s4d import S4D
from recjax.mixers.s5 import S5
from recjax.mixers.static_mixing import StaticMixing
from recjax.mixers.toeplitz import Toeplitz

MIXERS = {
    "attention": Attention,
    "hybrid": HybridAttention,
    "lru": LRU,
    "rg_lru": RGLRU,
    "s4": S4,
    "s4d": S4D,
    "s5": S5,
    "hstu": HSTU,
    "linformer": Linformer,
    "memory": MemoryAttention,
    "performer": Performer,
    "reformer": Reformer,
    "static_mixing": StaticMixing,
    "linear_attention": LinearAttention,
    "retention": Retention,
    "gla": GatedLinearAttention,
    "mamba2": Mamba2,
    "lightnet": LightNet,
    "toeplitz": Toeplitz,
}

LETTERS = {
    "a": "attention",
    "l": "lru",
    "r": "rg_lru",
    "h": "hstu",
    "m": "mamba2",
    "g": "gla",
    "n": "lightnet",
}
"""Short names, for patterns such as "rra"."""
