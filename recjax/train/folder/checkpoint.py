"""Checkpoints of a run: saved asynchronously, complete or absent, restored onto any mesh and number of processes.

The only file that knows Orbax. A checkpoint holds the parameters, their average, the optimiser's state and the key as
arrays, and a record in JSON. The latest few and the best one are kept; anything else is deleted once the checkpoint
that replaces it is complete. What is read back is compared with the checksums in its record, so that a damaged
checkpoint is noticed, whichever of its files was hit.
"""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint.experimental import v1 as ocp  # the wheels of 0.12 have v1 here only

from recjax.nn.groups import filled, path_name
from recjax.parallel.processes import barrier, problems, share
from recjax.train.errors import TrainingError
from recjax.train.folder.checksum import checksums
from recjax.train.state import TrainState
from recjax.typing import InputError, Params

Record = dict[str, Any]
"""JSON values that are saved with the arrays."""

INTEGRITY = "integrity"
"""Key of a record for what tells whether a checkpoint is as it was saved: each array's type, shape and checksum, and a
digest of the rest of the record. Older checkpoints have none and are taken at their word."""


class DamagedError(InputError):
    """A checkpoint that is not as it was saved.

    Attributes:
        step: its step.
        why: what is wrong with it.
    """

    def __init__(self, step: int, why: str):
        super().__init__(f"the checkpoint of step {step} is damaged: {why}")
        self.step, self.why = step, why


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
        folder: where they are; made by the first save if absent.
        keep: latest ones to keep, beside the best.
        writes: whether to save to it; if so, what a killed run left half-written is removed before the first save.
    """

    def __init__(self, folder: Path, keep: int = 2, *, writes: bool = True):
        if keep < 1:
            raise InputError(f"train.keep is {keep}, expected at least 1 checkpoint")
        self.folder = folder.resolve()
        self._writes = writes
        self._retention = _Retention(keep)
        self._saver: ocp.training.Checkpointer | None = None
        self._records: dict[int, tuple[Record, dict[str, Any]]] = {}  # read before, where nothing is written
        self._metadata: dict[int, Any] = {}  # likewise, as Orbax gives it
        self._pending: Any = None  # the response to the save under way, which has a thread and an event loop of its own

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None:
            self.close()
        elif jax.process_count() == 1:  # of several, the others may never come to close theirs
            with contextlib.suppress(TrainingError):
                self.close()

    @property
    def steps(self) -> list[int]:
        """Steps that have a complete checkpoint, ascending: Orbax gives a folder its number when all is in it."""
        if not self.folder.is_dir():
            return []
        return sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdecimal() and path.is_dir())

    @property
    def latest(self) -> int | None:
        return max(self.steps, default=None)

    def agreed_steps(self) -> list[int]:
        """`steps` as the first process sees them: hosts may see a shared folder at different ages."""
        return json.loads(share("checkpoints in the run folder", json.dumps(self.steps)))

    def save(self, step: int, state: TrainState, record: Record, best: int | None = None) -> None:
        """Starts to save; returns when the arrays may be donated. Waits for an earlier save first.

        Args:
            step: steps taken.
            state: what to save.
            record: JSON values to save with it.
            best: step of the best checkpoint, which is kept.

        Raises:
            TrainingError: this or the earlier checkpoint could not be written.
        """
        tree = _tree(state)
        integrity = {"arrays": _described(tree, checksums(tree)), "record": _digest(record)}
        self.wait()
        self._retention.best = best
        try:
            metadata = {**record, INTEGRITY: integrity}
            self._pending = self._open_saver().save_async(step, tree, custom_metadata=metadata)
        except jax.errors.JaxRuntimeError:  # no fault of the disk: another process is gone
            raise
        except Exception as error:  # Orbax passes on whatever the file system, tensorstore or its threads raise
            raise self._unsaved(error) from error

    def _open_saver(self) -> ocp.training.Checkpointer:
        if self._saver is None:
            assert self._writes
            self._saver = ocp.training.Checkpointer(
                str(self.folder),
                save_decision_policy=_Always(),
                preservation_policy=self._retention,
                cleanup_tmp_directories=True,
            )
        return self._saver

    def _unsaved(self, error: Exception) -> TrainingError:
        try:
            free = f", where {shutil.disk_usage(self.folder).free / 1e6:,.1f} MB are free"
        except OSError:
            free = ""
        kept = f"the checkpoint of step {self.latest} is kept" if self.steps else "there is no complete one"
        reason = " ".join(str(error).split())
        return TrainingError(
            f"a checkpoint could not be written to {self.folder}{free}: {reason[:600]}; {kept}. "
            "Once it can be written, the same command resumes"
        )

    def record(self, step: int) -> Record:
        """The record saved with a checkpoint, as the first process reads it.

        Raises:
            DamagedError: it is not as it was saved; on every process.
        """
        return self._read_record(step)[0]

    def _read_record(self, step: int) -> tuple[Record, dict[str, Any]]:
        """The record of a checkpoint, and what it says of the arrays (nothing where it is older than checksums)."""
        if step in self._records:
            return self._records[step]
        found: Any = [None, {}, ""]
        if jax.process_index() == 0:
            try:
                found = [*self._parse_record(step), ""]
            except DamagedError as error:
                found = [None, {}, error.why]
        record, arrays, why = found if jax.process_count() == 1 else json.loads(share("a record", json.dumps(found)))
        if why:
            raise DamagedError(step, why)
        if not self._writes:
            self._records[step] = record, arrays
        return record, arrays

    def _parse_record(self, step: int) -> tuple[Record, dict[str, Any]]:
        try:
            record = dict(self._read_metadata(step).custom_metadata or {})
        except InputError:
            raise
        except Exception as error:  # any parser's, for the file may hold anything
            raise DamagedError(step, _reason(error)) from error
        if not record:
            raise DamagedError(step, "its record is missing or cannot be read")
        integrity = record.pop(INTEGRITY, None)
        if integrity is None:
            return record, {}
        if integrity.get("record") != _digest(record):
            raise DamagedError(step, "its record is not as it was saved")
        return record, integrity["arrays"]

    def restore(self, step: int, target: TrainState) -> TrainState:
        """The state saved at `step`.

        Args:
            step: which checkpoint.
            target: an abstract state: shapes, dtypes and the shardings wanted, whatever they were when it was saved.

        Raises:
            DamagedError: it is not as it was saved; on every process, if on one.
            InputError: it holds other arrays than `target`.
        """
        return TrainState(**{"ema": None, **self._load(step, _tree(target))})

    def restore_params(self, step: int, target: Params, averaged: bool) -> Params:
        """Only the parameters, onto the shardings of `target`.

        Args:
            step: which checkpoint.
            target: abstract parameters, or a part of their tree.
            averaged: take the average of those that have one: of the trained ones, where the run kept it.
        """
        if not averaged:
            return self._load(step, {"params": target}, partial=True)["params"]
        average = {path_name(path) for path, _ in jax.tree.leaves_with_path(self._saved(step)["ema"])}
        ema = jax.tree.map_with_path(lambda path, leaf: leaf if path_name(path) in average else None, target)
        rest = jax.tree.map_with_path(lambda path, leaf: None if path_name(path) in average else leaf, target)
        found = self._load(step, {"ema": ema, "params": rest}, partial=True)
        return filled(found["ema"], found["params"])

    def abstract_params(self, step: int) -> Params:
        """Shapes and types of the parameters saved at `step`; nothing is read but the description.

        Raises:
            DamagedError: it cannot be read.
        """
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), self._saved(step)["params"])

    def shapes(self, step: int, averaged: bool) -> dict[str, tuple[int, ...]]:
        """Path -> shape of each parameter (or average) saved at `step`; nothing is read but the description."""
        saved = self._saved(step)
        tree = filled(saved["ema"], saved["params"]) if averaged else saved["params"]
        return {path_name(path): tuple(leaf.shape) for path, leaf in jax.tree.leaves_with_path(tree)}

    def _saved(self, step: int) -> Any:
        """The tree of a checkpoint, shapes in the place of arrays; `DamagedError` where it cannot be read."""
        try:
            found = self._read_metadata(step).metadata
        except InputError:
            raise
        except Exception as error:  # of Orbax's readers, whatever the damage makes of them
            raise DamagedError(step, _reason(error)) from error
        if not isinstance(found, Mapping) or "params" not in found:
            raise DamagedError(step, "the description of its arrays is missing or cannot be read")
        return {"ema": None, **found}

    def _read_metadata(self, step: int) -> Any:
        """The record and the tree of a checkpoint, in files of their own."""
        if step in self._metadata:
            return self._metadata[step]
        found = ocp.metadata(str(self._path(step)))
        if not self._writes:
            self._metadata[step] = found
        return found

    def set_aside(self, step: int) -> Path:
        """Renames a damaged checkpoint, so that it is no longer one; there is room for one of each step."""
        aside = self.folder / f"{step}.damaged"
        if jax.process_index() == 0:
            if aside.exists():
                shutil.rmtree(aside)
            self._path(step).rename(aside)
        barrier("damaged checkpoint set aside")
        return aside

    def _path(self, step: int) -> Path:
        path = self.folder / str(step)
        if not path.is_dir():
            there = ", ".join(map(str, self.steps)) or "none"
            raise InputError(f"{self.folder} has no checkpoint of step {step}; it has: {there}")
        return path

    def _load(self, step: int, target: dict[str, Any], partial: bool = False) -> dict[str, Any]:
        path, saved = self._path(step), self._read_record(step)[1]
        if saved:
            _check_arrays(step, self.folder, saved, target, partial)
        # Each process reads by itself: the barriers of a common read would be waited at in vain once one has failed.
        me = jax.process_index()
        context = ocp.Context()
        context.multiprocessing.primary_host, context.multiprocessing.active_processes = me, {me}
        context.pytree.loading.partial_load = partial
        tree, failure = {}, None
        try:
            with context:
                tree = dict(ocp.load(str(path), target))  # pyright: ignore[reportArgumentType, reportCallIssue]
        except Exception as error:  # Orbax passes on whatever its parsers, threads and tensorstore raise
            failure = _reason(error)
        if found := problems("checkpoint read", failure):
            raise DamagedError(step, next(iter(found.values())))
        lost = [path for path, leaf in jax.tree.leaves_with_path(tree) if isinstance(leaf, jax.ShapeDtypeStruct)]
        if lost:  # a partial load leaves what it does not find as it was asked for
            raise InputError(_lacks(step, self.folder, path_name(lost[0])))
        if saved:
            wrong = [name for name, value in checksums(tree).items() if value != saved[name][2]]
            if wrong:
                more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
                raise DamagedError(step, f"the values of {wrong[0]}{more} are not those that were saved")
        return tree

    def wait(self) -> None:
        """Returns when everything asked for is saved.

        Raises:
            TrainingError: it could not be.
        """
        if self._saver is not None:
            pending, self._pending = self._pending, None
            try:
                if pending is not None:
                    pending.result()  # nothing else ends its thread, or raises what went wrong in it
                self._saver.wait()
            except jax.errors.JaxRuntimeError:
                raise
            except Exception as error:  # as in `save`
                raise self._unsaved(error) from error

    def close(self) -> None:
        """Waits, then lets go of threads and files."""
        try:
            self.wait()
        except TrainingError:
            with contextlib.suppress(Exception):  # the error of the save, again
                self._close_saver()
            raise
        self._close_saver()

    def _close_saver(self) -> None:
        if self._saver is not None:
            self._saver.close()


def _tree(state: TrainState) -> dict[str, Any]:
    """The state as the tree that is saved, in one piece: each more would cost a save its own files and threads."""
    tree = {"step": state.step, "key": state.key, "params": state.params, "opt_state": state.opt_state}
    return tree if state.ema is None else {**tree, "ema": state.ema}


def _described(tree: Any, sums: dict[str, int]) -> dict[str, Any]:
    return {
        path_name(path): [str(leaf.dtype), list(leaf.shape), sums[path_name(path)]]
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


def _digest(record: Record) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _lacks(step: int, folder: Path, name: str) -> str:
    return (
        f"checkpoint {step} in {folder} lacks {name}: it was written by another version of recjax or for another model"
    )


def _check_arrays(step: int, folder: Path, saved: dict[str, Any], target: Any, partial: bool) -> None:
    """Raises InputError where a checkpoint, sound as it may be, is of another model than is asked for."""
    wanted = {path_name(path): leaf for path, leaf in jax.tree.leaves_with_path(target)}
    for name, leaf in wanted.items():
        if name not in saved:
            raise InputError(_lacks(step, folder, name))
        if tuple(saved[name][1]) != tuple(leaf.shape):
            raise InputError(
                f"{name} has shape {tuple(saved[name][1])} in checkpoint {step} of {folder}, "
                f"and {tuple(leaf.shape)} here"
            )
    more = [name for name in saved if name not in wanted]
    if more and not partial:
        raise InputError(f"checkpoint {step} in {folder} holds {more[0]}, for which there is no place here")
