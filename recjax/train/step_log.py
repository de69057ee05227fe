"""Log of step metrics, read one step late so that the device never waits for the host."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax

from recjax.models.model import WeightedSums
from recjax.track.console import Reporter
from recjax.track.goodput import Goodput
from recjax.track.memory import peak_memory
from recjax.track.metrics import MetricLog
from recjax.train.folder.progress import Progress
from recjax.train.schedule import Calendar

SECONDS = "train_seconds"
"""Name in the log of the seconds spent on steps since the run began, over all the processes that it took."""


class NonFiniteError(ArithmeticError):
    """A step whose loss or gradient was infinite or not a number.

    Attributes:
        step: its number, counted from 1.
        loss: its loss.
        norm: its gradient's norm.
    """

    def __init__(self, step: int, loss: float, norm: float):
        super().__init__(step, loss, norm)
        self.step, self.loss, self.norm = step, loss, norm


class Journal:
    """Collects the sums of steps, and logs their means and the speed when the calendar says so.

    Args:
        progress: carries the sums from line to line, and through checkpoints.
        calendar: says which steps are logged.
        log: where lines go, None on processes that do not write.
        reporter: what the user sees.
        goodput: counts where time goes.
    """

    def __init__(
        self, progress: Progress, calendar: Calendar, log: MetricLog | None, reporter: Reporter, goodput: Goodput
    ):
        self._progress, self._calendar, self._log, self._reporter = progress, calendar, log, reporter
        self._goodput, self._compiled = goodput, False
        self._pending: tuple[int, WeightedSums] | None = None
        self._warm = False
        self._spent = log.resumed.get(SECONDS, 0.0) if log is not None else 0.0
        self.restart()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time inside as waiting for data."""
        self._goodput.spent("step")
        began = time.perf_counter()
        yield
        self._waited += time.perf_counter() - began
        self._goodput.spent("data")

    def push(self, step: int, sums: WeightedSums, last: bool = False) -> None:
        """Takes the sums of a step under way and reads those of the step before; if `last`, reads both.

        After a `last` step the log also has what the run has cost so far: seconds spent on steps, the first of each
        process and what stands between steps (validation, checkpoints) left out, and the process's peak memory.

        Raises:
            NonFiniteError: a step that was read was not finite.
        """
        if not self._compiled:
            self._compiled = True
            self._goodput.spent("compile")
        with jax.transfer_guard_device_to_host("allow"):  # the guard would take this for an oversight
            for leaf in jax.tree.leaves(sums):
                leaf.copy_to_host_async()
        self._read()
        self._pending = step, sums
        if last:
            self._read()
            self._count()
            if self._log is not None:
                self._log.write(step, {SECONDS: self._spent, **peak_memory()})

    def validated(self, step: int, metrics: dict[str, float], metric: str, better: bool) -> None:
        """Logs and shows a validation."""
        if self._log is not None:
            self._log.write(step, {f"validation/{name}": value for name, value in metrics.items()})
        note = "  best so far" if better else f"  best {self._progress.best_value:.4f} at {self._progress.best_step}"
        self._reporter.line(f"step {step}  validation {metric} {metrics[metric]:.4f}{note}")

    def weighed(self, step: int, values: dict[str, float]) -> None:
        """Logs a change of the shares of a mixture, and shows the shares."""
        if self._log is not None:
            self._log.write(step, values)
        shares = [(name.rpartition("/")[2], value) for name, value in values.items() if "/share/" in name]
        self._reporter.line(f"step {step}  shares {', '.join(f'{name} {value:.2f}' for name, value in shares)}")

    def account(self, step: int) -> None:
        """Logs where time has gone so far."""
        if self._log is not None:
            self._log.write(step, self._goodput.values())

    def _read(self) -> None:
        if self._pending is None:
            return
        (step, pending), self._pending = self._pending, None
        sums: dict[str, Any] = jax.device_get(pending)
        loss, weight = sums["loss"]
        mean = float(loss) / max(float(weight), 1e-9)
        if not sums.pop("finite")[0]:
            if self._log is not None:
                self._log.write(step, {"non_finite": 1.0})
            raise NonFiniteError(step, mean, float(sums["grad_norm"][0]))
        self._progress.add(sums)
        self._targets += float(weight)
        self._reporter.step(step)
        if self._calendar.logs(step):
            self._write(step)
        elif self._reporter.due:
            self._reporter.numbers(step, {"loss": mean, **self._speed()})
        if not self._warm:  # the first step was compiled; the clock starts after it
            self._warm = True
            self.restart()

    def restart(self) -> None:
        """Starts the clock anew: what has passed since the last line was not spent on steps."""
        self._began, self._waited, self._targets = time.perf_counter(), 0.0, 0.0
        self._counted = self._began

    def _count(self) -> None:
        """Adds the time since the last count, compilation left out."""
        now = time.perf_counter()
        if self._warm:
            self._spent += now - self._counted
        self._counted = now

    def _speed(self) -> dict[str, float]:
        """Speed since the clock was started anew; nothing before the first step has been taken."""
        seconds = time.perf_counter() - self._began
        if not (self._warm and self._targets):
            return {}
        return {"interactions_per_second": self._targets / seconds, "data_wait": self._waited / seconds}

    def _write(self, step: int) -> None:
        self._count()
        values = self._progress.means() | self._speed()
        if self._log is not None:
            self._log.write(step, values)
        self.account(step)
        self._reporter.numbers(step, values)
        self.restart()
