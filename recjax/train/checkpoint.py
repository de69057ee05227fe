"""Checkpoints of a run: saved asynchronously, complete or absent, restored onto any mesh and number of processes.

The only file that knows Orbax. A checkpoint holds the parameters, their average, the optimiser's state and the key as
arrays, and a record in JSON. The latest few and the best one are kept; anything else is deleted once the checkpoint
that replaces it is complete.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint.experimental import v1 as ocp  # the wheels of 0.12 have v1 here only

from recjax.train.state import TrainState
from recjax.typing import InputError, Params

Record = dict[str, Any]
"""JSON values that are saved with the arrays."""


class _Retention:
    """Keeps the latest `keep` checkpoints and the one at `best`; Orbax by itself keeps all."""

    def __init__(self, keep: int):
        self.keep = keep
        self.best: int | None = None

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        del context
        latest = sorted(checkpoint.step for checkpoint in checkpoints)[-self.keep :]
        return [checkpoint.step in latest or checkpoint.step == self.best for checkpoint in checkpoints]


class _Always:
    """Saves whenever asked: when to save is the loop's decision. Orbax by itself saves whenever it is idle."""

    def should_save(self, step: Any, previous_steps: Sequence[Any], *, context: Any) -> bool:
        del step, previous_steps, context
        return True


class Checkpoints:
    """The checkpoints in a folder. Every process of a run makes one and calls the same methods.

    Args:
        folder: where they are; made if absent.
        keep: latest ones to keep, beside the best.
        writes: whether to save to it; if so, what a killed run left half-written is removed first.
    """

    def __init__(self, folder: Path, keep: int = 1, *, writes: bool = True):
        if keep < 1:
            raise InputError(f"train.keep is {keep}, expected at least 1 checkpoint")
        self._retention = _Retention(keep)
        self._checkpointer = ocp.training.Checkpointer(
            str(folder.resolve()),
            save_decision_policy=_Always(),
            preservation_policy=self._retention,
            cleanup_tmp_directories=writes,
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def steps(self) -> list[int]:
        """Steps that have a complete checkpoint, ascending."""
        return [checkpoint.step for checkpoint in self._checkpointer.checkpoints]

    @property
    def latest(self) -> int | None:
        return max(self.steps, default=None)

    def save(self, step: int, state: TrainState, record: Record, best: int | None = None) -> None:
        """Starts to save; returns when the arrays may be donated. Waits for an earlier save first.

        Args:
            step: steps taken.
            state: what to save.
            record: JSON values to save with it.
            best: step of the best checkpoint, which is kept.
        """
        self._retention.best = best
        self._checkpointer.save_async(step, _tree(state), custom_metadata=record)

    def record(self, step: int) -> Record:
        """The record saved with a checkpoint."""
        record: Any = self._checkpointer.metadata(step).custom_metadata
        return record

    def restore(self, step: int, target: TrainState) -> TrainState:
        """The state saved at `step`.

        Args:
            step: which checkpoint.
            target: an abstract state: shapes, dtypes and the shardings wanted, whatever they were when it was saved.
        """
        return TrainState(**{"ema": None, **self._load(step, _tree(target), ocp.Context())})

    def restore_params(self, step: int, target: Params, averaged: bool) -> Params:
        """Only the parameters (their average where the run kept one), onto the shardings of `target`."""
        name = "ema" if averaged else "params"
        context = ocp.Context()
        context.pytree.loading.partial_load = True
        params = self._load(step, {name: target}, context)[name]
        missing = [path for path, leaf in jax.tree.leaves_with_path(params) if isinstance(leaf, jax.ShapeDtypeStruct)]
        if missing:  # a partial load leaves what it does not find as it was asked for
            raise InputError(
                f"checkpoint {step} in {self._checkpointer.directory} lacks {name}{jax.tree_util.keystr(missing[0])}: "
                "it was written by another version of recjax or for another model"
            )
        return params

    def shapes(self, step: int, averaged: bool) -> dict[str, tuple[int, ...]]:
        """Path -> shape of each parameter (or average) saved at `step`; nothing is read but the description."""
        tree: Any = self._checkpointer.metadata(step).metadata
        leaves = jax.tree.leaves_with_path(tree["ema" if averaged else "params"])
        return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves}

    def _load(self, step: int, target: dict[str, Any], context: ocp.Context) -> dict[str, Any]:
        known = {checkpoint.step: checkpoint for checkpoint in self._checkpointer.checkpoints}
        if step not in known:
            there = ", ".join(map(str, known)) or "none"
            raise InputError(f"{self._checkpointer.directory} has no checkpoint of step {step}; it has: {there}")
        with context:
            tree: Any = ocp.load(known[step].path, target)
            return tree

    def wait(self) -> None:
        """Returns when everything asked for is saved."""
        self._checkpointer.wait()

    def close(self) -> None:
        """Waits, then lets go of threads and files."""
        self._checkpointer.close()


def _tree(state: TrainState) -> dict[str, Any]:
    """The state as the tree that is saved, in one piece: each more would cost a save its own files and threads."""
    tree = {"step": state.step, "key": state.key, "params": state.params, "opt_state": state.opt_state}
    return tree if state.ema is None else {**tree, "ema": state.ema}
