"""MovieLens as GroupLens publishes it: 100K (`u.data`), 1M and 10M (`::`), 20M and later (csv).

All three have movies beside the ratings (`u.item`, `movies.dat`, `movies.csv`); without that file items have no titles.
The older two are Latin-1, which their READMEs say or their accents show; copies converted to UTF-8 are read too.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from recjax.data.importers import catalog, delimited
from recjax.data.importers.delimited import Layout
from recjax.data.importers.logs import Options, RawLogs, Refusals, files_note
from recjax.data.importers.rows import to_events
from recjax.data.importers.tables import match, renamed
from recjax.typing import InputError

NAME = "movielens"
EXPECTED = "u.data and u.item (100K), ratings.dat and movies.dat (1M, 10M), ratings.csv and movies.csv (20M and later)"

_GENRES = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
"""The last 19 columns of `u.item`, each 0 or 1."""

_EVENTS = ("user_id", "item_id", "rating", "timestamp")
_CSV = {"user_id": "userId", "item_id": "movieId", "rating": "rating", "timestamp": "timestamp"}
_VARIANTS = {
    "u.data": (Layout("\t", quoted=False, header=_EVENTS), "u.item"),
    "ratings.dat": (Layout("::", quoted=False, header=_EVENTS), "movies.dat"),
    "ratings.csv": (Layout(), "movies.csv"),
}


def find(files: Sequence[Path], sure: bool) -> list[tuple[Path, ...]]:
    """The ratings among `files`; `sure` = the user says they are MovieLens."""
    found = [file for file in files if file.name in _VARIANTS]
    if not sure:
        found = [file for file in found if file.name != "ratings.csv" or "movieId" in delimited.first_line(file)[1]]
    return [(file,) for file in found]


def read(paths: Sequence[Path], options: Options) -> RawLogs:
    """Reads ratings, and the movies beside them.

    Raises:
        InputError: see `recjax.data.importers.rows.to_events`.
    """
    (path,) = paths
    layout, movies_name = _VARIANTS[path.name]
    movies = path.with_name(movies_name)
    notes: dict[str, Any] = {
        "format": f"{NAME} ({path.name})",
        "files": files_note(path, movies if movies.is_file() else None),
    }
    rows = delimited.read(path, layout)
    names: dict[str, str] = dict(zip(_EVENTS, _EVENTS, strict=True))
    if layout.header is None:
        usual = {ours: (theirs,) for ours, theirs in _CSV.items()}
        names = match(delimited.header(path, layout), usual, {}, path, required=_EVENTS)
        rows = renamed(rows, names)
    events = to_events(rows, options, notes, names)
    items = _movies(movies, options, notes) if movies.is_file() else None
    return RawLogs(path.parent.name, events, catalog.finish(items, movies, events, notes), notes)


def _movies(path: Path, options: Options, notes: dict[str, Any]) -> pl.DataFrame:
    """Columns `item_id`, `title`, `categories` (genres, separated by `|`)."""
    if path.suffix == ".csv":
        rows = delimited.read(path, Layout())
        usual = {"item_id": ("movieId",), "title": ("title",), "categories": ("genres",)}
        names = match(delimited.header(path, Layout()), usual, {}, path, required=tuple(usual))
        frame = catalog.collect(renamed(rows, names), options, notes)
        return frame.with_columns(pl.col("categories").replace("(no genres listed)", None))
    layout = Layout("|" if path.name == "u.item" else "::", quoted=False, latin=True)
    width = 5 + len(_GENRES) if path.name == "u.item" else 3
    refusals, kept = Refusals(), []
    for line, fields in delimited.fields(path, layout):
        if not isinstance(fields, list) or len(fields) != width:
            found = layout.separator.join(fields)
            refusals.add(f"{width} fields expected", line, found)
            continue
        genres = fields[2]
        if path.name == "u.item":
            genres = "|".join(genre for genre, flag in zip(_GENRES, fields[5:], strict=True) if flag == "1")
        kept.append((fields[0], fields[1], genres))
    total = len(kept) + refusals.total
    if not total:
        raise InputError(f"the catalog {path} has no rows: fill it, or remove it to continue without item texts")
    refusals.check(total, options.max_refused, path)
    notes["catalog_rows_refused"] = refusals.to_json()
    schema = {"item_id": pl.String, "title": pl.String, "categories": pl.String}
    frame = pl.DataFrame(kept, schema=schema, orient="row")
    return frame.with_columns(catalog.unescape("title"))  # one title of 1M has an HTML entity
