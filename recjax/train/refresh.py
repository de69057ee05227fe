"""Refresh of frozen parameters between steps: centroids, neighbours, weights, a teacher, the phase of a run.

A refresh comes before the step that it is due for and depends on nothing but the parameters and that step. A run that
resumes there repeats it, so an interrupted run ends bit for bit as the unbroken one.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from recjax.data.batches.views import Batch
from recjax.data.items import Items
from recjax.nn.groups import is_frozen, path_name
from recjax.train.state import TrainState
from recjax.train.task import Task
from recjax.typing import Array, InputError, Params


@dataclass(frozen=True, eq=False)
class EpochSweep:
    """Passes over the first epoch of a task's loader; a `recjax.models.model.Sweep`.

    Attributes:
        task: whose samples they are.
        params: what passes are made with.
        step: that the refresh comes before.
        functions: compiled so far in this run.
    """

    task: Task
    params: Params
    step: int
    functions: dict[Any, Any]

    @property
    def epoch(self) -> int:
        return self.step // self._batches

    @property
    def samples(self) -> np.ndarray:
        return np.sort(np.concatenate([found[found >= 0] for found in self._members]))

    def compiled(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        return self.functions.setdefault(fn, jax.jit(fn))

    def __call__(self, fn: Callable[[Params, Any, Items], Any]) -> Any:
        loader, items, members = self.task.loader, self.task.items, self._members
        run = self.functions.setdefault(("last tokens", fn), _last_tokens(fn, members[0].shape[1]))
        running: list[Any] = []
        found: list[Any] = []

        def read() -> None:
            held = members[len(found)] >= 0
            found.append(jax.tree.map(lambda x: x[held], jax.device_get(running.pop())))

        for step, batch in enumerate(loader.iterate(0, self._batches)):
            values = run(self.params, batch, items[loader.catalog(step)])
            if running:  # read one step late, so that the devices do not wait for the host
                read()
            running.append(values)
        read()
        order = np.argsort(np.concatenate([rows[rows >= 0] for rows in members]))
        return jax.tree.map(lambda *parts: np.concatenate(parts)[order], *found)

    @property
    def _batches(self) -> int:
        return self.task.loader.steps(1)

    @cached_property
    def _members(self) -> list[np.ndarray]:
        return [self.task.loader.members(step) for step in range(self._batches)]


def _last_tokens(fn: Callable[[Params, Any, Items], Any], most: int) -> Callable[..., Any]:
    """The compiled pass over a batch: [b, most, ...] on every device, the values of `fn` at the last token of each of
    the up to `most` samples of a row."""
    mesh = jax.sharding.get_mesh()

    def run(params: Params, batch: Batch, items: Items) -> Any:
        own = batch.segments[:, :, None] == jnp.arange(1, most + 1)
        last = jnp.max(jnp.where(own, jnp.arange(own.shape[1])[:, None], 0), axis=1)

        def pick(values: Array) -> Array:
            if values.shape[:2] != own.shape[:2]:
                raise InputError(
                    f"the function of a sweep gives an array {values.shape}, expected {(*own.shape[:2], '...')}: a "
                    "value for each token of the batch"
                )
            return jnp.take_along_axis(values, last.reshape(*last.shape, *[1] * (values.ndim - 2)), axis=1)

        return jax.tree.map(pick, fn(params, batch, items))

    return jax.jit(run, out_shardings=None if mesh.empty else NamedSharding(mesh, PartitionSpec()))


class Refresher:
    """Calls a model's `refresh` and checks that it changes frozen parameters alone.

    Args:
        task: whose model it is.
        freeze: patterns of the parameters that the run freezes beside those that the model declares frozen.
    """

    def __init__(self, task: Task, freeze: tuple[str, ...]):
        self._task, self._freeze = task, freeze
        self._functions: dict[Any, Any] = {}

    def __call__(self, state: TrainState, step: int) -> TrainState:
        """The state with its parameters refreshed for a step, laid out as before.

        Raises:
            InputError: a trained parameter is changed, or a frozen one gets another shape or type; names it.
        """
        task = self._task
        sweep = EpochSweep(task, state.params, step, self._functions)
        params = task.model.refresh(state.params, task.items[task.loader.catalog(step)], sweep)
        return replace(state, params=self._checked(state.params, params))

    def _checked(self, before: Params, after: Params) -> Params:
        old, new = ({path_name(path) for path, _ in jax.tree.leaves_with_path(tree)} for tree in (before, after))
        if old != new:
            raise self._fault(f"adds or leaves out {', '.join(sorted(old ^ new))}")
        return jax.tree.map_with_path(self._leaf, before, after)

    def _leaf(self, path: Any, before: Array, after: Any) -> Array:
        name = path_name(path)
        if after is before:
            return before
        if not isinstance(after, jax.Array):
            after = np.asarray(after)
        if (np.shape(after), after.dtype) != (before.shape, before.dtype):
            raise self._fault(
                f"gives {name} as {after.dtype} {np.shape(after)}, but it is {before.dtype} {before.shape}"
            )
        if is_frozen(name, self._freeze):
            # A copy: an alias of another parameter, such as a teacher's, would be donated to the step twice.
            copy = jax.jit(jnp.copy, out_shardings=before.sharding)
            return self._functions.setdefault(("copy", name), copy)(after)
        if not bool(jnp.array_equal(before, after)):
            raise self._fault(f"changes {name}, which is trained: it may change frozen parameters alone")
        return before

    def _fault(self, what: str) -> InputError:
        return InputError(f"refresh of {type(self._task.model).__name__} {what}")
