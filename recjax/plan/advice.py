"""The nearest setting under which a program fits that does not."""

from collections.abc import Callable, Iterator

from recjax.config import RunConfig, override_all
from recjax.plan.estimate import Estimate
from recjax.typing import InputError

Attempt = Callable[[RunConfig], Estimate | int]
"""A configuration -> its estimate; or, where its arguments alone are too large, their bytes, without compiling."""


def nearest(config: RunConfig, attempt: Attempt) -> tuple[list[str], Estimate] | None:
    """The first of a few changes, from the least to the most disturbing, under which a program fits.

    Args:
        config: that does not fit.
        attempt: what to try changes with.

    Returns:
        The settings and what they lead to, or None.
    """
    for settings in _changes(config):
        try:
            found = attempt(override_all(config, settings))
        except InputError:  # the model has no such setting, or the mesh cannot be
            continue
        if isinstance(found, Estimate) and found.fits:
            return settings, found
    return None


def _changes(config: RunConfig) -> Iterator[list[str]]:
    """Settings to try: first those that change no result, then rows over fewer bits, then fewer rows."""
    parts, model, rows = config.train.parts, config.mesh.model, config.data.rows
    yield from ([f"train.accumulate={parts * factor}"] for factor in (2, 4))
    yield ["model.remat=true"]
    if config.mesh.shard_state == "none":
        yield ["mesh.shard_state=optimiser"]
    yield from ([f"mesh.model={model * factor}"] for factor in (2, 4, 8, 16))
    yield [f"mesh.model={model * 4}", "mesh.shard_state=optimiser", f"train.accumulate={parts * 4}"]
    yield ["model.dtype=bfloat16"]
    yield [f"data.rows={rows // 2}"]
