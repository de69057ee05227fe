"""Policies for items that share a tuple of codes: two items never silently become one.

* `none`: they keep it, and a model cannot tell them apart; the diagnostics say how many they are.
* `suffix`: one more slot holds the number of an item among those of its tuple (TIGER's extra digit), or its rank by
  popularity among them (MMGRec's).
* `nearest-free`: the first item keeps the tuple; each further one moves to the tuple that no item has and that costs
  least, as the tokenizer counts it.
* `random`: every item gets a tuple of its own, drawn from its number, whatever the tokenizer gave it: codes that say
  nothing of an item but who it is, to see what codes of texts are worth (the ablation of RecGPT, EMNLP 2025).

First means smallest id, so what an item gets does not depend on items that are appended to the catalog, but for tuples
that a new item has by itself.

Items without text have no vector, so a tokenizer would give all of them one and the same tuple, as if they were
alike. Under all but `none` each instead gets a tuple of its own, drawn from its number, that no item with
text has: it says nothing of the item but who it is. Under `suffix` it may be another's where too few are free.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, get_args

import numpy as np

from recjax.data.batches.hash_random import draw
from recjax.typing import InputError

Policy = Literal["none", "suffix", "nearest-free", "random"]

Tuple = tuple[int, ...]
Candidates = Callable[[np.ndarray], Sequence[Iterator[Tuple]]]
"""Item ids -> for each, all tuples, cheapest first. Items that are equal may share an iterator: what one of them passed
over is taken for the others too."""

TRIES = 100
"""Tuples an item looks at by itself under `nearest-free`. Where all are taken the tokenizer has collapsed, and the
items of a tuple go on together from a common list: n items then look at n tuples or so, and not at n each."""

SCATTER_SEED = 0


@dataclass(frozen=True, eq=False)
class Resolved:
    """Codes after a policy.

    Attributes:
        codes: int32 [n + 1, slots], one slot more under `suffix`.
        sizes: codes there are in each slot.
        moved: items with text whose tuple is no longer the tokenizer's.
    """

    codes: np.ndarray
    sizes: tuple[int, ...]
    moved: int


def resolve(
    codes: np.ndarray,
    sizes: Sequence[int],
    policy: Policy,
    known: np.ndarray,
    candidates: Candidates,
    counts: np.ndarray | None = None,
) -> Resolved:
    """Applies a collision policy.

    Args:
        codes: int [n + 1, slots] as the tokenizer gave them, row 0 padding.
        sizes: codes there are in each slot.
        policy: one of those above.
        known: bool [n + 1], whether the item has text.
        candidates: where an item with text could go; asked under `nearest-free` only.
        counts: int [n + 1], popularity by which suffixes rank the items of a tuple, ties by id; None: by id alone.

    Raises:
        InputError: no such policy, or fewer tuples than items.
    """
    if policy not in get_args(Policy):
        raise InputError(f"collisions is {policy!r}, expected one of: {', '.join(get_args(Policy))}")
    codes, sizes = codes.astype(np.int32), tuple(int(size) for size in sizes)
    if policy == "none":
        return Resolved(codes, sizes, 0)
    items = np.arange(1, len(codes))
    kept = known[1:] & (policy != "random")
    with_text, without = items[kept], items[~kept]
    needed = len(without) + min(len(with_text), 1) if policy == "suffix" else len(items)
    if needed > math.prod(sizes):
        raise InputError(
            f"{len(items):,} items cannot have different codes: {len(sizes)} slots of sizes "
            f"{', '.join(map(str, sizes))} make {math.prod(sizes):,} tuples; give the tokenizer more slots or codes"
        )
    given, codes, moved = codes, codes.copy(), 0
    if policy == "nearest-free":
        moved = _move(codes, with_text, candidates)
    taken = {tuple(row) for row in codes[with_text].tolist()}
    if policy == "suffix" and len(taken) + len(without) > math.prod(sizes):
        taken = set()  # the suffix tells apart those that share a tuple
    _scatter(codes, sizes, without, taken)
    if policy == "random":
        moved = int(np.count_nonzero((codes != given).any(axis=1) & known))
    if policy == "suffix":
        codes, sizes = _suffixed(codes, sizes, counts)
    return Resolved(codes, sizes, moved)


def _move(codes: np.ndarray, items: np.ndarray, candidates: Candidates) -> int:
    """Gives all but the first item of each tuple a free one, in place; how many that were."""
    rows = [tuple(row) for row in codes[items].tolist()]
    taken, later = set(), []
    for item, row in zip(items.tolist(), rows, strict=True):
        if row in taken:
            later.append(item)
        taken.add(row)
    if not later:
        return 0
    common: dict[Tuple, Iterator[Tuple]] = {}
    for item, options in zip(later, candidates(np.array(later)), strict=True):
        free = next((option for option in islice(options, TRIES) if option not in taken), None)
        if free is None:
            shared = common.setdefault(tuple(codes[item].tolist()), options)
            free = next((option for option in shared if option not in taken), None)
        if free is None:
            raise InputError(f"no tuple is free for item {item}; give the tokenizer more slots or codes")
        codes[item] = free
        taken.add(free)
    return len(later)


def _scatter(codes: np.ndarray, sizes: Tuple, items: np.ndarray, taken: set[Tuple]) -> None:
    """Gives each item a free tuple drawn from its number, or the next free one after it, in place."""
    drawn = np.stack([draw(SCATTER_SEED, items, slot) % np.uint64(size) for slot, size in enumerate(sizes)], axis=-1)
    for item, start in zip(items.tolist(), drawn.tolist(), strict=True):
        row = tuple(start)
        while row in taken:
            row = _successor(row, sizes)
        codes[item] = row
        taken.add(row)


def _successor(row: Tuple, sizes: Tuple) -> Tuple:
    """The next tuple, the last slot counting fastest; after the last one comes the first."""
    digits = list(row)
    for slot in reversed(range(len(sizes))):
        digits[slot] = (digits[slot] + 1) % sizes[slot]
        if digits[slot]:
            break
    return tuple(digits)


def _suffixed(codes: np.ndarray, sizes: Tuple, counts: np.ndarray | None) -> tuple[np.ndarray, Tuple]:
    """Codes with one more slot; its size is the power of two above the largest bucket, so that new items fit."""
    numbers, seen = np.zeros(len(codes), np.int32), dict[Tuple, int]()
    order = np.arange(1, len(codes)) if counts is None else 1 + np.argsort(-counts[1:], kind="stable")
    for item, row in zip(order.tolist(), map(tuple, codes[order].tolist()), strict=True):
        numbers[item] = seen.get(row, 0)
        seen[row] = int(numbers[item]) + 1
    size = 1 << max(seen.values(), default=1).bit_length()
    return np.concatenate([codes, numbers[:, None]], axis=1), (*sizes, size)
