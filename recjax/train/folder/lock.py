"""Lock of a run folder: one job at a time.

A heartbeat in a file, which other hosts can read on a shared disk, and which lets them take over from a job that died;
libraries such as filelock hold for one host, or as far as the file system's own locks can be trusted.
"""

import contextlib
import json
import os
import sys
import threading
import time
import uuid
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import jax

from recjax.parallel.processes import host_name, share
from recjax.scratch import machine as _machine
from recjax.scratch import start_ticks as _start_ticks
from recjax.typing import InputError

LOCK = "lock.json"
BEAT, LIMIT = 10.0, 30.0
"""Seconds between signs of life, and without one after which a job elsewhere counts as dead."""


@dataclass(frozen=True)
class _Holder:
    """Holder of a run folder.

    Attributes:
        host: where its first process runs.
        pid: of that process.
        started: when it did, local time.
        machine: tells whether its pid means anything here: the boot and the namespace of pids, where Linux names them.
        ticks: start of the process since the boot, so that another process with the same pid is told apart.
        token: of this hold.
    """

    host: str
    pid: int
    started: str
    machine: str
    ticks: str
    token: str


class Lock:
    """Held from entry to exit by the first process, on behalf of all; every process of a job enters one.

    The lock is a file that is created exclusively, which local, NFS and parallel file systems and mounted buckets all
    promise to do for one of several at most. A job that was killed leaves it behind, so the next one has to find out
    whether the holder lives. On the same machine it looks for the process and knows at once. On another it trusts signs
    of life: the holder touches the file every `beat` seconds, and one that has been left alone for `limit` is taken
    over. Ages are measured by the clock of the file system alone, for those of hosts may differ.

    Args:
        run_dir: the run's folder; made if absent, and then removed on exit if nothing else was put there.
        beat: seconds between signs of life.
        limit: seconds without one after which a holder on another machine counts as dead.
    """

    def __init__(self, run_dir: Path, beat: float = BEAT, limit: float = LIMIT):
        self._path, self._beat, self._limit = run_dir / LOCK, beat, limit
        self._mine: _Holder | None = None
        self._made = False
        self._released = threading.Event()

    def __enter__(self) -> "Lock":
        refusal = ""
        if jax.process_index() == 0:
            try:
                self._acquire()
            except InputError as error:
                refusal = str(error)
            except OSError as error:
                refusal = f"cannot write to the run folder {self._path.parent}: {error.strerror or error}"
        if refusal := share("run folder taken", refusal):
            raise InputError(refusal)
        if self._mine is not None:
            threading.Thread(target=self._keep, daemon=True, name="lock of the run folder").start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        if self._mine is None:
            return
        with contextlib.suppress(OSError):  # a folder that can no longer be written to
            if self._read() == self._mine:
                self._path.unlink()
            if self._made and not any(self._path.parent.iterdir()):
                self._path.parent.rmdir()
        self._mine = None

    def _acquire(self) -> None:
        self._made = not self._path.parent.exists()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        mine = _this_process()
        while True:
            try:
                with self._path.open("x", encoding="utf-8") as file:
                    json.dump(asdict(mine), file)
                self._mine = mine
                return
            except FileExistsError:
                pass
            holder = self._read()
            if holder is None or self._lives(holder):
                continue
            print(f"the job that held {self._path.parent} ({_words(holder)}) is dead: taking it over", flush=True)
            self._remove(holder)

    def _lives(self, holder: _Holder) -> bool:
        """False for a dead holder, True for one that let go in the meantime.

        Raises:
            InputError: it lives.
        """
        if holder.machine and holder.machine == _machine():
            if _start_ticks(holder.pid) == holder.ticks:
                raise self._in_use(holder)
            return False
        last, waited = self._touched(), False
        sign = None if last is None else min(last, self._now())  # a clock that was set back makes none of the future
        while sign is not None and self._read() == holder:
            left = self._limit - (self._now() - sign)
            if left <= 0:
                return False
            if not waited:
                waited = True
                print(
                    f"{self._path.parent} is held by a job on another machine ({_words(holder)}); "
                    f"waiting up to {left:.0f} s to see whether it lives",
                    flush=True,
                )
            time.sleep(min(left, 1.0))
            if (touched := self._touched()) is not None and touched != last:
                raise self._in_use(holder)
        return True

    def _in_use(self, holder: _Holder) -> InputError:
        return InputError(
            f"{self._path.parent} is in use by the job of {_words(holder)}. "
            "End that one, or give this run another folder"
        )

    def _keep(self) -> None:
        """Gives signs of life until released; ends the process should the folder have been taken over."""
        while not self._released.wait(self._beat):
            with contextlib.suppress(OSError):
                holder = self._read()
                if holder is not None and holder != self._mine and not self._released.is_set():
                    print(
                        f"recjax: {self._path.parent} was taken over by the job of {_words(holder)}, for this one had "
                        f"given no sign of life for {self._limit:g} s; it stops, so as not to write there too",
                        file=sys.stderr,
                        flush=True,
                    )
                    os._exit(1)
                os.utime(self._path)

    def _remove(self, dead: _Holder) -> None:
        """Removes the lock of a dead holder, and of no other: of several jobs that try, one succeeds in renaming it."""
        aside = self._path.with_name(f"{LOCK}.{uuid.uuid4().hex}")
        with contextlib.suppress(FileNotFoundError):
            self._path.rename(aside)
            if _parse(aside.read_text(encoding="utf-8", errors="replace")) == dead:
                aside.unlink()
            else:  # another job was faster, and this is its lock
                aside.rename(self._path)

    def _read(self) -> _Holder | None:
        """The holder; None where there is none, or where the file is not written yet."""
        try:
            return _parse(self._path.read_text(encoding="utf-8", errors="replace"))
        except FileNotFoundError:
            return None

    def _touched(self) -> float | None:
        """Time of the holder's last heartbeat, by the file system's clock; opened, for NFS to look anew."""
        try:
            with self._path.open("rb") as file:
                return os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:
            return None

    def _now(self) -> float:
        probe = self._path.with_name(f"{LOCK}.{uuid.uuid4().hex}")
        probe.touch()
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink()


def _parse(text: str) -> _Holder:
    """Content of a lock; a damaged file (a full disk) is that of an unknown job, with a heartbeat or without."""
    try:
        return _Holder(**json.loads(text))
    except (ValueError, TypeError, RecursionError):
        return _Holder("an unknown host", 0, "an unknown time", "", "", text)


def _this_process() -> _Holder:
    started = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    return _Holder(host_name(), os.getpid(), started, _machine(), _start_ticks(os.getpid()), uuid.uuid4().hex)


def _words(holder: _Holder) -> str:
    return f"host {holder.host}, pid {holder.pid}, started {holder.started}"
