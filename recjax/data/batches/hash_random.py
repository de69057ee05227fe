"""Random numbers that are functions of counters, in NumPy.

A sample's randomness must not depend on which row, batch or process it lands in, and the stream of a seed must not
change with a library's version; so the numbers are hashes of (seed, epoch, index, ...) instead of a generator's state.
"""

from functools import lru_cache

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


class EndlessOrder:
    """Random orders of some numbers one after another, a new one every epoch: each stands once in every epoch.

    Args:
        numbers: int [n], what is ordered; at least one.
        seed: of the orders.
    """

    def __init__(self, numbers: np.ndarray, seed: int):
        self.numbers, self.seed = numbers, seed
        self._order = lru_cache(maxsize=2)(self._make_order)

    def at(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """int64 [n], the epochs of these places of the list, and the numbers that stand there."""
        epochs, within = np.divmod(places, len(self.numbers))
        found = np.empty(len(places), self.numbers.dtype)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            found[here] = self._order(int(epoch))[within[here]]
        return epochs, found

    def _make_order(self, epoch: int) -> np.ndarray:
        return self.numbers[permutation(len(self.numbers), self.seed, epoch)]


def threshold(probability: float) -> np.uint64:
    """`draw(...) < threshold(p)` holds with probability p."""
    return np.uint64(min(int(probability * 2.0**64), 2**64 - 1))
