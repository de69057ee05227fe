"""Embedded tasks of functions that only a history defines: which mixers pick up a rule that is a user's own.

A "user" is x1 y1 x2 y2 ... with one function for all pairs, drawn for the user; the last y is the target: split by
user, history not masked, hr@1 is the accuracy. Users have different numbers of pairs, so the accuracy by history length
is that of the k-th pair. Of `permutations` and `window-1`, a y that stands in the history (the slice "repeat") can be
looked up beside its x, and one that does not ("novel") needs the rule.

* `window-1`, `window-2`, `window-3`: y_i = sum_j a_j x_(i-j) mod 17 over the last x, two or three of them, those before
  the first being 0: linear functions of a sliding window (in context, as Garg et al. 2022 and those after them; with
  residues here in place of real numbers).
* `permutations`: y_i is one of 16 others, a different one for each x: there is no rule, so lookup is all there is.
* `random-labels`: y_i is drawn afresh each time: the control, of which nothing can be learned.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from recjax.data.importers import RawLogs
from recjax.typing import InputError


@dataclass(frozen=True)
class Functions:
    """Sizes of a set of functions.

    Attributes:
        kind: of the functions.
        count: users, each with a function.
        fewest: pairs of the shortest history, the target's among them.
        most: pairs of the longest.
        symbols: values of x, and of y.
        window: values of x that a linear function has coefficients for.
    """

    kind: Literal["linear", "permutation", "none"]
    count: int = 12_000
    fewest: int = 2
    most: int = 16
    symbols: int = 17
    window: int = 1


TASKS = {
    "window-1": Functions("linear"),
    "window-2": Functions("linear", window=2),
    "window-3": Functions("linear", window=3),
    "permutations": Functions("permutation", symbols=16),
    "random-labels": Functions("none"),
}


def function_classes(name: str, seed: int = 0, task: Functions | None = None) -> RawLogs:
    """Generates a task: the same bits for the same arguments.

    Args:
        name: one of `TASKS`.
        seed: of everything random.
        task: other sizes than the named ones.

    Raises:
        InputError: unknown name, or sizes that cannot be.
    """
    if name not in TASKS:
        raise InputError(f"no embedded task named {name!r}, expected one of {', '.join(TASKS)}")
    task = task or TASKS[name]
    if not 1 <= task.fewest <= task.most or min(task.count, task.window) < 1 or task.symbols < 2:
        raise InputError(f"{task} cannot be: expected positive sizes, fewest <= most, 2 symbols or more")
    rng = np.random.default_rng([seed, list(TASKS).index(name)])
    x = rng.integers(task.symbols, size=(task.count, task.most))
    tokens = np.stack([x, task.symbols + _values(rng, task, x)], axis=2).reshape(task.count, -1)
    happened = np.arange(2 * task.most) < 2 * rng.integers(task.fewest, task.most + 1, (task.count, 1))
    owner, place = np.nonzero(happened)
    ids = np.array([f"{letter}{value:02d}" for letter in "xy" for value in range(task.symbols)])
    interactions = pl.DataFrame({"user_id": owner, "item_id": ids[tokens[happened]], "timestamp": place}).with_columns(
        pl.format("function-{}", pl.col("user_id").cast(pl.String).str.zfill(6)).alias("user_id")
    )
    return RawLogs(
        name=name,
        interactions=interactions,
        catalog=pl.DataFrame({"item_id": ids, "title": ids}),
        notes={"format": "function classes", "task": repr(task), "seed": seed},
    )


def _values(rng: np.random.Generator, task: Functions, x: np.ndarray) -> np.ndarray:
    """int64 [count, most]: y of each x."""
    if task.kind == "none":
        return rng.integers(task.symbols, size=x.shape)
    if task.kind == "permutation":
        order = rng.random((task.count, task.symbols)).argsort(axis=1)
        return np.take_along_axis(order, x, axis=1)
    coefficients = rng.integers(task.symbols, size=(task.count, task.window))
    coefficients[:, 0] = rng.integers(1, task.symbols, task.count)  # y depends on its own x
    y = np.zeros_like(x)
    for back in range(min(task.window, task.most)):
        y[:, back:] += coefficients[:, back, None] * x[:, : task.most - back]
    return y % task.symbols
