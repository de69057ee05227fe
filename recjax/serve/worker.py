"""One thread that owns the device: what waits while it computes is answered together in its next batch."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from recjax.serve.programs import SIZES, Query

Lists = Callable[[Sequence[Query]], Sequence[Any]]
"""Queries -> an answer each, or an exception in its place."""


class BusyError(RuntimeError):
    """So much waits already that one more request would wait for too long."""


class StoppedError(RuntimeError):
    """The server is about to end and takes nothing more."""


class Worker:
    """A thread that runs actions and ranks queries, in batches of what has come in meanwhile.

    A lone query is answered at once: nothing waits for others to join it.

    Args:
        lists: ranks some queries.
        waiting: most requests that wait.
        observe: called with the size and the seconds of each batch.

    Attributes:
        stopped: nothing more is taken.
    """

    def __init__(self, lists: Lists, waiting: int, observe: Callable[[int, float], None] = lambda size, seconds: None):
        self._lists, self._observe = lists, observe
        self._jobs: queue.Queue[tuple[Callable[[], Any], bool, Future] | None] = queue.Queue(waiting)
        self.stopped = False
        self._thread = threading.Thread(target=self._work, name="recjax-ranking", daemon=True)

    def start(self) -> None:
        """Begins to answer."""
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests that wait, about."""
        return self._jobs.qsize()

    def ask(self, query: Callable[[], Query]) -> Future:
        """Answer of `lists` to a query; `query` makes it in the thread, after the actions that came in before."""
        return self._put(query, True)

    def run(self, action: Callable[[], Any]) -> Future:
        """Result of an action, which runs in the thread by itself."""
        return self._put(action, False)

    def stop(self) -> None:
        """Answers what waits, then ends the thread."""
        self.stopped = True
        self._jobs.put(None)
        self._thread.join()

    def _put(self, job: Callable[[], Any], ranks: bool) -> Future:
        if self.stopped:
            raise StoppedError
        future: Future = Future()
        try:
            self._jobs.put_nowait((job, ranks, future))
        except queue.Full:
            raise BusyError from None
        return future

    def _work(self) -> None:
        ended = False
        while not ended:
            jobs = [self._jobs.get()]
            while len(jobs) < SIZES[-1]:
                try:
                    jobs.append(self._jobs.get_nowait())
                except queue.Empty:
                    break
            ended = None in jobs
            self._answer([job for job in jobs if job is not None and job[2].set_running_or_notify_cancel()])

    def _answer(self, jobs: list[tuple[Callable[[], Any], bool, Future]]) -> None:
        queries, futures = [], []
        for job, ranks, future in sorted(jobs, key=lambda job: job[1]):  # actions first
            try:
                made = job()
            except Exception as error:  # whatever it is, it belongs to the one who has sent the request
                future.set_exception(error)
                continue
            if ranks:
                queries.append(made)
                futures.append(future)
            else:
                future.set_result(made)
        if not queries:
            return
        start = time.perf_counter()
        try:
            answers = self._lists(queries)
        except Exception as error:
            answers = [error] * len(queries)
        self._observe(len(queries), time.perf_counter() - start)
        for future, answer in zip(futures, answers, strict=True):
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
