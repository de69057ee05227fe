"""Recommendation event by event: what a model keeps of each user, advanced as events come in, saved and restored.

A history is never read again: an event costs the same whatever came before it, where the mixers keep a state of one
size; where they keep the history (attention), it costs a pass over that. The lists are those that recomputing the whole
histories gives.
"""

import itertools
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from recjax.data.items import Items, bare_items
from recjax.data.ranges import exclusive_sum
from recjax.data.views import View
from recjax.evaluate.ranking import NonFiniteScoresError, SameModel
from recjax.files import replacing
from recjax.models.model import Model
from recjax.typing import Array, InputError, Params

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
def _rank(identity, params, hidden, rows, items, seen, k):
    states = jnp.take(hidden, rows, axis=0, mode="clip")
    return identity.model.state_scoring(params, states, items).topk(seen, k)


class Stream:
    """States of users, advanced by their events.

    Args:
        model: one that can go on event by event.
        params: its parameters.
        view: of training; its `max_length` is the room for a history where a mixer keeps one.
        users_per_batch: users whose events are read together.
        items: of the catalog, on the devices; None for a model of item ids.

    Raises:
        InputError: the model cannot go on event by event, or counts positions from the end of a history, where each
            event would move all that came before.
    """

    def __init__(
        self, model: Model, params: Params, view: View, users_per_batch: int = 256, items: Items | None = None
    ):
        if not model.streams:
            raise InputError("this model cannot go on event by event; recommend from whole histories instead (--users)")
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
        self._items: list[list[int]] = []
        self._store = model.init_state(users_per_batch, view.max_length)
        self._bounded = model.keeps_histories or model.learned_positions
        probe = jax.eval_shape(
            lambda: model.advance(params, self._store, jnp.zeros((users_per_batch, 1), jnp.int32), self._times(1))
        )
        self._hidden = jnp.zeros(probe[0].shape, jnp.float32)

    @property
    def users(self) -> list[str]:
        """Names of the users with events, in the order of their first ones."""
        return list(self._names)

    @property
    def bytes_per_user(self) -> int:
        """What is kept of a user on the device: the mixers' states and the user state."""
        leaves = jax.tree.leaves((self._store, self._hidden))
        return sum(leaf.nbytes // leaf.shape[0] for leaf in leaves)

    def length(self, user: str) -> int:
        """Events of a user so far."""
        return len(self._items[self._names[user]]) if user in self._names else 0

    def push(self, users: Sequence[str], items: np.ndarray, timestamps: np.ndarray | None = None) -> None:
        """Takes events; those of a user in the order in which they happened.

        Args:
            users: name of the user of each event.
            items: int [m], item numbers, 1..items.
            timestamps: int [m], unix seconds, or None.

        Raises:
            InputError: an item number that is not in the catalog, or a history longer than there is room for.
        """
        items = np.asarray(items, np.int64)
        if len(items) and not (items.min() >= 1 and items.max() <= self.model.n_items):
            wrong = items[(items < 1) | (items > self.model.n_items)][0]
            raise InputError(f"item number {wrong} is not in the catalog, whose items are 1 to {self.model.n_items}")
        times = np.zeros(len(items), np.int64) if timestamps is None else np.asarray(timestamps, np.int64)
        rows = np.fromiter((self._names.setdefault(user, len(self._names)) for user in users), np.int64, len(items))
        self._grow()
        order = np.argsort(rows, kind="stable")
        touched, counts = np.unique(rows, return_counts=True)
        self._check_room(touched, counts)
        starts = exclusive_sum(counts)[:-1]
        for row, start, count in zip(touched, starts, counts, strict=True):
            self._items[row].extend(items[order[start : start + count]].tolist())
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

    def recommend(self, users: Sequence[str], k: int, *, mask_seen: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """The best `k` items of each user and their scores, best first: int32 [q, k], float32 [q, k].

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
            filled, seen = _filled(part, self._rows), self._seen(part, mask_seen)
            found = _rank(self._identity, self.params, self._hidden, filled, self._catalog, seen, k)
            lists[start : start + len(part)], scores[start : start + len(part)] = (
                np.asarray(x)[: len(part)] for x in found
            )
        broken = [user for user, row in zip(users, scores, strict=True) if np.isnan(row).any()]
        if broken:
            raise NonFiniteScoresError.of(broken)
        return lists, scores

    def save(self, path: Path, identity: dict[str, Any]) -> None:
        """Writes all states to a safetensors file, atomically.

        Args:
            path: of the file.
            identity: JSON values that say which parameters the states belong to; `restore` wants the same.
        """
        names, count = list(self._names), len(self._names)
        leaves = [np.asarray(leaf[:count]) for leaf in jax.tree.leaves(self._store)]
        lengths = np.array([len(items) for items in self._items], np.int64)
        arrays = {f"state/{number}": leaf for number, leaf in enumerate(leaves)}
        arrays["hidden"] = np.asarray(self._hidden[:count])
        arrays["lengths"] = lengths
        arrays["items"] = np.fromiter((item for items in self._items for item in items), np.int32, int(lengths.sum()))
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            save_file(arrays, temporary, {"identity": json.dumps(identity), "users": json.dumps(names)})

    def restore(self, path: Path, identity: dict[str, Any]) -> None:
        """Goes on with the states that `save` wrote.

        Raises:
            InputError: no such file, or one that belongs to other parameters.
        """
        held, names, arrays = _read_states(path)
        if held != identity:
            differing = ", ".join(
                f"{key} {held.get(key)!r} there, {identity[key]!r} here"
                for key in identity
                if held.get(key) != identity[key]
            )
            raise InputError(f"{path} holds states of other parameters: {differing}")
        self._names = {name: row for row, name in enumerate(names)}
        bounds = exclusive_sum(arrays["lengths"])
        self._items = [arrays["items"][a:b].tolist() for a, b in itertools.pairwise(bounds)]
        self._grow()
        leaves, tree = jax.tree.flatten(self._store)
        held_leaves = [arrays[f"state/{number}"] for number in range(len(leaves))]
        put = lambda leaf, new: leaf.at[: len(names)].set(new)  # noqa: E731
        self._store = jax.tree.unflatten(tree, [put(*pair) for pair in zip(leaves, held_leaves, strict=True)])
        self._hidden = put(self._hidden, arrays["hidden"])

    def _grow(self) -> None:
        """Room for every user: the store doubles, so that its shapes are few."""
        self._items += [[] for _ in range(len(self._names) - len(self._items))]
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
            if (after := len(self._items[row]) + count) > self.view.max_length:
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

    def _times(self, width: int) -> Array | None:
        return jnp.zeros((self._rows, width), jnp.int32) if getattr(self.view, "times", False) else None

    def _seen(self, rows: np.ndarray, masked: bool) -> np.ndarray:
        histories = [self._items[row] if masked else [] for row in rows]
        longest = max(map(len, histories), default=1)
        width = 1 << max(longest - 1, 0).bit_length()
        seen = np.zeros((self._rows, width), np.int32)
        for number, items in enumerate(histories):
            seen[number, : len(items)] = items
        return seen


def _filled(rows: np.ndarray, size: int, beyond: int = 0) -> np.ndarray:
    """int32 [size]: the rows, and `beyond` where there are fewer."""
    return np.pad(rows, (0, size - len(rows)), constant_values=beyond).astype(np.int32)


def _read_states(path: Path) -> tuple[dict[str, Any], list[str], dict[str, np.ndarray]]:
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
        return json.loads(metadata["identity"]), json.loads(metadata["users"]), load_file(path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; --state makes it at the first call") from None
    except (SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{path} holds no states of users: {error}") from None
