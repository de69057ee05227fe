"""Histories as the codes of their items end to end, one token a code: what code-by-code generators read and write."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import CODES, Items
from recjax.typing import Array, Bool, InputError, Int

START = 0
"""Token before the first code of an item that is to be written."""


@dataclass(frozen=True)
class FlatCodes:
    """Numbering of tokens: `START`, then as many for each slot.

    Attributes:
        sizes: codes there are in each slot.
        room: tokens of a slot, at least as many as it has codes, so that catalogs of other sizes are numbered alike.
    """

    sizes: tuple[int, ...]
    room: int

    @property
    def vocabulary(self) -> int:
        """Tokens that there are."""
        return 1 + len(self.sizes) * self.room

    def span(self, slot: int) -> tuple[int, int]:
        """First token of a slot's codes, and the one after the last."""
        start = 1 + slot * self.room
        return start, start + self.sizes[slot]

    def tokens(self, codes: Int[Array, "*b slots"]) -> Int[Array, "*b slots"]:
        """Tokens of the codes of items."""
        return 1 + jnp.arange(len(self.sizes)) * self.room + codes

    def following(self, codes: Int[Array, "*b"], slot: int) -> Int[Array, "*b"]:
        """Tokens to write slot `slot` after: those of the codes of the slot before it, or `START`."""
        return jnp.full_like(codes, START) if slot == 0 else 1 + (slot - 1) * self.room + codes

    def written(self, codes: Int[Array, "*b slots"]) -> Int[Array, "*b slots"]:
        """Tokens that stand before each slot of items that are known already, for teacher forcing."""
        tokens = self.tokens(codes)
        return jnp.concatenate([jnp.full_like(tokens[..., :1], START), tokens[..., :-1]], axis=-1)

    def history(self, source: Batch | Queries, items: Items) -> tuple[Int[Array, "b m"], Bool[Array, "b m"]]:
        """Tokens of the items of each row, and where they are no padding; m = length x slots."""
        tokens = self.tokens(codes_of(items, source.items))
        mask = jnp.broadcast_to((source.items > 0)[..., None], tokens.shape)
        return tokens.reshape(len(tokens), -1), mask.reshape(len(tokens), -1)


def check_codes(system: str, sizes: Sequence[int], room: int) -> None:
    """InputError where items have no codes, or a slot more than a model has room for.

    Args:
        system: name for the message.
        sizes: codes there are in each slot.
        room: `model.codes`.
    """
    if not sizes:
        raise InputError(
            f"{system} reads codes of items, but there are none: the recipe needs `text` and a `tokenizer`, or "
            "items={'codes': Codes(...)}"
        )
    if max(sizes) > room:
        raise InputError(f"a slot has {max(sizes)} codes, but model.codes is {room}")


def codes_of(items: Items, ids: Int[Array, "*b"]) -> Int[Array, "*b slots"]:
    """Codes of items of the current catalog; those of padding for 0."""
    return jnp.take(items[CODES], items.rows(ids), axis=0, mode="clip")
