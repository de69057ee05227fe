"""Format of a file or folder, and its reader."""

import difflib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from recjax.data.importers import amazon, catalog, catalogs, movielens, recbole, sequences, tables, tafeng
from recjax.data.importers.logs import Options, RawLogs, Reading
from recjax.data.importers.table_files import LOG, files_of, kind
from recjax.data.store.remote import Place
from recjax.typing import InputError

# Tables come last: what has a format of its own may be a csv as well. A catalog is one where there is nothing else.
FORMATS: dict[str, ModuleType] = {
    module.NAME: module for module in (movielens, recbole, amazon, sequences, tafeng, tables, catalogs)
}


def read(
    path: Path,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    *,
    name: str | None = None,
    max_refused: float = 0.01,
    reading: Reading = Reading(),  # noqa: B008 (frozen)
) -> RawLogs:
    """Reads raw logs.

    Args:
        path: a file, or a folder that holds the files of one dataset.
        format: one of `FORMATS`; None = found out from the files.
        columns: our column names to the file's, where a table calls them otherwise; other names than `user_id`,
            `item_id`, `timestamp`, `rating`, `quantity` and `order` (of events of one time) become texts of the items,
            of the catalog's table where there is one. `items.NAME` is for the catalog alone; "" says that there is no
            such column.
        name: of the dataset; None = that of the folder, or the file's.
        max_refused: share of rows that may be damaged; above it reading is an error.
        reading: how tables are read, and where the catalog is.

    Raises:
        InputError: nothing there, no dataset or several there, an unknown format, or the content is bad.
    """
    path = Path(path)
    module, paths, options = _opened(path, format, columns, max_refused, reading)
    logs = module.read(paths, options)
    if reading.items is not None and module is not tables:
        found = tables.catalog_of(path, options)
        items = tables.read_catalog(found, options, logs.notes)
        logs = replace(logs, catalog=catalog.finish(items, found[0], logs.interactions, logs.notes))
    return replace(logs, name=name or (logs.name if path.is_file() else path.resolve().name))


def open_table(
    path: Place,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    *,
    max_refused: float = 0.01,
    reading: Reading = Reading(),  # noqa: B008 (frozen)
) -> tables.Log | None:
    """The table of events at `path`, opened but not read; None where the files are in another format.

    Args and errors are those of `read`.
    """
    module, paths, options = _opened(path, format, columns, max_refused, reading)
    return tables.open_log(paths, options) if module is tables else None


def _opened(
    path: Place, format: str | None, columns: Mapping[str, str] | None, max_refused: float, reading: Reading
) -> tuple[ModuleType, tuple[Any, ...], Options]:
    if not path.exists():
        raise InputError(f"there is no file or folder {path}")
    if not 0 <= max_refused <= 1:
        raise InputError(f"max_refused is {max_refused}, expected a share between 0 and 1")
    module, paths = _detect(path, format)
    if columns and module not in (tables, recbole, catalogs):
        raise InputError(f"columns can be named for tables only; {path} is read as {module.NAME}")
    if reading != Reading(items=reading.items) and module is not tables:
        raise InputError(
            f"{path} is read as {module.NAME}, which says itself how it is read: conditions, weights, formats of times "
            "and names of columns are for tables of events"
        )
    beside = not path.is_file() or kind(path) == LOG  # one file alone may be of users, with another dataset beside it
    return module, paths, Options(columns or {}, max_refused, reading, beside)


def _detect(path: Place, format: str | None) -> tuple[ModuleType, tuple[Any, ...]]:
    files = [path] if path.is_file() else files_of(path)
    if format is not None and format not in FORMATS:
        near = difflib.get_close_matches(format, FORMATS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"there is no format {format!r}, expected one of {', '.join(FORMATS)}{hint}")
    for module in FORMATS.values() if format is None else [FORMATS[format]]:
        found = module.find(files, format is not None)
        if len(found) > 1:
            names = ", ".join(paths[0].name for paths in found)
            raise InputError(
                f"{path} holds several datasets ({names}): give the path of one file, or call the parts of one log "
                "interactions-1.csv, interactions-2.csv and so on"
            )
        if found:
            return module, found[0]
    supported = "; ".join(f"{name}: {module.EXPECTED}" for name, module in FORMATS.items())
    there = ", ".join(file.name for file in files[:10]) + (", ..." if len(files) > 10 else "")
    wanted = f"no {format} files" if format else "no dataset in a known format"
    archive = "; unpack the archive first" if any(file.suffix in (".zip", ".tar", ".7z") for file in files) else ""
    raise InputError(f"{path}: {wanted} (there: {there or 'nothing'}){archive}. Formats: {supported}")
