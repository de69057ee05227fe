"""Starts of a run, in its folder: the command, the machine, the version and the time, a line of JSON each."""

import json
import shlex
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from recjax.track.machine import commit

STARTS = "starts.jsonl"


@dataclass(frozen=True)
class Start:
    """One process that worked on a run; of several at once, the first.

    Attributes:
        time: when it began to train, UTC, `2026-11-29 14:33`.
        step: steps taken before.
        command: as typed; empty where training was started from Python.
        machine: devices, and the host's processor.
        recjax: version, and commit where it is known.
    """

    time: str
    step: int
    command: str
    machine: str
    recjax: str


def add_start(run_dir: Path, step: int, machine: str) -> None:
    """Adds this process; the folder has to be there."""
    time = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
    start = Start(time, step, _command(), machine, commit())
    with (run_dir / STARTS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(start)) + "\n")


def read_starts(run_dir: Path) -> list[Start]:
    """The starts, oldest first; none for a run of an earlier version. Lines that are no start are left out."""
    path = run_dir / STARTS
    if not path.is_file():
        return []
    return [start for line in path.read_bytes().splitlines() if (start := _start(line)) is not None]


def _start(line: bytes) -> Start | None:
    try:
        start = Start(**json.loads(line))
    except (ValueError, TypeError, RecursionError):
        return None
    whole = isinstance(start.step, int) and all(isinstance(v, str) for k, v in vars(start).items() if k != "step")
    return start if whole else None


def _command() -> str:
    """The command line of this process; empty where it is not recjax's."""
    program = Path(sys.argv[0])
    ours = program.name == "recjax" or program.parts[-2:] == ("recjax", "__main__.py")
    return shlex.join(["recjax", *sys.argv[1:]]) if ours else ""
