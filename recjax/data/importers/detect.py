"""Which format a file or folder is in, and reading it."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from recjax.data.importers import tables
from recjax.data.importers.logs import Options, RawLogs
from recjax.typing import InputError

_IMPORTERS: tuple[ModuleType, ...] = (tables,)
FORMATS: dict[str, ModuleType] = {module.NAME: module for module in _IMPORTERS}


def read(
    path: Path,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    *,
    name: str | None = None,
    max_refused: float = 0.01,
) -> RawLogs:
    """Reads raw logs.

    Args:
        path: a file, or a folder that holds the files of one dataset.
        format: one of `FORMATS`; None = found out from the files.
        columns: our column names to the file's, where a table calls them otherwise.
        name: of the dataset; None = that of the folder or file.
        max_refused: share of rows that may be damaged; above it reading is an error.

    Raises:
        InputError: nothing there, no or several datasets there, an unknown format, or the content is bad.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"there is no file or folder {path}")
    if not 0 <= max_refused <= 1:
        raise InputError(f"max_refused is {max_refused}, expected a share between 0 and 1")
    files = [path] if path.is_file() else sorted(entry for entry in path.iterdir() if entry.is_file())
    for module in _IMPORTERS:
        found = module.find(files)
        if len(found) > 1:
            raise InputError(f"{path} holds several datasets: {', '.join(f.name for f in found)}; name one")
        if found:
            logs = module.read(found[0], Options(columns or {}, max_refused))
            return RawLogs(name or path.name.split(".")[0], logs.interactions, logs.catalog, logs.notes)
    raise InputError(f"{path} is in no format known")
