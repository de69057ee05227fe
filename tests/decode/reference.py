"""Reference of decoding, item by item in float64, and small random catalogs."""

import numpy as np


def catalog(rng: np.random.Generator, items: int, sizes: tuple[int, ...]) -> np.ndarray:
    """int32 [items + 1, slots], row 0 padding; a fifth of the items share a tuple with another."""
    codes = np.stack([rng.integers(0, size, items + 1) for size in sizes], axis=1).astype(np.int32)
    if items:
        copies = rng.integers(1, items + 1, items // 5)
        codes[rng.integers(1, items + 1, items // 5)] = codes[copies]
    codes[0] = 0
    return codes


def whole_logits(rng: np.random.Generator, queries: int, sizes: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Small integers: many exact ties, and sums that float32 holds exactly."""
    return tuple(rng.integers(-3, 4, (queries, size)).astype(np.float32) for size in sizes)


def raw_scores(logits, codes, users=None, vectors=None) -> np.ndarray:
    """float64 [q, items + 1] of every row."""
    scores = sum(np.asarray(row, np.float64)[:, codes[:, slot]] for slot, row in enumerate(logits))
    return scores if users is None else scores + users.astype(np.float64) @ vectors.T.astype(np.float64)


def competing(scores, seen, candidates=None) -> np.ndarray:
    """Scores with everything that may not be returned at -inf."""
    scores = scores.copy()
    scores[:, 0] = -np.inf
    for row, hidden in zip(scores, seen, strict=True):
        row[hidden] = -np.inf
    if candidates is not None:
        scores[:, ~candidates] = -np.inf
    return scores


def best(scores, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Lists by (score, smaller id), ending in 0 and -inf."""
    ids, values = np.zeros((len(scores), k), np.int32), np.full((len(scores), k), -np.inf)
    for row, (found, own) in enumerate(zip(ids, values, strict=True)):
        order = sorted(np.flatnonzero(scores[row] > -np.inf), key=lambda item: (-scores[row, item], item))[:k]
        found[: len(order)], own[: len(order)] = order, scores[row, order]
    return ids, values


def rank(scores, raw, targets) -> np.ndarray:
    pairs = zip(scores, raw, targets, strict=True)
    return np.array([1 + (s > r[t]).sum() + (s[:t] == r[t]).sum() for s, r, t in pairs])
