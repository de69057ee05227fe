"""Runs the cells of an ablation, each in its own process, side by side where there are more devices than one needs."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from recjax.compare.ablation import Cell, State
from recjax.evaluate.report import EVALUATION
from recjax.train.folder.run_folder import check_config
from recjax.typing import InputError

LOG = "output.log"
LOCK = ".lock"
POLL_SECONDS = 0.2
TAIL_BYTES = 8192
TPU_BOUNDS = {1: "1,1,1", 2: "1,2,1", 4: "2,2,1"}
"""Shape of the chips of a process, by their number, as JAX's own tests of several processes on a TPU host have it."""

PROBE = """
import json, jax
from recjax.parallel.startup import initialize
initialize()
found = jax.local_devices()
print(json.dumps({"platform": found[0].platform, "kind": found[0].device_kind, "count": len(found)}))
"""


@dataclass(frozen=True)
class Devices:
    """Devices of this host.

    Attributes:
        platform: "cpu", "gpu" or "tpu".
        kind: its name.
        count: how many.
    """

    platform: str
    kind: str
    count: int


def probe() -> Devices:
    """Asks a process of its own: one that has looked holds the devices, and the cells could not have them.

    Raises:
        InputError: there are no devices that work.
    """
    ended = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=False)
    if ended.returncode:
        raise InputError(f"JAX finds no device here: {(ended.stderr.strip().splitlines() or ['no message'])[-1]}")
    return Devices(**json.loads(ended.stdout.splitlines()[-1]))


def slices(devices: Devices, per_cell: int | None) -> list[dict[str, str]]:
    """Environments of processes that may run at the same time, each with devices of its own.

    Args:
        devices: of the host.
        per_cell: devices of each; None for all of them, one cell at a time.

    Raises:
        InputError: there are fewer devices, or TPU chips that cannot be divided so.
    """
    if per_cell is None:
        return [{}]
    if not 1 <= per_cell <= devices.count:
        raise InputError(f"--devices-per-cell {per_cell}: there are {devices.count} x {devices.kind}")
    numbers = list(range(devices.count))
    if devices.platform == "gpu" and (visible := os.environ.get("CUDA_VISIBLE_DEVICES")):
        numbers = visible.split(",")
    groups = [numbers[start : start + per_cell] for start in range(0, devices.count - per_cell + 1, per_cell)]
    return [_environment(devices.platform, ",".join(map(str, group)), per_cell) for group in groups]


def _environment(platform: str, group: str, count: int) -> dict[str, str]:
    if platform == "cpu":
        return {"JAX_NUM_CPU_DEVICES": str(count)}
    if platform == "gpu":
        return {"CUDA_VISIBLE_DEVICES": group}
    if count not in TPU_BOUNDS:
        raise InputError(f"--devices-per-cell {count}: TPU chips are divided into 1, 2 or 4")
    return {
        "TPU_VISIBLE_CHIPS": group,
        "TPU_CHIPS_PER_PROCESS_BOUNDS": TPU_BOUNDS[count],
        "TPU_PROCESS_BOUNDS": "1,1,1",
        "TPU_SKIP_MDS_QUERY": "1",  # alone, whatever the host's metadata say
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }


class Process(Protocol):
    """A cell under way; `subprocess.Popen` is one."""

    def poll(self) -> int | None: ...

    def terminate(self) -> None: ...


Start = Callable[[Cell, Mapping[str, str], Path], Process]
"""(cell, environment, file for what it prints) -> its process."""


def start_process(cell: Cell, environment: Mapping[str, str], log: Path) -> Process:
    """The cell's command by this interpreter, in a session of its own: Ctrl-C reaches us alone, and we pass it on."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "recjax", *cell.arguments],
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            close_fds=False,  # it holds the lock too, should we be killed
        )


@contextmanager
def locked(out: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Holds the ablation's folder, waiting for whoever does: another command, or a cell that a killed one has left."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / LOCK).open("a+") as file:
        os.set_inheritable(file.fileno(), True)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another `recjax ablate` in {out}, or a cell that it has left running")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


class _Asked:
    """While entered, SIGINT, SIGTERM and SIGHUP are remembered instead of ending the process; `nohup` holds."""

    def __init__(self) -> None:
        self.to_stop = False

    def __enter__(self) -> "_Asked":
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
        self._previous: dict[int, Any] = {number: signal.signal(number, self._remember) for number in heard}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _remember(self, *_: object) -> None:
        self.to_stop = True


@dataclass
class _Running:
    cell: Cell
    process: Process
    began: float
    evaluated: int | None


def run_cells(
    cells: Sequence[Cell],
    environments: Sequence[Mapping[str, str]],
    *,
    machine: str,
    commit: str,
    say: Callable[[str], None],
    show: Callable[[str], None],
    start: Start = start_process,
) -> bool:
    """Runs the cells that are not finished; whether it came to the end. A cell that fails does not stop the others.

    Args:
        cells: of the ablation.
        environments: one for each process that may run at a time, see `slices`.
        machine: kept with each cell.
        commit: kept with each cell.
        say: prints a line.
        show: shows how far the running cells are, again and again.
        start: starts a cell.
    """
    pending = deque(cell for cell in cells if cell.state().status != "finished")
    free, running = deque(range(len(environments))), dict[int, _Running]()
    if done := len(cells) - len(pending):
        say(f"{done} of {len(cells)} cells are finished and left alone")
    with _Asked() as asked:
        told = False
        while running or (pending and not asked.to_stop):
            while pending and free and not asked.to_stop:
                cell, place = pending.popleft(), free.popleft()
                say(f"{cell.name}: {cell.command}")
                cell.folder.mkdir(parents=True, exist_ok=True)
                began, evaluated = time.monotonic(), _written(cell)
                process = start(cell, environments[place], cell.folder / LOG)
                running[place] = _Running(cell, process, began, evaluated)
            if asked.to_stop and not told:
                told = True
                say("stopping: the running cells save and end")
                for each in running.values():
                    each.process.terminate()
            time.sleep(POLL_SECONDS)
            for place, each in list(running.items()):
                if (status := each.process.poll()) is not None:
                    del running[place]
                    free.append(place)
                    state = _ended(each, status, asked.to_stop)
                    each.cell.keep(replace(state, machine=machine, commit=commit))
                    say(f"{each.cell.name}: {_told(each.cell, state)}")
            show("   ".join(f"{each.cell.name} {_last_step(each.cell)}" for each in running.values()))
    return not (pending or asked.to_stop)


def _written(cell: Cell) -> int | None:
    path = cell.folder / EVALUATION
    return path.stat().st_mtime_ns if path.is_file() else None


def _ended(run: _Running, status: int, asked: bool) -> State:
    """The state of a cell whose process has ended with an exit status, or a signal's number below zero."""
    state, written = run.cell.state(), _written(run.cell)
    state = replace(state, seconds=state.seconds + time.monotonic() - run.began, message="")
    if status == 0 and written is not None and written != run.evaluated:
        try:
            check_config(run.cell.folder, run.cell.config)
        except InputError as error:
            return replace(state, status="failed", message=f"the recipe changed meanwhile: {error}")
        return replace(state, status="finished")
    if status == 0 or asked:
        return replace(state, status="stopped")
    return replace(state, status="failed", message=_reason(run.cell, status))


def _reason(cell: Cell, status: int) -> str:
    lines = [line for line in _tail(cell).splitlines() if line.strip()]
    own = [line for line in lines if line.startswith("recjax train: ")]
    if own:
        return own[-1].removeprefix("recjax train: ")
    if status == -signal.SIGKILL:
        return "killed (SIGKILL), as the system does when memory runs out"
    ended = f"ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    return f"{ended}: {lines[-1].strip()}" if lines else ended


def _told(cell: Cell, state: State) -> str:
    if state.status == "failed":
        return f"failed: {state.message} ({cell.folder / LOG})"
    if state.status == "stopped":
        return "stopped, resumes with the same command"
    metrics = json.loads((cell.folder / EVALUATION).read_text())["metrics"]["all"]
    shown = [name for name in ("ndcg@10", "hr@10") if name in metrics] or list(metrics)[:2]
    return f"finished in {state.seconds:.0f} s, {', '.join(f'{name} {metrics[name]:.4f}' for name in shown)}"


def _last_step(cell: Cell) -> str:
    steps = [line for line in _tail(cell).splitlines() if line.startswith("step ")]
    return steps[-1] if steps else "starts"


def _tail(cell: Cell) -> str:
    path = cell.folder / LOG
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        return file.read().decode(errors="replace")
