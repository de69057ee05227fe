"""Stopping on request: SIGTERM, SIGHUP and SIGINT ask the loop to save and return."""

import contextlib
import os
import signal
import threading
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils


class Interrupt:
    """While entered, SIGTERM, SIGHUP and SIGINT do not end the process but are remembered; more of them change nothing.

    SIGINT does so only once `armed`: before the first step there is nothing to save, and who presses Ctrl-C while a
    dataset is prepared wants the prompt back. A signal that was ignored before, as SIGHUP under `nohup`, stays so.

    On one process a flag is enough. On several, all must stop after the same step: JAX's preemption service listens
    for SIGTERM on every process and agrees on the step, so SIGTERM is left to it and the others handed on to it.
    """

    def __init__(self) -> None:
        self.armed = False
        self._requested = False
        self._previous: dict[signal.Signals, Any] = {}
        self._terminals: list[int] = []

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            several = jax.process_count() > 1
            self._terminals = [number for number in (1, 2) if os.isatty(number)]
            for number in (signal.SIGINT, signal.SIGHUP) if several else (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._hand_on if several else self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def requested(self, step: int) -> bool:
        """True if the run has to stop now; every process calls this once after every step and gets the same answer."""
        if jax.process_count() == 1:
            return self._requested
        return multihost_utils.reached_preemption_sync_point(step)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and not self.armed:
            signal.default_int_handler(number, frame)
        if number == signal.SIGHUP:
            self._leave_terminal()
        self._requested = True

    def _hand_on(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and not self.armed:
            signal.default_int_handler(number, frame)
        if number == signal.SIGHUP:
            self._leave_terminal()
        os.kill(os.getpid(), signal.SIGTERM)

    def _leave_terminal(self) -> None:
        """Prints go nowhere from now on: on a terminal that is gone they would be errors, and stop the save."""
        for number in self._terminals:
            with contextlib.suppress(OSError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, number)
                os.close(null)
        self._terminals = []
