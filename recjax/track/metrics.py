"""Metrics of a run as files: `metrics.jsonl`, one object a line, and TensorBoard event files."""

import json
import logging
import shutil
import time
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.summary import scalar

from recjax.files import replacing
from recjax.track.memory import DEVICE, HOST
from recjax.typing import InputError

OF_THE_LOOP = (
    "grad_norm",
    "learning_rate",
    "interactions_per_second",
    "data_wait",
    "non_finite",
    "train_seconds",
    HOST,
    DEVICE,
)
"""Names that the training loop logs itself; any other without a slash is a model's loss or a part of it."""

DAMAGED = ".damaged"
"""Ending of the copy of a log with lines that cannot be read."""


class MetricLog:
    """Appends to a run's `metrics.jsonl` and `tensorboard/`.

    A run that resumes at some step takes up the log there: lines of later steps, written by a process that was killed
    before its next checkpoint, are dropped, and so is a line that was cut short. A log with other lines that cannot be
    read never stops a run whose checkpoints are sound: a warning counts them, the log is copied to
    `metrics.jsonl.damaged`, and the other lines remain.

    Args:
        folder: of the run.
        step: step at which the run resumes; 0 starts an empty log.

    Attributes:
        resumed: the last value of each name up to that step.
    """

    def __init__(self, folder: Path, step: int):
        self._path = folder / "metrics.jsonl"
        lines, damaged = _lines(self._path) if step else ([], 0)
        kept = [line for line in lines if line["step"] <= step]
        self.resumed: dict[str, float] = {line["name"]: line["value"] for line in kept}
        if damaged:
            self._set_aside()
        with replacing(self._path) as new:
            new.write_text("".join(_dump(line) for line in kept), encoding="utf-8")
        self._file = self._path.open("a", encoding="utf-8")
        (folder / "tensorboard").mkdir(exist_ok=True)
        # Not tensorboardX's SummaryWriter: its thread ends on a full disk, and the run would wait for it for ever.
        self._board = EventsWriter(str(folder / "tensorboard" / "events"))
        if step:  # event files only grow; TensorBoard itself drops events at or after a start
            self._board.write_event(_event(step + 1, session_log=SessionLog(status=SessionLog.START)))

    def _set_aside(self) -> None:
        aside = self._path.with_name(self._path.name + DAMAGED)
        with replacing(aside) as new:
            shutil.copyfile(self._path, new)
        logging.getLogger(__name__).warning("the log as it was, with its damaged lines, is %s", aside)

    def __enter__(self) -> "MetricLog":
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        for file in (self._file, self._board):
            with suppress(OSError) if error else nullcontext():  # a full disk has been told of already
                file.close()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a line for each value; they are in the file when this returns."""
        self._file.write("".join(_dump({"step": step, "name": n, "value": float(v)}) for n, v in values.items()))
        self._file.flush()
        for name, value in values.items():
            self._board.write_event(_event(step, summary=scalar(name, value)))


def read_metrics(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The curves in a run's `metrics.jsonl`: name -> (step, value) pairs in order.

    Lines that cannot be read are left out, and a warning counts them.

    Raises:
        InputError: the run has none.
    """
    path = folder / "metrics.jsonl"
    if not path.exists():
        raise InputError(f"{path} does not exist, so {folder} is not the folder of a run that has started")
    curves: dict[str, list[tuple[int, float]]] = {}
    for line in _lines(path)[0]:
        curves.setdefault(line["name"], []).append((line["step"], line["value"]))
    return curves


def losses_of(curves: Mapping[str, Any]) -> list[str]:
    """Names of the loss and of the parts that a model reports beside it, among those of a run's curves."""
    parts = [name for name in curves if "/" not in name and name not in OF_THE_LOOP]
    return sorted(parts, key=lambda name: name != "loss")


def _event(step: int, **content: Any) -> Event:
    return Event(wall_time=time.time(), step=step, **content)


def _dump(line: Mapping[str, object]) -> str:
    return json.dumps(line) + "\n"


def _lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The entries of the log, and how many lines are none; a last line without an end, which a process killed while
    writing leaves, does not count."""
    if not path.exists():
        return [], 0
    *whole, last = path.read_bytes().split(b"\n")
    entries = [_entry(line) for line in whole if line]
    found = [entry for entry in [*entries, _entry(last)] if entry is not None]
    if damaged := entries.count(None):
        _warn(path, damaged)
    return found, damaged


@cache
def _warn(path: Path, damaged: int) -> None:
    """Says it once, although a start reads the log several times."""
    logging.getLogger(__name__).warning("%s: %d lines cannot be read and are left out", path, damaged)


def _entry(line: bytes) -> dict[str, Any] | None:
    """The step, name and value of a line; None where it holds anything else."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):  # no JSON, or no UTF-8
        return None
    if not isinstance(entry, dict):
        return None
    kinds = {"step": (int,), "name": (str,), "value": (int, float)}
    return entry if all(type(entry.get(key)) in kind for key, kind in kinds.items()) else None
