"""Recommendation event by event: what a model keeps of each user, advanced as events come in, saved and restored.

A history is never read again: an event costs the same whatever came before it, where the mixers keep a state of one
size; where they keep the history (attention), it costs a pass over that. The lists are those that recomputing the whole
histories gives.
"""

import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from recjax.data.batches.views import View
from recjax.data.items import Items, bare_items
from recjax.data.ranges import exclusive_sum
from recjax.evaluate.ranking import NonFiniteScoresError, SameModel
from recjax.evaluate.seen import SEEN_ITEMS, SeenEvents
from recjax.models.model import Model
from recjax.typing import Array, InputError, Params

Late = Literal["skip", "refuse"]
"""Events that are not after those of their user that have been read: left out and counted, or an error."""

WIDTHS = (1, 8, 64)
"""Events of a user that are read at a time: a handful of shapes, each compiled once."""


@partial(jax.jit, static_argnames="identity", donate_argnums=(2, 3))
def _advance(identity, params, store, hidden, rows, items, times):
    """The store and the user states after one chunk of events of some users; a row beyond the store fills up."""
    state = jax.tree.map(lambda leaf: jnp.take(leaf, rows, axis=0, mode="clip"), store)
    found, state = identity.model.advance(params, state, items, times)
    put = lambda leaf, new: leaf.at[rows].set(new.astype(leaf.dtype), mode="drop")  # noqa: E731
    return jax.tree.map(put, store, state), put(hidden, found)


@partial(jax.jit, static_argnames=("identity", "k"))
def _rank(identity, params, hidden, rows, items, seen, candidates, k):
    states = jnp.take(hidden, rows, axis=0, mode="clip")
    return identity.model.state_scoring(params, states, items).topk(seen, k, candidates)


@partial(jax.jit, donate_argnums=(0, 1))
def _cleared(store, hidden, empty, row):
    """The store and the user states with one row as it was before its first event."""
    put = lambda leaf, new: leaf.at[row].set(new[0].astype(leaf.dtype))  # noqa: E731
    return jax.tree.map(put, store, empty), hidden.at[row].set(0)


class Stream:
    """States of users, advanced by their events.

    Args:
        model: one that can be advanced event by event.
        params: its parameters.
        view: of training; its `max_length` is the room for a history where a mixer keeps one.
        users_per_batch: users whose events are read together.
        items: of the catalog, on the devices; None for a model of item ids.
        seen_items: distinct items of a user that are remembered, so that they are not recommended again; the last ones.
        room: users that there is room for at first, by default `users_per_batch`; with more of them the room doubles,
            and programs of its new shape are compiled.

    Raises:
        InputError: the model cannot be advanced event by event, or counts positions from the end of a history, where
            each event would move all that came before.
    """

    def __init__(
        self,
        model: Model,
        params: Params,
        view: View,
        users_per_batch: int = 256,
        seen_items: int = SEEN_ITEMS,
        items: Items | None = None,
        room: int | None = None,
    ):
        if not model.streams:
            raise InputError("this model cannot be advanced event by event; recommend from whole histories (--users)")
        if model.learned_positions and getattr(view, "align", "left") != "left":
            raise InputError(
                "the model counts positions from the end of a history (data.view.align = 'right'), so a new event "
                "would change the position of all before it; train with data.view.align=left, or with mixers that "
                "need no position table"
            )
        self.model, self.params, self.view = model, params, view
        self._catalog = bare_items(model.n_items) if items is None else items
        self._identity, self._rows = SameModel(model), users_per_batch
        self._names: dict[str, int] = {}
        self._seen = SeenEvents(seen_items)
        room = users_per_batch if room is None else room
        self._store = model.init_state(room, view.max_length)
        self._bounded = model.keeps_histories or model.learned_positions
        probe = jax.eval_shape(
            lambda: model.advance(params, self._store, jnp.zeros((room, 1), jnp.int32), self._times(room))
        )
        self._hidden = jnp.zeros(probe[0].shape, jnp.float32)

    @property
    def users(self) -> list[str]:
        """Names of the users with events, in the order of their first ones."""
        return list(self._names)

    @property
    def seen_items(self) -> int:
        """Distinct items of a user that are remembered."""
        return self._seen.most

    @property
    def bytes_per_user(self) -> int:
        """Size of a user's states on the device: the mixers' and the user state."""
        leaves = jax.tree.leaves((self._store, self._hidden))
        return sum(leaf.nbytes // leaf.shape[0] for leaf in leaves)

    @property
    def states(self) -> Array:
        """User states by row, float32 [room, d], for `Model.state_scoring`; `push` donates them."""
        return self._hidden

    def row(self, user: str) -> int:
        """Row of a user who has had events."""
        return self._names[user]

    def distinct(self, user: str) -> np.ndarray:
        """The items of a user that are remembered: int32 [m]."""
        return self._seen.distinct(self._names[user])

    def clear(self, user: str) -> None:
        """Forgets the events of a user, whose row stays."""
        row, empty = self._names[user], self.model.init_state(1, self.view.max_length)
        self._store, self._hidden = _cleared(self._store, self._hidden, empty, np.int32(row))
        self._seen.clear(row)

    def length(self, user: str) -> int:
        """Events of a user so far."""
        return int(self._seen.lengths[self._names[user]]) if user in self._names else 0

    def forgetful(self, users: Sequence[str]) -> int:
        """Number of users, of some, with so many distinct items that the first of them may be recommended again."""
        return self._seen.full(np.array([self._names[user] for user in users if user in self._names], np.int64))

    def push(
        self,
        users: Sequence[str],
        items: np.ndarray,
        timestamps: np.ndarray | None = None,
        late: Late = "skip",
    ) -> np.ndarray:
        """Takes events; those of a user in the order in which they happened.

        An event that is not after those of its user in earlier calls (`SeenEvents.repeated`) is not read, so the events
        of one call given a second time change nothing.

        Args:
            users: name of the user of each event.
            items: int [m], item numbers, 1..items.
            timestamps: int [m], unix seconds, or None, where every event counts as new.
            late: whether such events are left out, or an error.

        Returns:
            bool [m], the events that were left out.

        Raises:
            InputError: an item number that is not in the catalog, a history longer than there is room for, or events
                that are late and may not be.
        """
        items = np.asarray(items, np.int64)
        if len(items) and not (items.min() >= 1 and items.max() <= self.model.n_items):
            wrong = items[(items < 1) | (items > self.model.n_items)][0]
            raise InputError(f"item number {wrong} is not in the catalog, whose items are 1 to {self.model.n_items}")
        times = np.zeros(len(items), np.int64) if timestamps is None else np.asarray(timestamps, np.int64)
        rows = np.fromiter((self._names.setdefault(user, len(self._names)) for user in users), np.int64, len(items))
        self._grow()
        skipped = np.zeros(len(items), bool) if timestamps is None else self._seen.repeated(rows, items, times)
        if skipped.any() and late == "refuse":
            first = users[int(np.flatnonzero(skipped)[0])]
            raise InputError(
                f"{skipped.sum():,} events are not after those of their users that have been read, the first of them "
                f"of user {first!r}: they come a second time, or late"
            )
        rows, items, times = rows[~skipped], items[~skipped], times[~skipped]
        self._advance_all(rows, items, times)
        self._seen.add(rows, items, None if timestamps is None else times)
        return skipped

    def _advance_all(self, rows: np.ndarray, items: np.ndarray, times: np.ndarray) -> None:
        """Reads events, those of a row in their order, a few of each row at a time."""
        order = np.argsort(rows, kind="stable")
        touched, counts = np.unique(rows, return_counts=True)
        self._check_room(touched, counts)
        starts = exclusive_sum(counts)[:-1]
        done = np.zeros(len(touched), np.int64)
        while (left := np.flatnonzero(done < counts)).size:
            # Users with much to read go first, so that those of a chunk have about equally much.
            left = left[np.argsort(done[left] - counts[left], kind="stable")][: self._rows]
            most = int((counts - done)[left].max())
            width = next((width for width in WIDTHS if width >= most), WIDTHS[-1])
            took = np.minimum(counts[left] - done[left], width)
            places = np.where(np.arange(width) < took[:, None], (starts + done)[left][:, None] + np.arange(width), -1)
            events = np.where(places >= 0, order[places], -1)
            self._read(touched[left], np.where(events >= 0, items[events], 0), np.where(events >= 0, times[events], 0))
            done[left] += took

    def wait(self) -> None:
        """Returns when all events taken are in the states: `push` hands them to the device and goes on."""
        jax.block_until_ready((self._store, self._hidden))

    def recommend(
        self, users: Sequence[str], k: int, *, mask_seen: bool = True, candidates: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best `k` items of each user and their scores, best first: int32 [q, k], float32 [q, k].

        Args:
            users: names.
            k: length of the lists.
            mask_seen: leave out items that have been seen.
            candidates: bool [items + 1], the only items that may be listed, by item number; None for all.

        Raises:
            InputError: a user without events.
            NonFiniteScoresError: names users with scores that are no numbers.
        """
        if absent := [user for user in users if not self.length(user)]:
            raise InputError(f"no events of user {absent[0]!r} have been seen" + f" ({len(absent):,} such users)")
        rows = np.array([self._names[user] for user in users], np.int64)
        lists, scores = np.zeros((len(rows), k), np.int32), np.zeros((len(rows), k), np.float32)
        for start in range(0, len(rows), self._rows):
            part = rows[start : start + self._rows]
            filled, seen = _filled(part, self._rows), self._seen.items(part if mask_seen else part[:0], self._rows)
            found = _rank(self._identity, self.params, self._hidden, filled, self._catalog, seen, candidates, k)
            lists[start : start + len(part)], scores[start : start + len(part)] = (
                np.asarray(x)[: len(part)] for x in found
            )
        broken = [user for user, row in zip(users, scores, strict=True) if np.isnan(row).any()]
        if broken:
            raise NonFiniteScoresError.of(broken)
        return lists, scores

    def arrays(self) -> dict[str, np.ndarray]:
        """All states and what has been seen, as arrays by name."""
        count = len(self._names)
        names = [name.encode("utf-8", "surrogatepass") for name in self._names]
        leaves = jax.tree.leaves(self._store)
        return {
            **{f"state/{number}": np.asarray(leaf[:count]) for number, leaf in enumerate(leaves)},
            "hidden": np.asarray(self._hidden[:count]),
            "names": np.frombuffer(b"".join(names), np.uint8),
            "names_counts": np.fromiter(map(len, names), np.int64, count),
            **self._seen.arrays(),
        }

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Continues from the `arrays` of a stream of the same model and parameters."""
        bounds = exclusive_sum(arrays["names_counts"]).tolist()
        text = arrays["names"].tobytes()
        names = [text[a:b].decode("utf-8", "surrogatepass") for a, b in itertools.pairwise(bounds)]
        self._names = {name: row for row, name in enumerate(names)}
        self._seen.restore(arrays)
        self._grow()
        leaves, tree = jax.tree.flatten(self._store)
        put = lambda leaf, new: leaf.at[: len(names)].set(new)  # noqa: E731
        held = [arrays[f"state/{number}"] for number in range(len(leaves))]
        self._store = jax.tree.unflatten(tree, [put(*pair) for pair in zip(leaves, held, strict=True)])
        self._hidden = put(self._hidden, arrays["hidden"])

    def _grow(self) -> None:
        """Room for every user: the store doubles, so that its shapes are few."""
        self._seen.grow(len(self._names))
        room = self._hidden.shape[0]
        if len(self._names) <= room:
            return
        while room < len(self._names):
            room *= 2
        more = room - self._hidden.shape[0]
        empty = self.model.init_state(more, self.view.max_length)
        self._store = jax.tree.map(lambda old, new: jnp.concatenate([old, new]), self._store, empty)
        self._hidden = jnp.pad(self._hidden, [(0, more), (0, 0)])

    def _check_room(self, rows: np.ndarray, counts: np.ndarray) -> None:
        if not self._bounded:
            return
        for row, count in zip(rows, counts, strict=True):
            if (after := int(self._seen.lengths[row]) + count) > self.view.max_length:
                user = next(name for name, number in self._names.items() if number == row)
                raise InputError(
                    f"user {user!r} would have {after} events, but the model keeps whole histories and has room for "
                    f"{self.view.max_length} (data.view.max_length); mixers with a state of one size have no such limit"
                )

    def _read(self, rows: np.ndarray, items: np.ndarray, times: np.ndarray) -> None:
        fill = [(0, self._rows - len(rows)), (0, 0)]
        seconds = np.pad(times, fill).astype(np.int32) if getattr(self.view, "times", False) else None
        self._store, self._hidden = _advance(
            self._identity,
            self.params,
            self._store,
            self._hidden,
            _filled(rows, self._rows, beyond=self._hidden.shape[0]),
            np.pad(items, fill).astype(np.int32),
            seconds,
        )

    def _times(self, rows: int) -> Array | None:
        return jnp.zeros((rows, 1), jnp.int32) if getattr(self.view, "times", False) else None


def _filled(rows: np.ndarray, size: int, beyond: int = 0) -> np.ndarray:
    """int32 [size]: the rows, and `beyond` where there are fewer."""
    return np.pad(rows, (0, size - len(rows)), constant_values=beyond).astype(np.int32)
