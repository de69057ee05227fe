"""Wall time of a run by purpose, over all the processes that have worked on it one after the other."""

import os
import time
from collections.abc import Iterable
from pathlib import Path

from recjax.track.metrics import read_metrics

KINDS = {
    "step": "training steps",
    "data": "waiting for batches",
    "init": "start of the process to the first step: imports, joining, dataset, restoring",
    "compile": "the first step of each start",
    "evaluation": "validation, its compilation included",
    "refresh": "refreshes of frozen parameters, their compilation included",
    "checkpoint": "the part of saving that training waits for",
    "restart": "steps, and what went with them, that were lost with a process and done again",
}
"""Purposes that time is spent on; each second of a process on one of them."""

_REDONE = ("step", "data", "evaluation", "refresh", "checkpoint")
_PREFIX = "goodput/"
_begun = False


class Goodput:
    """Seconds by kind.

    Attributes:
        seconds: kind -> seconds so far.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(KINDS, 0.0)
        self._since = _first_moment()

    def spent(self, kind: str) -> None:
        """Counts all time since the last call as spent on this kind."""
        now = time.perf_counter()
        self.seconds[kind] += now - self._since
        self._since = now

    def resume(self, folder: Path, step: int) -> None:
        """Adds what earlier processes spent, by the log of the run; called before the log forgets what was lost.

        Args:
            folder: of the run.
            step: step from which it resumes: what was done after it was lost.
        """
        last, kept = _read(folder), _read(folder, step)
        for kind in KINDS:
            redone = last[kind] - kept[kind] if kind in _REDONE else 0.0
            self.seconds[kind] += last[kind] - redone
            self.seconds["restart"] += redone

    def values(self) -> dict[str, float]:
        """Name -> seconds, for the log; what took no time is left out."""
        return {f"{_PREFIX}{kind}": value for kind, value in self.seconds.items() if value}

    def line(self) -> str:
        """The share of each kind, in a line."""
        return _line(self.seconds)


def goodput_line(folder: Path) -> str | None:
    """The line of a run that has started, by its log; None for one that has logged no times."""
    seconds = _read(folder) if (folder / "metrics.jsonl").exists() else {}
    return _line(seconds) if any(seconds.values()) else None


def _line(seconds: dict[str, float]) -> str:
    total = sum(seconds.values())
    shares = ", ".join(f"{kind} {value / total:.1%}" for kind, value in seconds.items() if value)
    return f"goodput {seconds['step'] / total:.1%} of {total:,.0f} s: {shares}"


def _read(folder: Path, until: float = float("inf")) -> dict[str, float]:
    """Seconds by kind as the log has them up to a step."""
    curves = read_metrics(folder) if (folder / "metrics.jsonl").exists() else {}
    return {kind: _last(curves.get(f"{_PREFIX}{kind}", ()), until) for kind in KINDS}


def _last(curve: Iterable[tuple[int, float]], until: float) -> float:
    return max((value for step, value in curve if step <= until), default=0.0)


def _first_moment() -> float:
    """Now, by `time.perf_counter`; for the first run of a process the start of the process, where Linux tells it."""
    global _begun
    now, first, _begun = time.perf_counter(), not _begun, True
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError):
        return now
    return now - age if first else now
