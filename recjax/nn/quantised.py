"""Kernels of eight bits: weights that are not trained, in a quarter of the memory of float32.

Each output of a layer has a scale of its own, and the scale goes to the product: x (q s) = (x q) s, so that a kernel
is never held in more than eight bits outside of the product that reads it. Weights alone are rounded, symmetrically
and to the nearest; inputs are not (W8A16, as in LLM.int8() without its outliers, Dettmers et al. 2022).
"""

import numpy as np

from recjax.typing import Array, Float, Int

SCALE = "kernel_scale"
"""Parameter beside a `kernel` of int8, float32 [outputs]."""

LARGEST = 127


def quantised(kernel: Float[np.ndarray, "i o"]) -> tuple[Int[np.ndarray, "i o"], Float[np.ndarray, " o"]]:
    """int8 kernel and the scale of each output; an output of zeros has the scale 0.

    >>> whole, scale = quantised(np.array([[1.0, -0.5], [0.25, 2.0]], np.float32))
    >>> whole.tolist(), np.round(scale * 127, 2).tolist()
    ([[127, -32], [32, 127]], [1.0, 2.0])
    """
    kernel = kernel.astype(np.float32)
    scale = np.max(np.abs(kernel), axis=0) / LARGEST
    whole = np.rint(kernel / np.where(scale > 0, scale, 1.0))
    return whole.astype(np.int8), scale


def restored(kernel: Int[Array, "i o"], scale: Float[Array, " o"]) -> Float[Array, "i o"]:
    """float32 kernel."""
    return kernel.astype(np.float32) * scale
