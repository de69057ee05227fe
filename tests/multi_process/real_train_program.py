"""One of several processes in `test_train.py`: a real model, loader and validation under the loop's guard."""

import sys
from pathlib import Path

import jax

from recjax.parallel.processes import barrier
from recjax.parallel.startup import initialize
from recjax.train import loop
from tests.train.real import real_config

initialize()
loop.plot_curves = lambda folder: None  # it takes as long as all else
folder = Path(sys.argv[1])
result = loop.fit(real_config(), folder)
(folder / f"result{jax.process_index()}").write_text(f"{result.step} {result.best_step} {result.best_value}")
barrier("written")
