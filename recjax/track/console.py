"""Output of a run: a progress bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn, track

T = TypeVar("T")

PLAIN_WIDTH = 120
"""Columns of tables in files and pipes, which have no width of their own."""

QUIET_SECONDS = 30.0
"""Longest silence without a terminal, as far as steps and batches end within it."""


class Reporter:
    """Shows how a run goes. Only the first process should make one that is not silent.

    Args:
        total: steps of the whole run.
        step: steps already taken.
        silent: print nothing.
        console: where to print, by default standard output.
    """

    def __init__(self, total: int, step: int = 0, *, silent: bool = False, console: Console | None = None):
        self.console = console or Console(quiet=silent, highlight=False)
        if console is None and not self.console.is_terminal:
            self.console.width = PLAIN_WIDTH
        self._total = total
        self._first: tuple[int, float] | None = None
        self._shown = time.monotonic()
        self._bar: Progress | None = None
        if self.console.is_terminal and not silent:
            self._bar = bar = Progress(
                TextColumn("step"),
                MofNCompleteColumn(),
                BarColumn(),
                TextColumn("{task.fields[numbers]}"),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
            )
            self._task = bar.add_task("train", total=total, completed=step, numbers="")
            bar.start()

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def doing(self, what: str) -> None:
        """Says what takes time before the next step, "" for nothing: beside the bar, or in a line."""
        if self._bar is not None:
            self._bar.update(self._task, numbers=what, refresh=True)
        elif what:
            self.line(what)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Takes the bar away while something else shows its own."""
        if self._bar is not None:
            self._bar.stop()
        yield
        if self._bar is not None:
            self._bar.start()

    def step(self, step: int) -> None:
        """Moves the bar."""
        if self._first is None:  # what was compiled for it is not in the time left
            self._first = step, time.monotonic()
            self._shown = time.monotonic()
            self.doing("")
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    @property
    def due(self) -> bool:
        """True if nothing was shown for `QUIET_SECONDS`."""
        return time.monotonic() - self._shown >= QUIET_SECONDS

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Shows the numbers of a step."""
        self._shown, text = time.monotonic(), describe(values)
        if self._bar is not None:
            self._bar.update(self._task, completed=step, numbers=text)
        else:
            self.line(f"step {step}/{self._total}  {text}{self._eta(step)}")

    def line(self, text: str) -> None:
        """Prints a line, above the bar where there is one."""
        self._shown = time.monotonic()
        self.console.print(text, markup=False, soft_wrap=True)

    def _eta(self, step: int) -> str:
        """Time left at the pace since the first step."""
        if self._first is None or step <= self._first[0]:
            return ""
        first, began = self._first
        return f"  ETA {_duration((time.monotonic() - began) / (step - first) * (self._total - step))}"


def tracked(iterable: Iterable[T], total: int, label: str, show: bool = True) -> Iterable[T]:
    """The same elements behind a progress bar on standard error, of the first process.

    Where that is no terminal, there is a line about every `QUIET_SECONDS`: `ranking 45 %, 1:20 left`.

    Args:
        iterable: what is worked on.
        total: elements.
        label: of the work.
        show: False for the elements alone.
    """
    if not show or jax.process_index() != 0:
        return iterable
    if sys.stderr.isatty():
        return track(iterable, f"{label:>12}", total, console=Console(stderr=True), transient=True)
    return _with_lines(iterable, total, label)


def _with_lines(iterable: Iterable[T], total: int, label: str) -> Iterator[T]:
    began = shown = time.monotonic()
    for done, element in enumerate(iterable, 1):
        yield element
        now = time.monotonic()
        if now - shown >= QUIET_SECONDS and done < total:
            left = _duration((now - began) / done * (total - done))
            print(f"{label} {done / total:.0%}, {left} left", file=sys.stderr, flush=True)
            shown = now


def describe(values: Mapping[str, float]) -> str:
    """Numbers of a training step in one line: loss, speed, share of time spent waiting for data."""
    parts = []
    if "loss" in values:
        parts.append(f"loss {values['loss']:.4f}")
    if "interactions_per_second" in values:
        parts.append(f"{values['interactions_per_second']:,.0f} interactions/s")
    if "data_wait" in values:
        parts.append(f"data wait {values['data_wait']:.1%}")
    return "  ".join(parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
