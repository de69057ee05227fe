"""Datasets that need no file: made when they are asked for, always the same."""

from recjax.data.embedded import long_range, synthetic
from recjax.data.importers import RawLogs

NAMES = (*synthetic.NAMES, *long_range.TASKS)


def generate(name: str) -> RawLogs:
    """The embedded dataset of one of `NAMES`."""
    return long_range.long_range(name) if name in long_range.TASKS else synthetic.synthetic(name)
