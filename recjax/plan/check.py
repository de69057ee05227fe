"""Check of a run before its first step: the datasets by name, the shapes of everything."""

from dataclasses import replace

import jax

from recjax.config import RunConfig
from recjax.data.batches.mixture import Mixture
from recjax.data.embedded.generate import NAMES
from recjax.data.store.locate import locate
from recjax.evaluate.evaluator import check_metric
from recjax.parallel.mesh import MeshShape
from recjax.plan.program import abstract_inputs
from recjax.train.schedule import Calendar
from recjax.train.task import check_packing

ITEMS = 1_000
"""Items of the catalog that stands for the real one: no dataset is read."""


def check_start(config: RunConfig) -> None:
    """Looks whether a run could start, on one host device and in a second or so.

    Raises:
        InputError: a dataset or a sentence encoder is not there, or the parts of the configuration do not go together.
    """
    data = config.data
    for name in (*data.datasets, data.held_out) if isinstance(data, Mixture) else (data.dataset,):
        if name is not None and name not in NAMES:
            locate(name, NAMES)
    if config.train.stages:  # what they make is not there yet
        return
    if config.train.evaluate_every != 0:
        check_metric(config.evaluators, config.train.metric)
    mesh = MeshShape().build(jax.devices("cpu")[:1])
    inputs = abstract_inputs(replace(config, mesh=MeshShape()), ITEMS, mesh)
    # For what they refuse: settings of a calendar, and packing, that the model cannot have.
    Calendar.of(config.train, 1, 1, True, inputs.model.refresh_every)
    if not isinstance(data, Mixture):
        check_packing(data, inputs.model)
