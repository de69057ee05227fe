"""From a recipe whose model is a sentence encoder to a run folder, and from that to the folder of an encoder."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax

from recjax.config import RunConfig
from recjax.train.encoder_task import encoder_place, open_encoder_task
from recjax.train.loop import Result, fit
from recjax.train.warm_start import has_checkpoint


@dataclass(frozen=True)
class Aligned:
    """Results of the alignment.

    Attributes:
        result: of the training.
        out: the encoder's folder; None where training was interrupted.
        before: metrics of text neighbours on the held-out catalog by the encoder as it was; None without such a
            catalog, and where a run went on.
    """

    result: Result
    out: Path | None
    before: dict[str, float] | None


def align(
    config: RunConfig, run_dir: Path, out: Path | None = None, tell: Callable[[dict[str, float]], None] = print
) -> Aligned:
    """Trains a sentence encoder on what users have one after another, or resumes, and writes it as a folder.

    Args:
        config: its model is an `Alignment`, its data a `Mixture`.
        run_dir: the run's folder.
        out: where the encoder goes, by default `encoder` in the run's folder.
        tell: gets the metrics of the encoder as it was, before the first step of a new run.

    Raises:
        InputError: another model or other data, or `out` is the folder of the encoder to begin with; see
            `recjax.train.loop.fit` for the rest.
    """
    with jax.set_mesh(config.mesh.build()):
        task = open_encoder_task(config, out)
        out = encoder_place(config, run_dir, out)
        before = None if task.validate is None or has_checkpoint(run_dir) else task.validate(task.params)
    if before is not None and jax.process_index() == 0:
        tell(before)
    result = fit(config, run_dir, task)
    return Aligned(result, None if result.preempted else out, before)
