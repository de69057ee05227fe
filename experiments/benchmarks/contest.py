"""Runs recjax and its peers by turns on one machine: the parent's end of `peers/turns.py`, and what all tables share.

All sides are set up first, each in its own process and environment; then they take turns, so that whatever else the
machine does, and however its clock drifts, hits all alike. A side that waits for its turn uses no processor time.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

FOLDER = Path(__file__).resolve().parent
REPOSITORY = FOLDER.parent.parent
sys.path.insert(0, str(REPOSITORY))  # also where recjax is not installed

from recjax.data.store.prepared import find  # noqa: E402

PEERS = {
    "torch": "torch",
    "rectools": "rectools",
    "replay": "replay",
    "faiss": "faiss",
    "sentence_transformers": "texts",
    "onnx": "texts",
    "icsrec": "authors",
    "sracl": "authors",
    "letter": "authors",
}
"""Driver of a side -> its environment. A side is called after its driver, and after a hyphen what is special about it:
"torch-compact" makes logits only where there is a target."""

CONSOLE = Console(width=None if sys.stdout.isatty() else 150)


@dataclass(frozen=True)
class Prepared:
    """A dataset as every side reads it: all events of a user but the last, which tests.

    Attributes:
        name: of the dataset.
        fingerprint: of the dataset.
        events: the csv.
        items: catalog size.
        targets: int32 [users], the last item of each user.
        lengths: int64 [users], events in the csv.
    """

    name: str
    fingerprint: str
    events: Path
    items: int
    targets: np.ndarray
    lengths: np.ndarray


def prepare(name: str, folder: Path) -> Prepared:
    """Writes the csv that every side reads; its timestamps count events, so that ties cannot be broken differently."""
    dataset = find(name)
    lengths = np.diff(dataset.offsets)
    users = np.flatnonzero(lengths >= 3)
    keep = np.zeros(dataset.n_interactions, bool)
    for user in users:
        keep[dataset.offsets[user] : dataset.offsets[user + 1] - 1] = True
    rows = np.flatnonzero(keep)
    number = np.repeat(np.arange(len(users)), lengths[users] - 1)
    path = folder / f"{name.replace('/', '_')}.csv"
    columns = np.stack([number, dataset.items[rows], np.arange(len(rows))], axis=1)
    np.savetxt(path, columns, fmt="%d", delimiter=",", header="user,item,timestamp", comments="")
    targets = dataset.items[dataset.offsets[1:][users] - 1]
    return Prepared(dataset.name, dataset.fingerprint, path, dataset.n_items, targets, lengths[users] - 1)


def interpreter(name: str, peers: Path) -> Path:
    """The Python that runs a side."""
    driver = name.partition("-")[0]
    if driver not in ("recjax", *PEERS):
        raise SystemExit(f"no side is called {name!r}; there are: recjax, {', '.join(PEERS)}")
    python = Path(sys.executable) if driver == "recjax" else peers / PEERS[driver] / "bin" / "python"
    if not python.exists():
        raise SystemExit(f"{python} does not exist: make the environments with {FOLDER}/peers/setup.sh {peers}")
    return python


class Side:
    """One process, ours or a peer's.

    Args:
        name: "recjax" or a key of `PEERS`, and perhaps what is special about it.
        settings: what to train, see `peers/turns.py`.
        folder: for its settings and log.
        peers: folder of the peers' environments.
        system: what is trained: a driver's file is called after it and this.
    """

    def __init__(self, name: str, settings: dict[str, Any], folder: Path, peers: Path, system: str = "sasrec"):
        self.name = name
        driver, _, extra = name.partition("-")
        python = interpreter(name, peers)
        given = {**settings, "extra": extra}
        path = folder / f"{name}.json"
        path.write_text(json.dumps(given))
        self._log = folder / f"{name}.log"
        threads = str(given["threads"])
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        environment.pop("PYTHONPATH", None)
        if driver == "recjax":
            environment["PYTHONPATH"] = str(REPOSITORY)
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [str(python), str(FOLDER / "peers" / f"{driver}_{system}.py"), str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                text=True,
            )
        self.facts = self._answer()

    def train(self, seconds: float) -> dict[str, Any]:
        return self._ask({"do": "train", "seconds": seconds})

    def recommend(self, out: Path | None = None) -> dict[str, Any]:
        return self._ask({"do": "recommend", "out": None if out is None else str(out)})

    def close(self) -> None:
        if self._process.poll() is None:
            try:
                self._say({"do": "stop"})
                self._process.wait(60)
            except (BrokenPipeError, subprocess.TimeoutExpired):
                self._process.kill()

    def _say(self, command: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        self._say(command)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            tail = "\n".join(self._log.read_text().splitlines()[-15:])
            raise SystemExit(f"{self.name} ended with status {self._process.wait()}:\n{tail}")
        return json.loads(line)


@contextmanager
def sides(
    names: Sequence[str],
    settings: dict[str, Any],
    folder: Path,
    peers: Path,
    ours: dict[str, Any] | None = None,
    system: str = "sasrec",
) -> Iterator[list[Side]]:
    """Starts the sides one after another; `ours` are settings of recjax alone."""
    with ExitStack() as stack:
        started = []
        for name in names:  # before anything is started
            interpreter(name, peers)
        for name in names:
            CONSOLE.print(f"[dim]starting {name} ...[/dim]")
            given = {**settings, **(ours or {})} if name == "recjax" else settings
            side = Side(name, given, folder, peers, system)
            stack.callback(side.close)
            started.append(side)
        yield started


def by_turns(started: Sequence[Side], rounds: int) -> Iterator[tuple[int, Side]]:
    """(round, side), each round beginning with another side."""
    for number in range(rounds):
        first = number % len(started)
        for side in [*started[first:], *started[:first]]:
            yield number, side


def median(values: Sequence[float], form: str = ",.0f") -> str:
    """The median, and in brackets the smallest and the largest value."""
    if len(values) == 1:
        return f"{values[0]:{form}}"
    return f"{statistics.median(values):{form}} ({min(values):{form}}-{max(values):{form}})"


def ratios(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]], clock: str) -> list[float]:
    """Round by round, how many times as long the other side takes for the same work."""
    return [b[clock] / max(a[clock], 1e-9) for a, b in zip(ours, theirs, strict=True)]


def gigabytes(size: float) -> str:
    return f"{size / 2**30:.2f} GB" if size >= 2**30 / 10 else f"{size / 2**20:.0f} MB"


def arguments(description: str, names: Sequence[str]) -> argparse.ArgumentParser:
    """A parser with the options that all benchmarks of sides share."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    default = os.environ.get("RECJAX_PEERS", "~/.cache/recjax-peers")
    parser.add_argument("--peers", type=lambda x: Path(x).expanduser(), default=Path(default).expanduser())
    parser.add_argument("--sides", default=",".join(names), help="comma-separated; default %(default)s")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--norm", default="sasrec", help="of recjax; the peers have the paper's (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write every single measurement to this JSON file too")
    return parser


@contextmanager
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="recjax-benchmark-") as folder:
        yield Path(folder)


def load() -> float:
    """Number of processes that want the processor: above the number of threads, figures are not to be trusted."""
    return os.getloadavg()[0]


def machine() -> dict[str, Any]:
    """Hardware, versions and commit, for the record."""
    import jax

    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=REPOSITORY, capture_output=True, text=True, check=False)
        return done.stdout.strip() or "unknown"

    return {
        "cpu": models[0] if models else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": gigabytes(memory),
        "device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "commit": git("describe", "--always", "--dirty", "--abbrev=10"),
        "load": round(load(), 2),
    }


def print_machine(facts: dict[str, Any], started: Sequence[Side] = ()) -> None:
    CONSOLE.print("  ".join(f"{name} {value}" for name, value in facts.items()))
    for side in started:
        versions = ", ".join(f"{name} {version}" for name, version in side.facts["versions"].items())
        rest = {k: v for k, v in side.facts.items() if k not in ("versions", "ready")}
        shown = ", ".join(f"{k} {round(v, 2) if isinstance(v, float) else v}" for k, v in rest.items())
        CONSOLE.print(f"[dim]{side.name}: {versions}; ready after {side.facts['ready']:.1f} s; {shown}[/dim]")


def table(title: str, columns: Sequence[str]) -> Table:
    shown = Table(title=title, title_justify="left")
    shown.add_column(columns[0])
    for column in columns[1:]:
        shown.add_column(column, justify="right")
    return shown


def save(path: Path | None, record: dict[str, Any]) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        partial.write_text(json.dumps(record, indent=1))
        partial.replace(path)
