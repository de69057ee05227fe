"""Refresh of frozen parameters between steps: centroids, neighbours, weights, a teacher, the phase of a run.

A refresh comes before the step that it is due for and depends on nothing but the parameters and that step. A run that
resumes there repeats it, so an interrupted run ends bit for bit as the unbroken one.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from recjax.nn.groups import is_frozen, path_name
from recjax.train.state import TrainState
from recjax.train.task import Task
from recjax.typing import Array, InputError, Params

Compiled = dict[Any, Any]
"""Functions that a run has compiled for its refreshes, by what they were made of."""


@dataclass(frozen=True, eq=False)
class EpochSweep:
    """View of a run for `Model.refresh`; see `recjax.models.model.Sweep`.

    Attributes:
        task: whose samples it passes over.
        params: that `fn` is given.
        step: of the run, that the refresh is due before.
        epoch: of that step, from 0.
        functions: compiled so far.
    """

    task: Task
    params: Params
    step: int
    epoch: int
    functions: Compiled

    @property
    def samples(self) -> np.ndarray:
        """int64 [n], numbers of the samples in the order of the rows that a pass gives, ascending."""
        members = [self.task.loader.members(step) for step in range(self.task.loader.steps(1))]
        return np.sort(np.concatenate([found[found >= 0] for found in members]))

    def compiled(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """`jax.jit(fn)`, one for all refreshes of a run if `fn` is the same function or method each time."""
        return self.functions.setdefault(fn, jax.jit(fn))

    def __call__(self, fn: Callable[[Params, Any, Any], Any]) -> Any:
        loader, items = self.task.loader, self.task.items
        numbers: list[np.ndarray] = []
        found: list[Any] = []
        running: list[tuple[Any, np.ndarray]] = []

        def read() -> None:
            values, members = running.pop(0)
            numbers.append(members[members >= 0])
            found.append(jax.tree.map(lambda x: x[members >= 0], jax.device_get(values)))

        for step, batch in enumerate(loader.iterate(0, loader.steps(1))):
            members = loader.members(step)
            run = self.functions.setdefault((fn, members.shape), _of_samples(fn, members.shape[1]))
            running.append((run(self.params, batch, items[loader.catalog(step)]), members))
            if step:  # read one step late, so that the devices do not wait for the host
                read()
        read()
        order = np.argsort(np.concatenate(numbers))
        return jax.tree.map(lambda *parts: np.concatenate(parts)[order], *found)


def _of_samples(fn: Callable[[Params, Any, Any], Any], most: int) -> Callable[[Params, Any, Any], Any]:
    """The compiled pass over a batch: values [rows, length, ...] of tokens to [rows, most, ...], those of the last
    token of each sample in a row, on every device."""
    mesh = jax.sharding.get_mesh()

    def run(params: Params, batch: Any, items: Any) -> Any:
        of_sample = batch.segments[:, :, None] == jnp.arange(1, most + 1)
        places = jnp.arange(batch.segments.shape[1])[None, :, None]
        last = jnp.max(jnp.where(of_sample, places, 0), axis=1)

        def pick(values: Array) -> Array:
            if values.shape[:2] != batch.segments.shape:
                raise InputError(
                    f"a sweep's function gave an array of shape {values.shape}, expected one that begins with the "
                    f"batch's {batch.segments.shape}: a value for each token"
                )
            return jnp.take_along_axis(values, last.reshape(*last.shape, *[1] * (values.ndim - 2)), axis=1)

        return jax.tree.map(pick, fn(params, batch, items))

    return jax.jit(run, out_shardings=None if mesh.empty else NamedSharding(mesh, PartitionSpec()))


class Refresher:
    """Calls a model's `refresh` and checks that it changed frozen parameters alone.

    Args:
        task: whose model it is.
        epoch: steps of an epoch.
        freeze: patterns of the parameters that the run freezes, beside those that the model declares frozen.
    """

    def __init__(self, task: Task, epoch: int, freeze: tuple[str, ...]):
        self._task, self._epoch, self._freeze = task, epoch, freeze
        self._functions: Compiled = {}

    def __call__(self, state: TrainState, step: int) -> TrainState:
        """The state with parameters refreshed, laid out as they were, for a step that has not begun.

        Raises:
            InputError: a trained parameter was changed, or a frozen one has another shape or type; names it.
        """
        task = self._task
        sweep = EpochSweep(task, state.params, step, step // self._epoch, self._functions)
        params = task.model.refresh(state.params, task.items[task.loader.catalog(step)], sweep)
        return replace(state, params=self._checked(state.params, params))

    def _checked(self, before: Params, after: Params) -> Params:
        if jax.tree.structure(before) != jax.tree.structure(after):
            old, new = ({path_name(path) for path, _ in jax.tree.leaves_with_path(tree)} for tree in (before, after))
            raise self._fault(f"adds or leaves out {', '.join(sorted(old ^ new)) or 'a part'} of the parameters")
        return jax.tree.map_with_path(self._leaf, before, after)

    def _leaf(self, path: Any, before: Array, after: Any) -> Array:
        name = path_name(path)
        if after is before:
            return before
        if (np.shape(after), after.dtype) != (before.shape, before.dtype):
            raise self._fault(
                f"gives {name} as {after.dtype} {np.shape(after)}, but it is {before.dtype} {before.shape}"
            )
        if is_frozen(name, self._freeze):
            # A copy: what may be an alias of another parameter, such as a teacher's, is donated to the step as well.
            return jax.device_put(after, before.sharding, may_alias=False)
        if not bool(jnp.array_equal(before, after)):
            raise self._fault(f"changes {name}, which is trained: it may change frozen parameters alone")
        return before

    def _fault(self, what: str) -> InputError:
        return InputError(f"refresh of {type(self._task.model).__name__} {what}")
