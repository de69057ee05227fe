"""A hundred sampled competitors for each target: the protocol of older papers, kept only to compare with them.

Sampled metrics are not an estimate of the full ones and can reverse the order of two models (Krichene & Rendle,
"On Sampled Metrics for Item Recommendation", KDD 2020). The originals also draw competitors that stand in a user's
later history; here competitors are never in the user's history and never the target.
"""

from typing import Literal

import numpy as np

from recjax.data.splits import Examples

SIZE = 100
CHUNK_DRAWS = 2**22

WARNING = (
    "SAMPLED CANDIDATES: each target competes with 100 sampled items, not with the catalog. These figures are not "
    "comparable with full-catalog figures, in this table or in any paper, and may order models differently."
)


def sample(
    kind: Literal["uniform", "popularity"], examples: Examples, counts: np.ndarray, seed: int, number: int = SIZE
) -> np.ndarray:
    """int32 [n, number]: items drawn for each example without replacement, 0-padded where the catalog runs out.

    Args:
        kind: all items alike, or in proportion to their events (items without events are not drawn).
        examples: histories and targets, which are never drawn.
        counts: int [v], events of each item; index 0 is padding.
        seed: of the draw.
        number: of items for each example.
    """
    weights = np.ones(len(counts), np.float32) if kind == "uniform" else counts.astype(np.float32)
    weights[0] = 0
    rng = np.random.default_rng(seed)
    result = np.zeros((len(examples), number), np.int32)
    size = max(1, CHUNK_DRAWS // len(counts))
    with np.errstate(divide="ignore"):
        slowness = 1 / weights  # inf: never drawn
    for start in range(0, len(examples), size):
        rows = np.arange(start, min(start + size, len(examples)))
        part = examples.take(rows)
        # Exponential clocks: the first ones to ring are a draw without replacement, in proportion to the weights.
        rings = rng.standard_exponential((len(part), len(counts)), np.float32) + np.finfo(np.float32).tiny
        rings *= slowness
        rings[np.repeat(np.arange(len(part)), part.histories.lengths), part.histories.items] = np.inf
        rings[np.arange(len(part)), part.targets] = np.inf
        width = min(number, len(counts) - 1)
        first = np.argpartition(rings, width - 1, axis=1)[:, :width]
        rang = np.isfinite(np.take_along_axis(rings, first, axis=1))
        result[rows, :width] = np.where(rang, first, 0)
    return result
