"""A recipe of recjax beside its authors' code: the loader and the step that `recjax train` uses.

`extra` names one of the forms that the settings give: a view of `VIEWS`, and settings of the recipe. What is refreshed
before an epoch (clusters, a memory) is refreshed once, before the first turn, of the first ten batches.
"""

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from turns import Block, Turns

TURNS, SETTINGS = Turns(), json.loads(Path(sys.argv[1]).read_text())
if hasattr(os, "sched_setaffinity"):  # XLA:CPU takes every core that it may run on
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: SETTINGS["threads"]])

import jax  # noqa: E402
import numpy as np  # noqa: E402

from recjax import recipes  # noqa: E402
from recjax.data.batches.alterations import Substitute  # noqa: E402
from recjax.data.batches.derived import Prefixes, Users  # noqa: E402
from recjax.data.batches.partners import AlteredCopy, Partnered, SameTarget  # noqa: E402
from recjax.data.batches.views import Shifted  # noqa: E402
from recjax.parallel.startup import initialize  # noqa: E402
from recjax.settings import change  # noqa: E402
from recjax.train.programs import Alike, programs_of  # noqa: E402
from recjax.train.refresh import Refresher  # noqa: E402
from recjax.train.task import open_task  # noqa: E402

COPY = AlteredCopy((Substitute(share=0.2),))
VIEWS: dict[str, Any] = {
    "icsrec prefixes": lambda length: Partnered(Prefixes(Shifted(length, targets=1)), SameTarget()),
    "icsrec histories": lambda length: Partnered(Shifted(length), SameTarget(slots=True)),
    "sracl prefixes": lambda length: Partnered(
        Partnered(Users(Prefixes(Shifted(length, targets=1))), COPY, "first"), COPY, "second"
    ),
    "prefixes": lambda length: Prefixes(Shifted(length, targets=1)),
    "histories": lambda length: Shifted(length),
}
"""Views by name, of a length."""

SWEPT = 10
"""Batches that a refresh is made of."""

STEPS = 100_000
"""Steps of the learning rate's schedule, more than are taken."""


class First:
    """The first batches of a loader as all of an epoch."""

    def __init__(self, loader: Any):
        self._loader = loader

    def steps(self, epochs: float) -> int:
        return min(SWEPT, self._loader.steps(epochs))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


def main() -> None:
    s = SETTINGS
    initialize()
    form = s["forms"][s["extra"]]
    view = VIEWS[form["view"]](s["length"])
    config = change(recipes.read(s["recipe"]).config, {"data.view": view, "data.dataset": s["data"], **form["set"]})
    mesh = config.mesh.build()
    with jax.set_mesh(mesh):
        task = open_task(config, Path(sys.argv[1]).parent / f"run-{s['extra']}")
        programs = programs_of(Alike.of(config, task.model, STEPS, mesh))
        key, items, first = jax.random.key(s["seed"]), task.items[task.loader.catalog(0)], task.loader.batch(0)
        target = programs.target(key, first, items, task.params)
        state: Any = programs.start(target)(key, first, items, task.params)
        asked, refresh_seconds = time.perf_counter(), 0.0
        if task.model.refresh_every is not None:
            state = Refresher(replace(task, loader=First(task.loader)), config.train.freeze)(state, 0)
            refresh_seconds = time.perf_counter() - asked
        asked = time.perf_counter()
        step: Any = programs.step(target)
        step = step.lower(state, first, items).compile()
        compile_seconds = time.perf_counter() - asked
        batches = task.loader.iterate(0, STEPS)

        def train(block: Block, steps: int | None = None) -> Block:
            """Trains until the block is over. As in the loop, a step's sums are read while the next one computes."""
            nonlocal state
            before = None
            while block.steps < steps if steps else not block.over:
                asked = time.perf_counter()
                batch = next(batches)
                waited = time.perf_counter() - asked
                state, sums = step(state, batch, items)
                block.add(0, batch.items.size, waited)
                block.targets += settled(before)
                before = sums
            block.targets += settled(before)
            return block

        train(Block(0.0), steps=s["warmup"])
        parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        facts = {"refresh_seconds": refresh_seconds, "compile_seconds": compile_seconds}
        TURNS.ready("jax", "flax", parameters=parameters, steps_an_epoch=task.loader.steps(1), **facts)
        while (command := TURNS.next())["do"] != "stop":
            TURNS.say(train(Block(command["seconds"])).result())


def settled(sums: Any) -> int:
    """Targets of a step that has been taken."""
    if sums is None:
        return 0
    total, weight = jax.device_get(sums["loss"])
    if not np.isfinite(total):
        raise ArithmeticError("the loss is not finite")
    return round(float(weight))


if __name__ == "__main__":
    main()
