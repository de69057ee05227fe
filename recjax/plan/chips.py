"""Peak figures of devices, against which a plan holds a program."""

from dataclasses import dataclass

from recjax.typing import InputError

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """One device, as XLA counts devices.

    Attributes:
        name: as printed.
        memory: bytes.
        flops: bfloat16 products and sums a second.
        bandwidth: bytes a second to and from its memory.
        ici: bytes a second that a device sends to its neighbours along one axis of the mesh (both directions of a ring
            at once).
        dcn: bytes a second that a device sends to other slices or hosts.
        passes: whether a product in float32 is made of several in bfloat16, as TPUs do it: 3 at precision "high", 6 at
            "highest"; at the default precision it is a single one.
    """

    name: str
    memory: int
    flops: float
    bandwidth: float
    ici: float
    dcn: float
    passes: bool = False


# Google Cloud documentation, "TPU v5e", "TPU v5p", "TPU v6e" and "TPU7x (Ironwood)", tables of key specifications
# (docs.cloud.google.com/tpu/docs/v5e, /v5p, /v6e, /tpu7x): bfloat16 peak, capacity and bandwidth of the memory,
# bidirectional ICI bandwidth a chip, and for DCN 6.4 Tbit/s a pod of 256 (v5e), 50, 100 and 100 Gbit/s a chip. Of the
# bidirectional figure half goes out; a 2D torus (v5e, v6e) spreads that over two axes, a 3D torus (the others) over
# three. A TPU7x chip is two devices of half its figures each.
_CHIPS = {
    "v5e": Chip("TPU v5e", 16 * GIB, 197e12, 819e9, 400e9 / 2 / 2, 6.4e12 / 8 / 256, passes=True),
    "v5p": Chip("TPU v5p", 95 * GIB, 459e12, 2765e9, 1200e9 / 2 / 3, 50e9 / 8, passes=True),
    "v6e": Chip("TPU v6e", 32 * GIB, 918e12, 1638e9, 800e9 / 2 / 2, 100e9 / 8, passes=True),
    "tpu7x": Chip("half a TPU7x", 96 * GIB, 2307e12 / 2, 7380e9 / 2, 1200e9 / 2 / 3 / 2, 100e9 / 8 / 2, passes=True),
}

# NVIDIA data sheets (dense bfloat16, SXM modules): "A100 Tensor Core GPU", "H100 Tensor Core GPU", "H200 Tensor Core
# GPU". NVLink (600 and 900 GB/s bidirectional, half of it out) stands in the place of ICI, one 400 Gbit/s network card
# a device in that of DCN.
_GPUS = {
    "A100": Chip("NVIDIA A100", 80 * GIB, 312e12, 2039e9, 300e9, 400e9 / 8),
    "H100": Chip("NVIDIA H100", 80 * GIB, 989e12, 3350e9, 450e9, 400e9 / 8),
    "H200": Chip("NVIDIA H200", 141 * 10**9, 989e12, 4800e9, 450e9, 400e9 / 8),
}

# Host devices rehearse a layout; a core of a server with AVX-512 and its share of the memory are what is assumed.
HOST = Chip("host device", 4 * GIB, 5e10, 1e10, 1e10, 1e9)

TPUS = tuple(_CHIPS)
"""Names of TPUs, as topologies begin with them."""


def tpu(name: str) -> Chip:
    """The TPU of a topology's name, e.g. `v5e`.

    Raises:
        InputError: another one; lists those known.
    """
    if name not in _CHIPS:
        raise InputError(f"no figures are known of a TPU {name!r}; there are: {', '.join(TPUS)}")
    return _CHIPS[name]


def gpu(kind: str) -> Chip:
    """The GPU of a device kind, e.g. `NVIDIA H100 80GB HBM3`.

    Raises:
        InputError: another one; lists those known.
    """
    found = next((chip for name, chip in _GPUS.items() if name in kind), None)
    if found is None:
        raise InputError(f"no figures are known of a GPU {kind!r}; there are: {', '.join(_GPUS)}")
    return found
