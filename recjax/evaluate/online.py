"""Cost of one more event of a user, through the state that a model keeps of the user."""

import statistics
import time

import numpy as np

from recjax.data.batches.views import View
from recjax.evaluate.stream import Stream
from recjax.models.model import Model
from recjax.typing import InputError, Params

EVENTS = 32
"""Events that are timed, one after another."""


def online_cost(model: Model, params: Params, view: View) -> dict[str, float]:
    """Time of one more event of one user whose history fills half the view, and what is kept of a user.

    Args:
        model: any; one that does not stream has no such cost.
        params: its parameters.
        view: of training.

    Returns:
        `ms`, the median of some events, and `bytes_per_user`; empty where the model cannot be advanced event by event.
    """
    try:
        stream = Stream(model, params, view, users_per_batch=1)
    except InputError:
        return {}
    before = max(view.max_length // 2, 1)
    items = np.random.default_rng(0).integers(1, model.n_items + 1, min(view.max_length, before + EVENTS))

    def push(items: np.ndarray) -> float:
        started = time.perf_counter()
        stream.push(["user"] * len(items), items)
        stream.wait()
        return time.perf_counter() - started

    push(items[: before - 1])
    push(items[before - 1 : before])  # the shape of those that are timed is compiled here
    seconds = [push(items[at : at + 1]) for at in range(before, len(items))]
    return {"ms": 1000 * statistics.median(seconds), "bytes_per_user": float(stream.bytes_per_user)}
