"""recjax's SASRec among its peers: the loader, step and ranking that `recjax train` and `recjax evaluate` use.

A packed batch has as many rows as hold, on average, the events of `batch` users, so that a step supervises as many
targets as a padded step of the peers.
"""

import os
import sys
import time
from dataclasses import dataclass
from typing import Any

from turns import Block, Settings, Turns, histories, timed_lists

TURNS, SETTINGS = Turns(), Settings.read(sys.argv[1])
if hasattr(os, "sched_setaffinity"):  # XLA:CPU takes every core that it may run on
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: SETTINGS.threads])

import jax  # noqa: E402
import numpy as np  # noqa: E402
from jax.sharding import NamedSharding, PartitionSpec  # noqa: E402

from recjax.data.batches.loader import Loader  # noqa: E402
from recjax.data.batches.views import Batch, Shifted  # noqa: E402
from recjax.data.items import bare_items, on_devices  # noqa: E402
from recjax.data.splits import Examples, Histories  # noqa: E402
from recjax.evaluate.ranking import rank_users  # noqa: E402
from recjax.models.model import ItemStats, Model  # noqa: E402
from recjax.models.parts.objectives import BCE, FullSoftmax, SampledSoftmax  # noqa: E402
from recjax.models.sasrec import SASRec  # noqa: E402
from recjax.parallel.mesh import MeshShape  # noqa: E402
from recjax.parallel.startup import initialize  # noqa: E402
from recjax.train.optimiser import Adam  # noqa: E402
from recjax.train.state import TrainState, abstract_state, initial_state  # noqa: E402
from recjax.train.step import make_train_step  # noqa: E402


@dataclass
class Run:
    """A model in training.

    Attributes:
        model: the model.
        loader: its batches.
        state: after the last step.
        step: the compiled step.
        batches: the batches to come.
        compile_seconds: what compiling the step took.
    """

    model: Model
    loader: Loader
    state: TrainState
    step: Any
    batches: Any
    items: Any
    compile_seconds: float

    def block(self, block: Block, steps: int | None = None) -> Block:
        """Trains until the block is over. As in the loop, a step's sums are read while the next one computes."""
        before = None
        while block.steps < steps if steps else not block.over:
            asked = time.perf_counter()
            batch = next(self.batches)
            waited = time.perf_counter() - asked
            self.state, sums = self.step(self.state, batch, self.items)
            block.add(0, batch.items.size, waited)
            block.targets += _settle(before)
            before = sums
        block.targets += _settle(before)
        return block


def _settle(sums: Any) -> int:
    if sums is None:
        return 0
    total, weight = jax.device_get(sums["loss"])
    if not np.isfinite(total):
        raise ArithmeticError("the loss is not finite")
    return int(weight)


def rows_for(s: Settings, tokens: np.ndarray, devices: int) -> int:
    """Packed rows with the targets of `s.batch` users, a multiple of the devices."""
    rows = s.batch * tokens.mean() / s.length
    return max(1, round(rows / devices)) * devices


def start(s: Settings, source: Histories, view: Shifted) -> Run:
    loss = {"full": FullSoftmax(), "bce": BCE(), "sampled": SampledSoftmax(s.negatives)}[s.loss]
    config = SASRec(
        width=s.width,
        layers=s.layers,
        heads=s.heads,
        dropout=s.dropout,
        max_length=s.length,
        norm=s.norm,  # pyright: ignore[reportArgumentType]
        loss=loss,
    )
    mesh = jax.sharding.get_mesh()
    model: Any = config.build(ItemStats(s.items, np.bincount(source.items, minlength=s.items + 1)))
    rows = rows_for(s, view.token_lengths(source.lengths), mesh.shape["data"])
    loader = Loader(source, view, rows, None, s.seed, s.items)
    optimiser = Adam(learning_rate=s.learning_rate).build(1)

    bare = on_devices(bare_items(s.items))

    def fresh(key: jax.Array, batch: Batch) -> TrainState:
        return initial_state(model, optimiser, batch, bare, key, False)

    key, first = jax.random.key(s.seed), loader.batch(0)
    target = abstract_state(jax.eval_shape(fresh, key, first), mesh, model)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, target)
    state = jax.jit(fresh, out_shardings=shardings)(key, first)
    step = make_train_step(model, optimiser, shardings=(shardings, NamedSharding(mesh, PartitionSpec())))
    began = time.perf_counter()
    compiled = step.lower(state, first, bare).compile()  # pyright: ignore[reportFunctionMemberAccess]
    seconds = time.perf_counter() - began
    return Run(model, loader, state, compiled, loader.iterate(0, 2**31 - 1), bare, seconds)


def main() -> None:
    s = SETTINGS
    initialize()
    with jax.set_mesh(MeshShape().build()):
        offsets, items = histories(s.events)
        users, times = np.arange(len(offsets) - 1), np.zeros(len(items), np.int64)
        source = Histories.concatenated(np.diff(offsets), items.astype(np.int32), times, users)
        view = Shifted(max_length=s.length)
        set_up = time.time() - TURNS.started
        run = start(s, source, view)
        first = run.block(Block(0.0), steps=1).result()["seconds"]
        run.block(Block(0.0), steps=max(s.warmup - 1, 1))
        # Whom the targets are does not matter for the lists; ranks cost the same whatever they are.
        examples = Examples(source, np.ones(len(users), np.int32), np.zeros(len(users), np.int64))

        def lists() -> np.ndarray:
            params = run.state.evaluated
            found = rank_users(run.model, params, examples, view, str, k=s.list_length).lists
            assert found is not None
            return found

        TURNS.ready(
            "jax",
            "flax",
            parameters=sum(leaf.size for leaf in jax.tree.leaves(run.state.params)),
            set_up_seconds=set_up,
            compile_seconds=run.compile_seconds,
            first_step_seconds=first,
            rows=run.loader.rows,
            devices=jax.device_count(),
        )
        while (command := TURNS.next())["do"] != "stop":
            if command["do"] == "train":
                TURNS.say(run.block(Block(command["seconds"])).result())
            else:
                TURNS.say(timed_lists(lists, command.get("out")))


if __name__ == "__main__":
    main()
