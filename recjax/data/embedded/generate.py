"""Datasets that need no file: made when they are asked for, always the same."""

from functools import lru_cache

from recjax.data.embedded import function_classes, long_range, synthetic
from recjax.data.importers import RawLogs

NAMES = (*synthetic.NAMES, *long_range.TASKS, *function_classes.TASKS)


@lru_cache(maxsize=4)  # a session opens the same one again and again, and the frames are never changed
def generate(name: str) -> RawLogs:
    """The embedded dataset of one of `NAMES`."""
    if name in function_classes.TASKS:
        return function_classes.function_classes(name)
    return long_range.long_range(name) if name in long_range.TASKS else synthetic.synthetic(name)
