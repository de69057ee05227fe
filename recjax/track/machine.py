"""Machine and commit of a run."""

import os
import platform
import subprocess
from pathlib import Path

from recjax import __version__


def processor() -> str:
    """Name of the processor and cores that this process may use, e.g. "AMD EPYC, 2 cores"."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {cores} {'core' if cores == 1 else 'cores'}"


def commit() -> str:
    """Version of recjax, and the commit that it is checked out at, where it is: "0.1.0 (3c42702, changed)"."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str | None:
        try:
            ended = subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return None
        return ended.stdout.strip() if ended.returncode == 0 else None

    head = git("rev-parse", "--short", "HEAD")
    if not head or git("ls-files", "--error-unmatch", __file__) is None:  # a repository around it is not its own
        return __version__
    changed = ", changed" if git("status", "--porcelain", "--untracked-files=no") else ""
    return f"{__version__} ({head}{changed})"
