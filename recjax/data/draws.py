"""Random numbers that are functions of counters, in NumPy.

A sample's randomness must not depend on which row, batch or process it lands in, and the stream of a seed must not
change with a library's version; so the numbers are hashes of (seed, epoch, index, ...) instead of a generator's state.
"""

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def _mix(words: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014): a bijection of uint64 with full avalanche."""
    words = (words ^ (words >> np.uint64(30))) * _FIRST
    words = (words ^ (words >> np.uint64(27))) * _SECOND
    return words ^ (words >> np.uint64(31))


def draw(seed: int, *counters: int | np.ndarray) -> np.ndarray:
    """Uniform uint64 of the broadcast shape of `counters`, one for each tuple of counters."""
    words = np.full(1, seed % 2**64, np.uint64)
    words = _mix(words + _GOLDEN)
    for counter in counters:
        words = _mix((words ^ np.asarray(counter).astype(np.uint64)) + _GOLDEN)
    return words


def permutation(n: int, seed: int, *counters: int) -> np.ndarray:
    """int64 [n], a random order of 0 .. n-1."""
    return np.argsort(draw(seed, *counters, np.arange(n)), kind="stable")


def threshold(probability: float) -> np.uint64:
    """`draw(...) < threshold(p)` holds with probability p."""
    return np.uint64(min(int(probability * 2.0**64), 2**64 - 1))
