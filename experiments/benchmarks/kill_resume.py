"""python experiments/benchmarks/kill_resume.py [--kills 20] [--steps 600] [--folder DIR]

Ends a training run with SIGKILL at random moments and starts it again, until it is done; then compares it with a run
that nobody disturbed. Checkpoints are saved every other step, so that most kills hit a save under way. Every restart
must go on from the latest complete checkpoint, and in the end the parameters, the best checkpoint and the log must
equal those of the undisturbed run, bit for bit. Prints a table; exits with 1 where something differs.
"""

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

LOG_EVERY = 5
TIMINGS = ("interactions_per_second", "data_wait", "train_seconds", "host_peak_bytes", "device_peak_bytes", "goodput/")


def config(steps: int):
    """A small SASRec on the embedded dataset that saves all the time."""
    from recjax.config import RunConfig
    from recjax.data.batches.loader import Data
    from recjax.data.batches.views import Shifted
    from recjax.evaluate.protocol import Evaluate
    from recjax.models.sasrec import SASRec
    from recjax.parallel.mesh import MeshShape
    from recjax.train.loop import Train
    from recjax.train.optimiser import AdamW

    return RunConfig(
        name="kill_resume",
        data=Data("synthetic", view=Shifted(max_length=20), rows=16),
        model=SASRec(width=32, layers=1, max_length=20),
        optim=AdamW(learning_rate=1e-3, clip=1.0, schedule="cosine"),
        mesh=MeshShape(),
        train=Train(
            steps=steps,
            evaluate_every=max(steps // 6, 1),
            validation_users=100,
            save_every=2,
            log_every=LOG_EVERY,
            ema=0.99,
        ),
        evaluate=Evaluate(),
    )


@dataclass(frozen=True)
class Life:
    """One process of the disturbed run.

    Attributes:
        latest: step of the latest complete checkpoint when it started, 0 where there was none.
        resumed: step it said it went on from.
        reached: last step it logged.
        seconds: between its first logged step and its end.
        half_written: folders of saves that the signal cut short.
        done: it came to its end before the signal.
    """

    latest: int
    resumed: int
    reached: int
    seconds: float
    half_written: int
    done: bool


def checkpoints(folder: Path) -> list[str]:
    return [path.name for path in (folder / "checkpoints").glob("*")]


def latest(folder: Path) -> int:
    return max((int(name) for name in checkpoints(folder) if name.isdecimal()), default=0)


def logged_steps(output: Path) -> list[int]:
    return [int(step) for step in re.findall(r"^step (\d+)/", output.read_text(), re.MULTILINE)]


def live(command: list[str], folder: Path, advance: float = float("inf"), delay: float = 0.0) -> Life:
    """Starts a command that trains in `folder`, and kills it once it has taken `advance` steps and `delay` seconds."""
    before, output = latest(folder), folder.with_name("output.txt")
    with output.open("w") as file:
        # Compiled code is kept for the next life.
        cache = {
            "JAX_COMPILATION_CACHE_DIR": str(folder.with_name("compiled")),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=os.environ | cache)
    first, kill_at = None, float("inf")
    while process.poll() is None and time.monotonic() < kill_at:
        time.sleep(0.002)
        steps = logged_steps(output)
        if steps and first is None:
            first = time.monotonic()
        if kill_at == float("inf") and steps and steps[-1] >= before + advance:
            kill_at = time.monotonic() + delay
    done = process.poll() is not None
    seconds = time.monotonic() - (first or time.monotonic())
    if not done:
        process.send_signal(signal.SIGKILL)
    process.wait()
    text = output.read_text()
    if done and process.returncode:
        raise SystemExit(f"the run failed after {before} steps:\n{text[-4000:]}")
    resumed = re.search(r"resumes from the checkpoint of step (\d+)", text)
    reached = max(logged_steps(output), default=0)
    half_written = sum(not name.isdecimal() for name in checkpoints(folder))
    return Life(before, int(resumed[1]) if resumed else 0, reached, seconds, half_written, done)


def train(folder: Path, steps: int) -> None:
    from recjax.parallel.startup import initialize
    from recjax.train.loop import fit

    initialize()
    fit(config(steps), folder)


def differences(folder: Path, reference: Path) -> list[str]:
    """In what the two runs differ."""
    import jax
    import numpy as np

    from recjax.train.run import load_run, read_record

    found = []
    (step, record), (other_step, other_record) = read_record(folder), read_record(reference)
    if step != other_step or record != other_record:
        found.append(f"records: {step} {record['progress']} and {other_step} {other_record['progress']}")
    for which in {step, record["progress"]["best_step"]}:
        a, b = (jax.device_get(load_run(path, step=which).params) for path in (folder, reference))
        same = jax.tree.map(np.array_equal, a, b)
        if not all(jax.tree.leaves(same)):
            found.append(f"parameters of step {which}: {same}")
    a, b = (metrics(path) for path in (folder, reference))
    if a != b:
        found.append(f"metrics.jsonl: {len(a)} and {len(b)} lines")
    return found


def metrics(folder: Path) -> list[str]:
    """The lines of the log but those that tell time."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [line for line in lines if not any(name in line for name in TIMINGS)]


def table(lives: list[Life]) -> Table:
    rows = Table(title="kill -9 and go on", title_justify="left")
    for name in ("kill", "went on from", "latest complete", "killed near step", "seconds of steps", "half-written"):
        rows.add_column(name, justify="right")
    for number, life in enumerate(lives, 1):
        values = (life.resumed, life.latest, life.reached, f"{life.seconds:.2f}", life.half_written)
        rows.add_row("none" if life.done else str(number), *map(str, values))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the runs go; a temporary folder by default")
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        train(options.train, options.steps)
        return 0

    folder = options.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    commands = {
        name: [sys.executable, __file__, "--train", str(folder / name), "--steps", str(options.steps)]
        for name in ("unbroken", "killed")
    }
    live(commands["unbroken"], folder / "unbroken")
    draw = random.Random(options.seed)
    lives: list[Life] = []
    while not (lives and lives[-1].done):
        if len(lives) < options.kills:  # so far at most, on average half of it, that steps remain for every kill
            advance, delay = draw.uniform(0, options.steps / options.kills - 2 * LOG_EVERY), draw.uniform(0, 0.1)
            lives.append(live(commands["killed"], folder / "killed", advance, delay))
        else:
            lives.append(live(commands["killed"], folder / "killed"))

    Console(width=120).print(table(lives))
    kills, wrong = len(lives) - 1, differences(folder / "killed", folder / "unbroken")
    wrong += [f"went on from {x.resumed}, not from {x.latest}" for x in lives if x.resumed != x.latest]
    print(f"{kills} kills; " + ("; ".join(wrong) or "parameters, best checkpoint and log equal the unbroken run's"))
    return 1 if wrong or kills < options.kills else 0


if __name__ == "__main__":
    sys.exit(main())
