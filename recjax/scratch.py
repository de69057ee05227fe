"""Scratch folders beside what they become, and whether the process that made one still runs."""

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

FORGOTTEN = 7 * 24 * 3600.0
"""Seconds after which a scratch folder of another machine, whose processes cannot be seen, counts as left behind."""

_OLD = "old"


@contextlib.contextmanager
def scratch_beside(target: Path) -> Iterator[Path]:
    """An empty folder that takes the place of `target` when the block ends without an error, and else disappears.

    A process that is killed leaves its scratch folder; the next one with the same target removes it. Killed between
    the two renames, it leaves the old content aside, which the next one puts back.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _tidy(target)
    scratch = _made(target, "new")
    try:
        yield scratch
        if target.exists():
            old = _made(target, _OLD)
            target.rename(old / _OLD)
            scratch.rename(target)
            shutil.rmtree(old)
        else:
            scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def machine() -> str:
    """Tells whether a pid means the same here: the boot and the namespace of pids; empty where nothing names them."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def start_ticks(pid: int) -> str:
    """Start time of a process, in ticks since the boot; nothing for one that is not, or is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _made(target: Path, kind: str) -> Path:
    pid = os.getpid()
    prefix = f".{target.name}.{kind}-{_here()}-{pid}-{start_ticks(pid)}-"
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    folder.chmod(0o755)  # mkdtemp makes it private; what other users may read is the umask's business
    return folder


def _here() -> str:
    return hashlib.sha256(machine().encode()).hexdigest()[:8]


def _tidy(target: Path) -> None:
    """Removes what killed processes have left of the same target."""
    name = re.compile(rf"\.{re.escape(target.name)}\.(?P<kind>new|old)-(?P<on>\w{{8}})-(?P<pid>\d+)-(?P<ticks>\d*)-\w+")
    for folder in list(target.parent.iterdir()):
        found = name.fullmatch(folder.name)
        if found is None or not _left_behind(folder, found["on"], int(found["pid"]), found["ticks"]):
            continue
        if found["kind"] == _OLD and not target.exists() and (folder / _OLD).exists():
            with contextlib.suppress(OSError):  # another process was faster
                (folder / _OLD).rename(target)
        shutil.rmtree(folder, ignore_errors=True)


def _left_behind(folder: Path, on: str, pid: int, ticks: str) -> bool:
    if machine() and on == _here():
        return start_ticks(pid) != ticks
    try:
        return time.time() - max(path.stat().st_mtime for path in [folder, *folder.rglob("*")]) > FORGOTTEN
    except OSError:  # it disappears while it is looked at: its process lives
        return False
