"""Open files, threads and memory of one process over many checkpoints of a tiny state: they stay as they are.

    python experiments/benchmarks/many_saves.py --saves 5000

Ends with status 1 where the files or threads at the end are more than after the first tenth of the saves.
"""

import argparse
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path

import jax.numpy as jnp

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))  # also where recjax is not installed

from recjax.train.folder.checkpoint import Checkpoints
from recjax.train.state import TrainState

SLACK = 3
"""Files and threads by which a moment may differ from another."""


def counts() -> tuple[int, int]:
    """Open files and threads of this process."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir()), threading.active_count()


def measure(saves: int, folder: Path) -> list[tuple[int, int]]:
    """`counts` after each tenth of the saves, which are printed."""
    counters = {"step": jnp.zeros((), jnp.int32), "key": jnp.zeros(2, jnp.uint32)}
    state = TrainState(params={"w": jnp.zeros(8)}, opt_state={"m": jnp.zeros(8)}, ema=None, **counters)
    found, begun = [], time.perf_counter()
    with Checkpoints(folder) as checkpoints:
        for step in range(1, saves + 1):
            checkpoints.save(step, state, {"step": step})
            if step % max(saves // 10, 1) == 0:
                checkpoints.wait()
                found.append(counts())
                memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                milliseconds = 1000 * (time.perf_counter() - begun) / step
                files, threads = found[-1]
                print(
                    f"{step:,} saves: {files} files, {threads} threads, {memory:,.0f} MB at most, "
                    f"{milliseconds:.0f} ms a save",
                    flush=True,
                )
    return found


def main() -> int:
    """Runs the measurement."""
    parser = argparse.ArgumentParser(description="Count open files and threads over many checkpoints.")
    parser.add_argument("--saves", type=int, default=5_000, help="(%(default)s)")
    with tempfile.TemporaryDirectory() as folder:
        found = measure(parser.parse_args().saves, Path(folder))
    return int(any(last > first + SLACK for first, last in zip(found[0], found[-1], strict=True)))


if __name__ == "__main__":
    sys.exit(main())
