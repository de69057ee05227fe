"""Folders of sentence encoders and language models: by path, by name under a variable, or from the Hugging Face hub."""

import os
from dataclasses import dataclass
from pathlib import Path

from recjax.typing import InputError, shorten


@dataclass(frozen=True)
class Kind:
    """A kind of model that has a folder.

    Attributes:
        noun: in messages.
        variable: of the environment, that names folders of such folders.
        wanted: files that are fetched from the hub: no pickle, no weights of other frameworks.
    """

    noun: str
    variable: str
    wanted: tuple[str, ...]

    def roots(self) -> list[Path]:
        """The folders that the variable names."""
        return [Path(entry).expanduser() for entry in os.environ.get(self.variable, "").split(os.pathsep) if entry]


ENCODER = Kind(
    "sentence encoder",
    "RECJAX_ENCODERS",
    ("*.json", "*/config.json", "model.safetensors", "*/model.safetensors"),
)
LANGUAGE_MODEL = Kind("language model", "RECJAX_LANGUAGE_MODELS", ("*.json", "*.safetensors"))

CONFIG = "config.json"

LONGEST = 4096
"""Characters of a name: what file systems take."""

MADE = "encoder"
"""Folder of a run of `recjax align` that holds the encoder which it has made."""


def find_folder(name: str, kind: Kind = ENCODER) -> Path:
    """The folder that `name` means.

    Args:
        name: a path; or a name such as `all-MiniLM-L6-v2` or `sentence-transformers/all-MiniLM-L6-v2`, looked for under
            each folder of the kind's variable, whole and by its last part; or an `owner/name` of the hub, fetched into
            the hub's own cache where `huggingface_hub` is installed.
        kind: of the model.

    Raises:
        InputError: nothing is there; says where it looked and why the hub did not help.
    """
    if not name:
        raise InputError(f"the {kind.noun}'s folder is empty, expected a folder or the name of a model")
    roots = kind.roots()
    if "\0" in name or len(name) > LONGEST:
        raise InputError(f"the {kind.noun} is called {shorten(repr(name))}, expected a folder or the name of a model")
    try:
        given = Path(name).expanduser()
    except RuntimeError as error:  # ~ of a user who does not exist
        raise InputError(f"no {kind.noun} at {name!r}: {error}") from None
    places = [given, *(root / part for root in roots for part in dict.fromkeys((name, given.name)))]
    for place in places:
        if _has_config(place):
            return place
    if given.is_dir():
        raise InputError(f"{given} has no {CONFIG}: it is not the folder of a {kind.noun}")
    looked = f"no {kind.noun} at {name!r}; looked at {', '.join(map(str, places))}"
    if not roots:
        looked += f" (${kind.variable}, a folder of {kind.noun}s, is not set)"
    if given.name == MADE:
        looked += f"; it would be what `recjax align` writes into its run's folder, {given.parent}"
    if name.count("/") != 1 or given.is_absolute() or name[0] in ".~":
        raise InputError(f"{looked}; an id of the Hugging Face hub would be 'owner/name'")
    return _from_hub(name, kind, looked)


def _has_config(folder: Path) -> bool:
    try:
        return (folder / CONFIG).is_file() or (folder / "modules.json").is_file()
    except OSError:  # a name longer than the file system takes, or a folder that is not ours to see
        return False


def _from_hub(name: str, kind: Kind, looked: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import CacheNotFound, RevisionResolutionError
    except ImportError:
        raise InputError(f"{looked}; to fetch it from the hub: pip install 'recjax[hub]'") from None
    try:
        return Path(snapshot_download(name, allow_patterns=list(kind.wanted)))
    except (OSError, ValueError, CacheNotFound, RevisionResolutionError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{looked}; the Hugging Face hub did not give it: {reason}") from error
