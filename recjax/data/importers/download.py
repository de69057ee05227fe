"""Datasets fetched from their publishers, checked, and put in place whole or not at all.

Checksums are those that the publisher prints beside the file (GroupLens: `ml-1m.zip.md5` and so on); the one of
`ml-latest-small`, which may change over time, is of the version of September 2018. Amazon's publishers print none at
all: there, the length that the server announces and the integrity of the gzip stream are checked, and the sha256 of
what came is recorded in `download.json`, so that two machines can be compared. Not `pooch`: it compares checksums, but
neither the announced length nor the gzip stream, and so would take half a file where no checksum is printed.
"""

import difflib
import gzip
import hashlib
import json
import shutil
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from recjax.files import read_json
from recjax.scratch import scratch_beside
from recjax.typing import InputError

RECORD = "download.json"
_TIMEOUT = 30  # seconds without an answer
_BLOCK = 1 << 20


@dataclass(frozen=True)
class RemoteFile:
    """One file of a publisher.

    Attributes:
        url: where it is.
        checksum: "md5:..." or "sha256:..."; None when nobody prints one.
    """

    url: str
    checksum: str | None = None

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


_GROUPLENS = "https://files.grouplens.org/datasets/movielens"
_AMAZON_2014 = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
_AMAZON_2018 = "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2"
_AMAZON_2023 = "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023"

_MOVIELENS = {
    "ml-100k": "md5:0e33842e24a9c977be4e0107933c0723",
    "ml-1m": "md5:c4d9eecfca2ab87c1945afe126590906",
    "ml-10m": "md5:ce571fd55effeba0271552578f2648bd",
    "ml-20m": "md5:cd245b17a1ae2cc31bb14903e1204af3",
    "ml-25m": "md5:6b51fb2759a8657d3bfcbfc42b592ada",
    "ml-32m": "md5:d472be332d4daa821edc399621853b57",
    "ml-latest-small": "sha256:696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",
}
_CATEGORIES = {
    2014: {
        "beauty": "Beauty",
        "books": "Books",
        "clothing": "Clothing_Shoes_and_Jewelry",
        "games": "Video_Games",
        "health": "Health_and_Personal_Care",
        "instruments": "Musical_Instruments",
        "office": "Office_Products",
        "sports": "Sports_and_Outdoors",
        "toys": "Toys_and_Games",
    },
    2018: {
        "arts": "Arts_Crafts_and_Sewing",
        "games": "Video_Games",
        "giftcards": "Gift_Cards",
        "industrial": "Industrial_and_Scientific",
        "instruments": "Musical_Instruments",
        "office": "Office_Products",
    },
    2023: {
        "books": "Books",
        "games": "Video_Games",
        "industrial": "Industrial_and_Scientific",
        "instruments": "Musical_Instruments",
        "movies": "Movies_and_TV",
    },
}


def _amazon(year: int, category: str) -> tuple[RemoteFile, ...]:
    """The 5-core reviews of a category, and its metadata."""
    urls = {
        2014: (f"{_AMAZON_2014}/reviews_{category}_5.json.gz", f"{_AMAZON_2014}/meta_{category}.json.gz"),
        2018: (
            f"{_AMAZON_2018}/categoryFilesSmall/{category}_5.json.gz",
            f"{_AMAZON_2018}/metaFiles2/meta_{category}.json.gz",
        ),
        2023: (
            f"{_AMAZON_2023}/benchmark/5core/rating_only/{category}.csv.gz",
            f"{_AMAZON_2023}/raw/meta_categories/meta_{category}.jsonl.gz",
        ),
    }
    return tuple(RemoteFile(url) for url in urls[year])


SOURCES: dict[str, tuple[RemoteFile, ...]] = {
    name: (RemoteFile(f"{_GROUPLENS}/{name}.zip", checksum),) for name, checksum in _MOVIELENS.items()
} | {
    f"amazon-{short}-{year}": _amazon(year, category)
    for year, categories in _CATEGORIES.items()
    for short, category in categories.items()
}
"""Downloads by name, and their files."""


def download(name: str, into: Path, sources: Mapping[str, tuple[RemoteFile, ...]] = SOURCES) -> Path:
    """Fetches a dataset from its publisher.

    Args:
        name: one of `sources`.
        into: a folder; the dataset's files come into the folder `name` in it.
        sources: what there is.

    Returns:
        The folder `into / name`, which `read` understands. When it is there already and complete, nothing is fetched.

    Raises:
        InputError: unknown name, the publisher cannot be reached or does not have the file, or the checksum is wrong.
    """
    if name not in sources:
        near = difflib.get_close_matches(name, sources, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(
            f"{name!r} cannot be downloaded{hint} Known: {', '.join(sources)}. "
            f"For other data give the files: recjax prepare {name} --raw FOLDER"
        )
    target = Path(into) / name
    if _complete(target):
        return target
    if target.exists():
        raise InputError(f"{target} exists and is not a complete download: remove it, or give it as --raw {target}")
    with scratch_beside(target) as scratch:
        record = []
        for file in sources[name]:
            entry = _fetch(file, scratch / file.name, name)
            record.append(entry)
            if file.name.endswith(".zip"):
                _unpack(scratch / file.name, scratch, file.url)
            elif file.name.endswith(".gz"):
                _check_gzip(scratch / file.name, file.url)
        kept = [{"name": path.name, "bytes": path.stat().st_size} for path in sorted(scratch.iterdir())]
        content = {"name": name, "sources": record, "files": kept}
        (scratch / RECORD).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return target


def _complete(folder: Path) -> bool:
    """True if `folder` holds what its record lists."""
    try:
        files = read_json(folder / RECORD)["files"]
        return all((folder / file["name"]).stat().st_size == file["bytes"] for file in files)
    except (OSError, InputError, KeyError, TypeError):
        return False


def _fetch(file: RemoteFile, target: Path, name: str) -> dict[str, Any]:
    """One file to disk, with a progress line; returns what is known of it."""
    kind, _, expected = (file.checksum or "").partition(":")
    digests = {algorithm: hashlib.new(algorithm) for algorithm in {"sha256", kind or "sha256"}}
    try:
        with urllib.request.urlopen(file.url, timeout=_TIMEOUT) as answer, target.open("wb") as stream:
            length = int(answer.headers.get("Content-Length") or 0)
            size = _copy(answer, stream, list(digests.values()), file.name, length)
    except urllib.error.HTTPError as error:
        raise InputError(
            f"the publisher of {name} does not have {file.url} (HTTP {error.code} {error.reason}). {_otherwise(name)}"
        ) from error
    except OSError as error:  # URLError, time-outs and broken connections are all OSErrors
        reason = getattr(error, "reason", None) or error
        raise InputError(
            f"the publisher of {name} could not be reached: {file.url} ({reason}). {_otherwise(name)}"
        ) from error
    if length and size != length:
        raise InputError(f"{file.url}: the connection broke after {size:,} of {length:,} bytes; try again")
    if expected and digests[kind].hexdigest() != expected:
        raise InputError(
            f"{file.url}: {kind} is {digests[kind].hexdigest()}, expected {expected}; "
            "the file is damaged or the publisher has changed it. Nothing was kept"
        )
    checked = f"{kind} {expected}" if expected else "none is published; length and sha256 as received"
    return {"url": file.url, "bytes": size, "sha256": digests["sha256"].hexdigest(), "checksum": checked}


def _otherwise(name: str) -> str:
    return f"Without a network: fetch the files elsewhere, then recjax prepare {name} --raw FOLDER"


def _copy(source: Any, target: BinaryIO, digests: list[Any], label: str, length: int) -> int:
    """Bytes copied; every block goes through the digests and moves the bar."""
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    size = 0
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=length or None)
        while block := source.read(_BLOCK):
            for digest in digests:
                digest.update(block)
            target.write(block)
            size += len(block)
            progress.update(task, completed=size)
    return size


def _unpack(archive: Path, folder: Path, url: str) -> None:
    """The archive's files, without its folders; the archive goes. Names are cut to their last part, so none leaves."""
    try:
        with zipfile.ZipFile(archive) as opened:
            for member in opened.infolist():
                file = Path(member.filename).name
                if member.is_dir() or not file or file.startswith("._"):
                    continue
                if (folder / file).exists():
                    raise InputError(f"{url}: the archive has two files named {file}")
                with opened.open(member) as source, (folder / file).open("wb") as target:
                    shutil.copyfileobj(source, target, _BLOCK)
    except (zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{url}: the archive is damaged ({error}). Nothing was kept") from error
    archive.unlink()


def _check_gzip(path: Path, url: str) -> None:
    """Raises InputError unless the whole stream decompresses; its own check sum is the only one there is."""
    try:
        with gzip.open(path, "rb") as stream:
            while stream.read(_BLOCK):
                pass
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{url}: the file is damaged ({error}). Nothing was kept") from error
