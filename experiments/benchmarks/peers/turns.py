"""Turns of the benchmarked processes: each trains a block when told to, reports, and sleeps until the next turn.

A driver is started as `python DRIVER SETTINGS.json`. It sets up, makes its warm-up steps, and says `ready`; then it
answers one line of JSON with one line of JSON:

    {"do": "train", "seconds": 10}           trains for about so long       -> steps, targets, seconds, cpu_seconds ...
    {"do": "recommend", "out": "lists.npy"}  ten unseen items for everyone  -> users, seconds, cpu_seconds ...
    {"do": "stop"}

Everything else that a library prints goes to standard error. Only NumPy is needed, so that all environments share this
file; it knows neither recjax nor any peer.
"""

import contextlib
import importlib.metadata
import itertools
import json
import os
import sys
import time
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np


def _born() -> float:
    ticks = float(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))


BORN = _born()
"""Start of this process in unix seconds: imports made before this file count too."""


@dataclass(frozen=True)
class Settings:
    """Settings that all sides train by: the same network, loss and data.

    Attributes:
        events: csv of interactions, `user,item,timestamp`, sorted; users from 0 and items from 1 without gaps;
            timestamps are 0, 1, 2, ... so that no library can reorder tied events.
        items: catalog size.
        length: most recent interactions that a model sees.
        width: model width, also inside the feed-forward network.
        layers: blocks.
        heads: attention heads.
        dropout: rate.
        norm: placement of the normalisations on our side; the peers have the paper's.
        batch: users of a padded batch.
        loss: "full" (softmax over all items), "sampled" (softmax against `negatives`), or "bce" (one negative).
        negatives: of the sampled softmax, shared by the positions of a user where the library can.
        learning_rate: of Adam.
        warmup: steps before the first block; the first of them compiles.
        threads: CPU threads.
        seed: of everything.
        list_length: items of a recommended list.
        extra: settings of one side alone.
        table: npz with `codes` int32 [items + 1, slots] and `vectors` float32 [items + 1, d] where items have them.
        vocabulary: tokens of such a system, padding included.
    """

    events: str
    items: int
    length: int = 200
    width: int = 64
    layers: int = 2
    heads: int = 2
    dropout: float = 0.2
    norm: str = "sasrec"
    batch: int = 128
    loss: str = "full"
    negatives: int = 256
    learning_rate: float = 1e-3
    warmup: int = 5
    threads: int = 2
    seed: int = 0
    list_length: int = 10
    extra: str = ""
    table: str = ""
    vocabulary: int = 0

    @classmethod
    def read(cls, path: str) -> "Settings":
        values = json.loads(Path(path).read_text())
        return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})


def histories(path: str) -> tuple[np.ndarray, np.ndarray]:
    """(offsets int64 [users + 1], items int64 [events]) of a csv sorted by user and time."""
    events = np.loadtxt(path, dtype=np.int64, delimiter=",", skiprows=1, ndmin=2)
    users = events[:, 0]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(users))])
    return offsets, events[:, 1]


def padded(offsets: np.ndarray, items: np.ndarray, length: int) -> np.ndarray:
    """int64 [users, length]: the last items of each history at the right, 0 before them."""
    rows = np.zeros((len(offsets) - 1, length), np.int64)
    for user, (start, stop) in enumerate(itertools.pairwise(offsets)):
        kept = items[max(start, stop - length) : stop]
        rows[user, length - len(kept) :] = kept
    return rows


def memory_peak() -> int:
    """Most bytes of this process in memory since the last `forget_peak`, or since its start."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def forget_peak() -> None:
    """Measures the peak anew from here, where the system allows it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


class Block:
    """The figures of one turn."""

    def __init__(self, seconds: float):
        self.limit = seconds
        self.steps = self.targets = self.positions = 0
        self.waited = 0.0
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def add(self, targets: int, positions: int, waited: float = 0.0) -> None:
        """One step: supervised targets, positions of the batch, seconds spent waiting for data."""
        self.steps += 1
        self.targets += targets
        self.positions += positions
        self.waited += waited

    @property
    def over(self) -> bool:
        return time.perf_counter() - self._wall >= self.limit

    def result(self) -> dict:
        return {
            "steps": self.steps,
            "targets": self.targets,
            "positions": self.positions,
            "seconds": time.perf_counter() - self._wall,
            "cpu_seconds": time.process_time() - self._cpu,
            "waited": self.waited,
            "peak_bytes": memory_peak(),
        }


class Turns:
    """The child's end of the line. Make it before a library prints anything."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self.started = BORN

    def say(self, message: dict) -> None:
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()

    def ready(self, *packages: str, **facts: float | int | str | None) -> None:
        """After the warm-up: seconds since the process started, versions, and whatever else is worth a line."""
        versions = {name: importlib.metadata.version(name) for name in packages}
        forget_peak()
        self.say({"ready": time.time() - self.started, "versions": versions, **facts})

    def next(self) -> dict:
        """Sleeps until it is this side's turn."""
        line = sys.stdin.readline()
        return json.loads(line) if line else {"do": "stop"}


class Turned:
    """For libraries that own their loop: `step` is called after every batch, and holds the loop between turns.

    Args:
        turns: the line to the parent.
        warmup: steps before the first turn.
        ready: called once after them, without arguments.
        recommend: called with the name of a file to write, or None; returns what to reply.
    """

    def __init__(self, turns: Turns, warmup: int, ready, recommend):
        self._turns, self._left, self._ready, self._recommend = turns, warmup, ready, recommend
        self._block: Block | None = None
        self.stopped = False

    def step(self, targets: int, positions: int, waited: float = 0.0) -> None:
        if self._block is None:
            self._left -= 1
            if self._left <= 0:
                self._ready()
                self._wait()
            return
        self._block.add(targets, positions, waited)
        if self._block.over:
            self._turns.say(self._block.result())
            self._wait()

    def _wait(self) -> None:
        while True:
            command = self._turns.next()
            if command["do"] == "recommend":
                self._turns.say(self._recommend(command.get("out")))
            elif command["do"] == "train":
                self._block = Block(command["seconds"])
                return
            else:
                self.stopped = True
                return


class StoppedError(Exception):
    """Ends a loop that a library owns."""


class Held:
    """A loader, read over and over, that holds the loop which reads it between turns.

    Args:
        loader: of one epoch.
        turned: the turns.
        count: (targets, positions) of a batch.
    """

    def __init__(self, loader, turned: Turned, count):
        self._loader, self._turned, self._count = loader, turned, count

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self):
        while True:
            batches = iter(self._loader)
            while True:
                asked = time.perf_counter()
                batch = next(batches, None)
                waited = time.perf_counter() - asked
                if batch is None:
                    break
                yield batch
                targets, positions = self._count(batch)
                self._turned.step(targets, positions, waited)
                if self._turned.stopped:
                    raise StoppedError


def timed_lists(make, out: str | None) -> dict:
    """Runs `make() -> [users, k]`, saves what it made outside the measured time, and says how long it took."""
    block = Block(0.0)
    lists = make()
    result = block.result()
    if out:
        np.save(out, lists, allow_pickle=False)
    return {"users": len(lists), **{key: result[key] for key in ("seconds", "cpu_seconds", "peak_bytes")}}
