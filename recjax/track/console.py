"""Output of a run: a progress bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_WIDTH = 120
"""Columns of tables in files and pipes, which have no width of their own."""


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
        self._bar: Progress | None = None
        if self.console.is_terminal and not silent:
            self._bar = bar = Progress(
                TextColumn("step"),
                MofNCompleteColumn(),
                BarColumn(),
                TextColumn("{task.fields[numbers]}"),
                TimeRemainingColumn(),
                console=self.console,
            )
            self._task = bar.add_task("train", total=total, completed=step, numbers="")
            bar.start()

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, step: int) -> None:
        """Moves the bar."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Shows the numbers of a logged step."""
        text = describe(values)
        if self._bar is not None:
            self._bar.update(self._task, completed=step, numbers=text)
        else:
            self.line(f"step {step}/{self._total}  {text}{self._eta(step)}")

    def line(self, text: str) -> None:
        """Prints a line, above the bar where there is one."""
        self.console.print(text, markup=False, soft_wrap=True)

    def _eta(self, step: int) -> str:
        """Time left at the pace since the first line: by then everything is compiled."""
        now = time.perf_counter()
        if self._first is None:
            self._first = step, now
            return ""
        first, began = self._first
        return f"  ETA {_duration((now - began) / max(step - first, 1) * (self._total - step))}"


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
