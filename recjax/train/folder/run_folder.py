"""A run folder belongs to one configuration and one dataset."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from recjax import config as configs
from recjax.config import RunConfig
from recjax.files import read_json
from recjax.train.errors import TrainingError
from recjax.typing import InputError

CONFIG = "config.json"
CHECKPOINTS = "checkpoints"
FREE_SETTINGS = ("mesh", "train.log_every", "train.save_every", "train.keep")
"""Settings that may change when a run resumes, for they change nothing of what is computed."""

LONGER = ("train.steps", "train.epochs", "train.patience")
"""Settings that may become larger when a run goes on, and patience none: it then takes more steps."""

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE)
"""Error numbers of a disk rather than of the program: full, read-only, not ours, broken, gone."""


@contextmanager
def written(run_dir: Path) -> Iterator[None]:
    """Turns a disk that cannot be written to into the end of the run, in words."""
    try:
        yield
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        where = error.filename or f"{run_dir}, or to standard output"
        raise TrainingError(
            f"cannot write to {where}: {error.strerror}. The checkpoints in "
            f"{run_dir / CHECKPOINTS} are complete; once it can be written to, the same command resumes after the last"
        ) from error


def check_config(run_dir: Path, config: RunConfig, longer: bool = False) -> list[str]:
    """Checks that the folder is empty of runs or holds one of this configuration; settings that did not exist when it
    was made count with their defaults.

    Args:
        run_dir: the folder.
        config: to train.
        longer: whether the run may be to take more steps than it was (`LONGER`).

    Returns:
        How the run is to be longer, in words.

    Raises:
        InputError: it holds a run of another configuration; names the first settings that differ.
    """
    path = run_dir / CONFIG
    if not path.exists():
        return []
    if not isinstance(held := read_json(path), dict):
        raise InputError(f"{path} is not the configuration of a run")
    differences = configs.diff(configs.completed(held, config), config)
    differing = {key: values for key, values in differences.items() if not _free(key)}
    more = {key: values for key, values in differing.items() if longer and key in LONGER and _is_more(*values)}
    if differing := {key: values for key, values in differing.items() if key not in more}:
        shown = "; ".join(f"{key} is {old!r} there and {new!r} now" for key, (old, new) in differing.items())
        raise InputError(f"{run_dir} holds a run of another configuration: {shown}. Give the run another folder")
    return [f"{key} was {old} and is {'none' if new is None else new} now" for key, (old, new) in more.items()]


def _is_more(old: Any, new: Any) -> bool:
    numbers = isinstance(old, int | float) and isinstance(new, int | float)
    return new > old if numbers else isinstance(old, int | float) and new is None


def claim(run_dir: Path, config: RunConfig) -> None:
    """Makes the folder the configuration's; once a task could be opened, so that a bad setting claims nothing."""
    run_dir.mkdir(parents=True, exist_ok=True)
    if jax.process_index() == 0:
        configs.save(config, run_dir / CONFIG)


def _free(key: str) -> bool:
    return any(key == free or key.startswith(free + ".") for free in FREE_SETTINGS)


def check_dataset(run_dir: Path, record: dict[str, Any], name: str, fingerprint: str, advice: str = "") -> None:
    """Raises InputError, ending in the advice, where a checkpoint's record names another dataset than the one given."""
    held = record["dataset"]
    if held["fingerprint"] != fingerprint:
        if held["name"] == name:
            found = f"has fingerprint {fingerprint} now: its content or preparation has changed"
        else:
            found = f"is another one ({fingerprint}), and the run knows its own catalog alone"
        raise InputError(
            f"{run_dir} was trained on dataset {held['name']!r} with fingerprint {held['fingerprint']}, but "
            f"{name!r} {found}{advice}"
        )
