"""What one of several processes does in `test_train.py`: train a toy, be asked to stop on the way, say how it ended."""

import os
import signal
import sys
from pathlib import Path

import jax

from recjax.parallel.mesh import MeshShape
from recjax.parallel.startup import barrier, initialize
from recjax.train.loop import fit
from tests.train.toy import toy_config, toy_task

initialize()
folder, stop_at, number = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]


def on_step(step: int) -> None:
    if step == stop_at and jax.process_index() == 1:
        os.kill(os.getpid(), getattr(signal, number))


config = toy_config(mesh=MeshShape(model=int(sys.argv[4])), steps=60, ema=0.9)
result = fit(config, folder, toy_task(on_step=on_step, pause=0.1 if stop_at >= 0 else 0.0))
(folder / f"result{jax.process_index()}").write_text(f"{result.step} {result.preempted}")
barrier("written")
