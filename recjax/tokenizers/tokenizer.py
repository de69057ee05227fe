"""The one interface of item tokenizers, and the whole way from vectors to codes that are saved."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rich.table import Table

from recjax.config import to_json
from recjax.tokenizers.collisions import Policy, Tuple, resolve
from recjax.tokenizers.diagnostics import Diagnostics, diagnose, diagnostics_table, groups_of
from recjax.tokenizers.item_codes import ItemCodes, State
from recjax.tokenizers.training import Trainer
from recjax.typing import Array, InputError


class ItemTokenizer(Protocol):
    """A tokenizer's config: a frozen dataclass. Deterministic given the key."""

    @property
    def collisions(self) -> Policy: ...

    @property
    def sizes(self) -> tuple[int, ...]:
        """Codes there are in each slot, before collisions are resolved."""
        ...

    @property
    def ordered(self) -> bool:
        """True if a code refines the one before it."""
        ...

    def fit(self, vectors: np.ndarray, known: np.ndarray, key: Array, trainer: Trainer = ...) -> dict[str, Any]:
        """The state, nested dicts of arrays, learned from vectors float32 [n + 1, d] where `known` bool [n + 1]."""
        ...

    def encode(self, state: State, vectors: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Codes int32 [n + 1, slots] of any catalog, row 0 zeros."""
        ...

    def candidates(self, state: State, vectors: np.ndarray) -> Sequence[Iterator[Tuple]]:
        """For each vector [m, d], all tuples, cheapest first: where it may go when its own tuple is taken."""
        ...


class EqualSlots:
    """Tokenizers all of whose slots have as many codes as there are `clusters`."""

    slots: int
    clusters: int

    @property
    def sizes(self) -> tuple[int, ...]:
        """Codes there are in each slot."""
        return (self.clusters,) * self.slots


def planned_sizes(tokenizer: ItemTokenizer) -> tuple[int, ...]:
    """Codes there are in each slot, for plans, which have no catalog.

    A slot of suffixes is as large as the largest bucket of items of equal codes; here it counts as the largest slot.
    """
    sizes = tuple(tokenizer.sizes)
    return (*sizes, max(sizes)) if tokenizer.collisions == "suffix" else sizes


@dataclass(frozen=True, eq=False)
class Tokenized:
    """A catalog with its codes.

    Attributes:
        tokenizer: the config.
        state: what it learned.
        codes: after collisions were resolved.
        before: diagnostics of the codes as the tokenizer gave them.
        after: diagnostics of `codes`.
        moved: items with text whose tuple is not the tokenizer's.
    """

    tokenizer: ItemTokenizer
    state: State
    codes: ItemCodes
    before: Diagnostics
    after: Diagnostics
    moved: int

    def table(self) -> Table:
        """Diagnostics before and after collisions were resolved."""
        policy = self.tokenizer.collisions
        title = f"{type(self.tokenizer).__name__}: {self.codes.slots} slots, collisions {policy}, {self.moved:,} moved"
        return diagnostics_table(title, before=self.before, after=self.after)

    def save(self, folder: Path) -> None:
        """Writes codes, tokenizer state and diagnostics; see `ItemCodes.save`."""
        self.codes.save(
            folder,
            self.state,
            tokenizer=to_json(self.tokenizer),
            moved=self.moved,
            before=self.before.to_json(),
            after=self.after.to_json(),
        )


def tokenize(
    tokenizer: ItemTokenizer,
    vectors: np.ndarray,
    known: np.ndarray,
    key: Array | None = None,
    *,
    state: State | None = None,
    texts: Sequence[str | None] | None = None,
    trainer: Trainer | None = None,
    behaviour: np.ndarray | None = None,
    counts: np.ndarray | None = None,
) -> Tokenized:
    """Codes of a catalog: fits the tokenizer, or uses one that was fitted, encodes and resolves collisions.

    Args:
        tokenizer: the config.
        vectors: float32 [n + 1, d], row 0 padding.
        known: bool [n + 1], whether an item has text.
        key: of the fit; not needed with `state`.
        state: of a fitted tokenizer, also one fitted on another catalog.
        texts: of items 1 .. n, to tell identical ones; by default equal vectors are taken for equal texts.
        trainer: given to `fit`.
        behaviour: float32 [n + 1, e], what users do with items, given to the `fit` of a tokenizer that reads it.
        counts: int [n + 1], popularity by which suffixes rank items of equal codes; by default they go by id.

    Raises:
        InputError: arguments that do not fit together, or vectors that are not finite.
    """
    _check(vectors, known, texts)
    if state is None:
        if key is None:
            raise InputError("a tokenizer that is to be fitted needs a key")
        given = {"trainer": trainer, "behaviour": behaviour}
        state = tokenizer.fit(vectors, known, key, **{name: x for name, x in given.items() if x is not None})
    raw = tokenizer.encode(state, vectors, known)
    groups = groups_of(np.where(known[:, None], vectors, 0) if texts is None else texts)

    def candidates(items: np.ndarray) -> list[Iterator[Tuple]]:
        # Items of equal vectors share an iterator: what one of them passed over is taken for the others too.
        _, first, which = np.unique(groups_of(vectors[[0, *items]])[1:], return_index=True, return_inverse=True)
        iterators = tokenizer.candidates(state, vectors[items[first]])
        return [iterators[number] for number in which.reshape(-1).tolist()]

    resolved = resolve(raw, tokenizer.sizes, tokenizer.collisions, known, candidates, counts)
    return Tokenized(
        tokenizer,
        state,
        ItemCodes(resolved.codes, resolved.sizes, tokenizer.ordered),
        before=diagnose(raw, tokenizer.sizes, groups, known),
        after=diagnose(resolved.codes, resolved.sizes, groups, known),
        moved=resolved.moved,
    )


def _check(vectors: np.ndarray, known: np.ndarray, texts: Sequence[str | None] | None) -> None:
    if vectors.ndim != 2 or known.shape != vectors.shape[:1]:
        raise InputError(
            f"vectors have shape {vectors.shape} and known {known.shape}, expected [items + 1, d] and [items + 1]"
        )
    if known[0]:
        raise InputError("known is true for row 0, which is padding")
    if texts is not None and len(texts) != len(vectors) - 1:
        raise InputError(f"there are {len(texts):,} texts, but vectors of {len(vectors) - 1:,} items")
    if not np.isfinite(vectors).all():
        item = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise InputError(f"the vector of item {item} has a number that is not finite")
