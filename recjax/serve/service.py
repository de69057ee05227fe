"""Answers to requests: raw ids in, raw ids out."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from recjax.serve.learning import Learning
from recjax.serve.limits import Limits
from recjax.serve.programs import Listed, Programs, Query
from recjax.serve.served import Served
from recjax.serve.users import Remembered, UnknownUserError, open_users
from recjax.serve.worker import Worker

NAMED = 5
"""Unknown ids that an error names."""


class RefusedError(ValueError):
    """A request that cannot be answered.

    Attributes:
        code: short name of the reason.
        unknown: ids that the catalog does not have, with the nearest ones that it has.
    """

    def __init__(self, code: str, message: str, unknown: list[dict[str, Any]] | None = None):
        super().__init__(message)
        self.code, self.unknown = code, unknown


@dataclass(frozen=True, eq=False)
class Answer:
    """One list as it is sent.

    Attributes:
        items: rank, item_id, title and score of each.
        unknown: ids that were left out.
        fallback: whether these are the most popular items.
    """

    items: list[dict[str, Any]]
    unknown: list[str]
    fallback: bool


class Service:
    """A run that answers.

    Args:
        served: the run.
        limits: of requests.
        observe: called with the size and the seconds of each batch.

    Attributes:
        programs: its compiled rankings.
        users: those whose events are remembered; only the worker's thread touches them.
        learning: what counts events for everybody's lists, or None.
        worker: the thread that ranks.
    """

    def __init__(
        self, served: Served, limits: Limits, observe: Callable[[int, float], None] = lambda size, seconds: None
    ):
        self.served, self.limits = served, limits
        with jax.set_mesh(served.mesh):
            self.users = open_users(served, limits.users)
        self.programs = Programs(served, limits.k, self.users.states)
        self.learning = None if served.counting is None else Learning(served.counting, self.programs)
        self.worker = Worker(self._lists, limits.waiting, observe)
        self.search("warm", 1)

    @property
    def online(self) -> str:
        """The form in which users are remembered: "state" or "history"."""
        return "history" if isinstance(self.users, Remembered) else "state"

    def _lists(self, queries: Sequence[Query]) -> Sequence[Any]:
        return self.programs.lists(queries, self.users.states)

    async def recommend(self, history: Sequence[Any], times: Sequence[int] | None, **wish: Any) -> Answer:
        """The list of a typed history.

        Args:
            history: raw ids, oldest first.
            times: unix seconds of each, or None.
            wish: `k`, `candidates`, `exclude` and `unknown` of the request.

        Raises:
            RefusedError: times that are not those of the history, or ids that the catalog does not have.
            BusyError: too much waits.
        """
        if times is not None and len(times) != len(history):
            raise RefusedError(
                "timestamps", f"timestamps has {len(times)} numbers, expected one for each of {len(history)} items"
            )
        numbers, unknown = self._numbers(history, "history", wish["unknown"])
        known = numbers > 0
        items = numbers[known]
        seconds = np.zeros(len(items), np.int64) if times is None else np.asarray(times, np.int64)[known]
        distinct = self._seen(items)
        hidden, allowed, more = self._limits(distinct, wish)
        if not len(items):
            return self._popular(wish["k"], hidden, allowed, [*unknown, *more])
        query = Query(items, seconds, hidden, allowed, wish["k"])
        found = await asyncio.wrap_future(self.worker.ask(lambda: query))
        return self._answer(found, [*unknown, *more])

    async def push(self, user: str, events: Sequence[tuple[Any, int | None]], unknown: str) -> dict[str, Any]:
        """Takes events of a user; how many there are, and how many were left out.

        Args:
            user: any name.
            events: raw id and unix seconds, or None, of each, oldest first.
            unknown: "refuse" or "skip".

        Raises:
            RefusedError: ids that the catalog does not have, or times of some events only.
            BusyError: too much waits.
        """
        times = [time for _, time in events if time is not None]
        if times and len(times) < len(events):
            raise RefusedError("timestamps", f"{len(times)} of {len(events)} events have a timestamp: give all or none")
        numbers, names = self._numbers([item for item, _ in events], "events", unknown)
        known = numbers > 0
        seconds = np.asarray(times, np.int64)[known] if times else None
        if seconds is not None and (np.diff(seconds) < 0).any():
            raise RefusedError("timestamps", "the events are not in the order of their timestamps, oldest first")

        def take() -> tuple[int, int]:
            if not known.any():
                return (self.users.length(self.users.slot(user)) if user in self.users else 0), 0
            items = numbers[known]
            before = self.users.history(self.users.slot(user))[0] if user in self.users else items[:0]
            with jax.set_mesh(self.served.mesh):
                skipped = self.users.push(user, items, seconds)
                if self.learning is not None:
                    self.learning.take(before, items[~skipped].tolist())
            return self.users.length(self.users.slot(user)), int(skipped.sum())

        length, skipped = await asyncio.wrap_future(self.worker.run(take))
        return {"events": length, "skipped": skipped, "unknown": names}

    async def recommend_user(self, user: str, **wish: Any) -> Answer:
        """The list of a user whose events were sent before.

        Raises:
            UnknownUserError: no events are remembered of that user.
            RefusedError: ids that the catalog does not have.
            BusyError: too much waits.
        """
        excluded, allowed, unknown = self._limits(np.zeros(0, np.int32), wish)

        def query() -> Query:
            slot = self.users.slot(user)
            if not self.users.length(slot):
                raise UnknownUserError(user)
            items, times, row = self.users.history(slot)
            hidden = np.union1d(excluded, self._seen(self.users.distinct(slot))).astype(np.int32)
            return Query(items, times, hidden, allowed, wish["k"], row)

        return self._answer(await asyncio.wrap_future(self.worker.ask(query)), unknown)

    async def forget(self, user: str) -> bool:
        """Forgets a user; whether there was one."""
        return await asyncio.wrap_future(self.worker.run(lambda: self.users.forget(user)))

    def search(self, text: str, most: int) -> list[dict[str, str]]:
        """Items by words of their titles, or by id."""
        return [self._item(int(number)) for number in self.served.catalog.search(text, most)]

    def items(self, ids: Sequence[str]) -> list[dict[str, str]]:
        """The items of some ids, those that there are."""
        numbers = (self.served.catalog.number(raw) for raw in ids)
        return [self._item(number) for number in numbers if number]

    def _numbers(self, raw: Sequence[Any], where: str, unknown: str) -> tuple[np.ndarray, list[str]]:
        """Numbers of ids, int32, 0 for unknown ones, and these; RefusedError where they may not be."""
        catalog = self.served.catalog
        names = [str(each) for each in raw]
        numbers = np.fromiter((catalog.number(name) for name in names), np.int32, len(names))
        absent = list(dict.fromkeys(name for name, number in zip(names, numbers.tolist(), strict=True) if not number))
        if absent and unknown == "refuse":
            named = [{"id": name[:200], "nearest": catalog.nearest(name)} for name in absent[:NAMED]]
            shown = ", ".join(repr(each["id"]) for each in named) + (", ..." if len(absent) > NAMED else "")
            near = named[0]["nearest"]
            hint = f"; nearest to {named[0]['id']!r}: {', '.join(map(repr, near))}" if near else ""
            noun = "item" if len(absent) == 1 else "items"
            raise RefusedError("unknown_items", f"{where}: the catalog has no {noun} {shown}{hint}", named)
        return numbers, absent

    def _seen(self, distinct: np.ndarray) -> np.ndarray:
        return np.unique(distinct) if self.served.mask_seen == "history" else np.zeros(0, np.int32)

    def _limits(self, seen: np.ndarray, wish: dict[str, Any]) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
        """Items that may not be listed, the mask of those that may, and the unknown ids of both."""
        excluded, unknown = self._numbers(wish["exclude"], "exclude", wish["unknown"])
        hidden = np.union1d(seen, excluded[excluded > 0]).astype(np.int32)
        if wish["candidates"] is None:
            return hidden, None, unknown
        candidates, more = self._numbers(wish["candidates"], "candidates", wish["unknown"])
        allowed = np.zeros(len(self.served.catalog) + 1, bool)
        allowed[candidates] = True
        allowed[0] = False
        return hidden, allowed, [*unknown, *more]

    def _popular(self, k: int, hidden: np.ndarray, allowed: np.ndarray | None, unknown: list[str]) -> Answer:
        numbers = self.served.catalog.popular(k, hidden.tolist(), allowed)
        return Answer(self._rows(numbers, None), unknown, True)

    def _answer(self, found: Listed, unknown: list[str]) -> Answer:
        return Answer(self._rows(found.items, found.scores), unknown, False)

    def _rows(self, numbers: np.ndarray, scores: np.ndarray | None) -> list[dict[str, Any]]:
        values = [None] * len(numbers) if scores is None else scores.tolist()
        rows = zip(numbers.tolist(), values, strict=True)
        return [{"rank": rank, **self._item(number), "score": score} for rank, (number, score) in enumerate(rows, 1)]

    def _item(self, number: int) -> dict[str, str]:
        catalog = self.served.catalog
        return {"item_id": catalog.ids[number - 1], "title": catalog.titles[number - 1]}
