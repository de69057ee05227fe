"""recjax's `RecGPTPublished` for the benchmark: the loader and the step that `recjax train` uses, on packed rows."""

import os
import sys
import time

from turns import Block, Settings, Turns, histories

TURNS, SETTINGS = Turns(), Settings.read(sys.argv[1])
if hasattr(os, "sched_setaffinity"):  # XLA:CPU takes every core that it may run on
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: SETTINGS.threads])

import jax  # noqa: E402
import numpy as np  # noqa: E402

from recjax.data.batches.loader import Loader  # noqa: E402
from recjax.data.batches.views import Batch, Shifted  # noqa: E402
from recjax.data.items import on_devices, text_items  # noqa: E402
from recjax.data.splits import Histories  # noqa: E402
from recjax.models.model import ItemStats  # noqa: E402
from recjax.models.recgpt_published import RecGPTPublished  # noqa: E402
from recjax.parallel.mesh import MeshShape  # noqa: E402
from recjax.parallel.startup import initialize  # noqa: E402
from recjax.train.optimiser import AdamW  # noqa: E402
from recjax.train.state import TrainState, initial_state  # noqa: E402
from recjax.train.step import make_train_step  # noqa: E402


def main() -> None:
    s = SETTINGS
    initialize()
    with jax.set_mesh(MeshShape().build()):
        offsets, items = histories(s.events)
        users, times = np.arange(len(offsets) - 1), np.zeros(len(items), np.int64)
        source = Histories.concatenated(np.diff(offsets), items.astype(np.int32), times, users)
        with np.load(s.table, allow_pickle=False) as table:
            codes, vectors = table["codes"], table["vectors"]
        catalog = on_devices(text_items(vectors, np.arange(len(vectors)) > 0, codes))
        slots = codes.shape[1]
        config = RecGPTPublished(
            width=s.width,
            layers=s.layers,
            heads=s.heads,
            vocabulary=s.vocabulary,
            slots=slots,
            aux_width=vectors.shape[1] // slots,
            max_items=s.length,
            dropout=s.dropout,
        )
        model = config.build(
            ItemStats(s.items, np.ones(s.items + 1, np.int64), catalog.row_shapes, (s.vocabulary - 1,) * slots)
        )
        view = Shifted(max_length=s.length, align="left")
        loader = Loader(source, view, s.batch, None, s.seed, s.items)
        optimiser = AdamW(learning_rate=s.learning_rate, weight_decay=0.01, b2=0.999).build(1)

        def fresh(key: jax.Array, batch: Batch) -> TrainState:
            return initial_state(model, optimiser, batch, catalog, key, False)

        state = jax.jit(fresh)(jax.random.key(s.seed), loader.batch(0))
        step = make_train_step(model, optimiser)
        batches = loader.iterate(0, 2**31 - 1)

        def train(block: Block, steps: int | None = None) -> Block:
            nonlocal state
            while block.steps < steps if steps else not block.over:
                asked = time.perf_counter()
                batch = next(batches)
                waited = time.perf_counter() - asked
                state, sums = step(state, batch, catalog)
                total, weight = jax.device_get(sums["loss"])
                if not np.isfinite(total):
                    raise ArithmeticError("the loss is not finite")
                block.add(round(float(weight)) // slots, batch.items.size, waited)
            return block

        train(Block(0.0), steps=s.warmup)
        parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        TURNS.ready("jax", "flax", parameters=parameters, rows=loader.rows, devices=jax.device_count())
        while (command := TURNS.next())["do"] != "stop":
            TURNS.say(train(Block(command["seconds"])).result())


if __name__ == "__main__":
    main()
