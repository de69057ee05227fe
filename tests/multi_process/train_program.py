"""Program of one of several processes in `test_survival.py`: train a toy, and say how it ended."""

import sys
import traceback
from pathlib import Path

import jax

from recjax.parallel import watch
from recjax.parallel.mesh import MeshShape
from recjax.parallel.processes import barrier
from recjax.parallel.startup import initialize
from recjax.train import loop
from tests.train.toy import toy_config, toy_task

initialize()
loop.plot_curves = lambda folder: None  # it takes as long as all else
folder, steps, pause = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
config = toy_config(mesh=MeshShape(model=2), steps=steps, ema=0.9, log_every=1, save_every=4, evaluate_every=0)
try:
    with jax.set_mesh(config.mesh.build()):
        task = toy_task(pause=pause)
    result = loop.fit(config, folder, task)
except Exception as error:  # as the command does
    traceback.print_exc()
    watch.fail(error, 1)
    raise
print(f"process {jax.process_index()}: {result.step} {result.preempted}", flush=True)
barrier("written")
