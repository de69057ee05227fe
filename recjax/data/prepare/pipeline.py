"""`build` and `save` as Apache Beam pipelines, for logs that outgrow one machine: the same folder, byte for byte.

Three kinds of pipeline, each reading what the one before wrote:

1. read: a worker a file of the log; events are grouped by user, sorted, and freed of what the options drop;
2. core, repeated until nothing changes: users and rare items are counted and dropped, a few rounds a pipeline;
3. write: users are ranked by their first event, dealt to shards by the rule of the local path, and written.

A worker holds one file of the log, one shard (at most a GiB by TFDS's rule) or one user at a time, and the list of item
ids. The process that starts the pipelines holds the catalog, and hashes the columns as they pass by. TFDS's own Beam
writer is not used: it deals records to shards by their keys' values, so the shards depend on more than the content.
"""

import json
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam  # pyright: ignore[reportMissingImports]  (the extra `beam`)
import numpy as np
import polars as pl
from apache_beam.io import ReadFromParquet, WriteToParquet  # pyright: ignore[reportMissingImports]
from apache_beam.options.pipeline_options import (  # pyright: ignore[reportMissingImports]
    PipelineOptions,
    StandardOptions,
)
from apache_beam.pvalue import AsSingleton, TaggedOutput  # pyright: ignore[reportMissingImports]
from apache_beam.runners.runner import create_runner  # pyright: ignore[reportMissingImports]

from recjax.data.dataset import OF_EVENTS
from recjax.data.importers import open_table, read, tables
from recjax.data.importers.logs import RawLogs, Reading
from recjax.data.importers.timestamps import NANOSECOND
from recjax.data.prepare import history_rows
from recjax.data.prepare.build import catalog_of_items, describe, validated
from recjax.data.prepare.fingerprint import Content, canonical_values, encode_texts, fingerprint_of_pieces
from recjax.data.prepare.history_rows import Row
from recjax.data.prepare.preparation import Preparation, check_rated, check_steps, sort, ties
from recjax.data.store import records
from recjax.data.store.locate import cache_folder
from recjax.data.store.prepared import atomic_folder, write_header
from recjax.data.store.remote import Place, fetched, local, remove, written
from recjax.typing import InputError

ROUNDS = 3
"""Rounds of the k-core in one pipeline; a round without anything to drop costs one more count."""

_ROWS = 1 << 40  # more than a file has; an event's place is file * _ROWS + row
_RANGE = 1 << 16  # places that are ranked together
_NOUNS = ("users", "items", "interactions")
_EQUAL, _FINER = -1, -2  # beside the numbers of steps: events of equal time, users with times below a second


@dataclass(frozen=True)
class Runner:
    """Runner of pipelines: by name, with Beam's own options as on its command lines."""

    name: str
    options: str = ""

    def pipeline(self) -> Any:
        """An empty pipeline.

        Raises:
            InputError: there is no such runner, or it needs a package that is not installed.
        """
        try:
            options = shlex.split(self.options)
        except ValueError as error:
            raise InputError(f"--beam-options {self.options!r}: {error}") from error
        try:
            runner = create_runner(self.name)
        except (ValueError, AttributeError, ModuleNotFoundError) as error:
            known = ", ".join(StandardOptions.KNOWN_RUNNER_NAMES)
            raise InputError(f"--beam {self.name}: Beam has no such runner ({error}); it has {known}") from error
        except ImportError as error:
            raise InputError(f"--beam {self.name}: {error}") from error
        return beam.Pipeline(runner=runner, options=PipelineOptions(options))


def prepare(
    raw: Place,
    out: Place,
    options: Preparation,
    runner: Runner,
    *,
    name: str,
    format: str | None = None,
    columns: dict[str, str] | None = None,
    reading: Reading = Reading(),  # noqa: B008 (frozen)
) -> None:
    """Raw logs to a prepared dataset.

    Tables (csv, parquet) are read by the workers, a file each; other formats, which publishers have in one file, by
    this process.

    Args:
        raw: file or folder, where every worker finds it.
        out: where the dataset goes, and for the time of the pipelines all between them: every worker writes there.
        options: filters.
        runner: where it runs.
        name: of the dataset.
        format: of the logs; None = found out.
        columns: our column names to the file's.
        reading: how tables are read; not with what looks at several files at once, `order` and cancelled returns.

    Raises:
        InputError: as `recjax.data.prepare.build.build` and `save`, and where the runner cannot be.
    """
    runner.pipeline()  # told before anything is read
    with atomic_folder(out) as scratch:
        work = scratch / "work"
        if isinstance(work, Path):  # stores have no folders to make
            work.mkdir()
        log = open_table(raw, format, columns, reading=reading)
        _check(log, reading)
        logs = None
        if log is None:
            logs = read(local(raw, cache_folder()), format, columns, name=name, reading=reading)
            if not logs.interactions.height:
                raise InputError(f"{raw} is a catalog alone, which is prepared without --beam")
        if logs is not None:
            with written(work / "events.parquet") as file:
                logs.interactions.write_parquet(file)
        source: tables.Log | Place = log if log is not None else work / "events.parquet"
        rated = "rating" in (log.mapping if log is not None else logs.interactions.columns)  # pyright: ignore
        rated = rated or reading.kinds is not None
        check_rated(options, rated)
        steps, equal = _read(runner, source, name, options, work)
        item_ids = json.loads((work / "items.json").read_text())
        if log is not None:
            notes = tables.merged(log, json.loads((work / "notes.json").read_text()))
            logs = tables.finish(log, name, pl.DataFrame({"item_id": item_ids}, {"item_id": pl.String}), notes)
        assert logs is not None
        stage = "read"
        if options.has_core:
            stage = _core(runner, options, work, steps)
        _write(runner, work, stage, rated, scratch)
        _finish(scratch, work, rated, name, logs, item_ids, options, steps, equal)
        remove(work)


def _check(log: tables.Log | None, reading: Reading) -> None:
    """Raises InputError where a table needs more than one file at a time."""
    if log is not None and log.texts:
        raise InputError("texts of items from a table of events cannot be read by --beam: give them as items.csv")
    if log is not None and ("order" in log.mapping or reading.returns == "cancel"):
        raise InputError("an order within one time, and cancelled returns, cannot be read by --beam")


def _pipeline_output(path: Place, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def _save_one(collection: Any, path: Place) -> None:
    """Writes the only element of a collection as JSON."""
    _ = collection | f"write {path.name}" >> beam.Map(lambda value: _pipeline_output(path, value))


def _listed(collection: Any, label: str) -> Any:
    return collection | f"list {label}" >> beam.combiners.ToList()


# 1. Read


class _ReadPart(beam.DoFn):
    """A file of the log to its users' events; tagged: first place of each item, the account, errors."""

    def __init__(self, source: tables.Log | Place, name: str):
        self.source, self.name = source, name

    def process(self, part: int) -> Iterator[Any]:
        try:
            notes: dict[str, Any] = {}
            if isinstance(self.source, tables.Log):
                events, notes = tables.read_part(self.source, part)
            else:
                with fetched(self.source) as file:
                    events = pl.read_parquet(file)
            place = pl.int_range(part * _ROWS, part * _ROWS + pl.len(), dtype=pl.Int64)
            events = validated(events, self.name).with_columns(place.alias("place"))
        except InputError as error:  # carried as data: runners tell exceptions in many ways
            yield TaggedOutput("notes", (part, None, str(error)))
            return
        yield TaggedOutput("notes", (part, notes, None))
        for item in events.group_by("item_id").agg(pl.col("place").min()).iter_rows():
            yield TaggedOutput("items", item)
        others = [column for column in ("rating", NANOSECOND) if column in events.columns]
        grouped = events.group_by("user_id").agg(["place", "item_id", "timestamp", *others])
        for row in grouped.iter_rows(named=True):
            yield (
                row["user_id"],
                (row["place"], row["item_id"], row["timestamp"], row.get("rating"), row.get(NANOSECOND)),
            )


class _Histories(beam.DoFn):
    """All events of a user to one row; tagged: counts and items after each step."""

    def __init__(self, options: Preparation):
        self.options = options

    def process(self, element: tuple[str, Iterable[Any]], codes: dict[str, int]) -> Iterator[Any]:
        user, chunks = element
        place, events = history_rows.gathered(chunks, codes)
        yield TaggedOutput("counts", (_EQUAL, ties(sort(events))))
        if events.nanoseconds is not None:
            yield TaggedOutput("counts", (_FINER, 1))
        for number, left in enumerate(history_rows.stepped(events, self.options)):
            events = left
            if len(left):
                yield TaggedOutput("counts", (number, len(left)))
                for item in np.unique(left.items).tolist():
                    yield TaggedOutput("step_items", (number, item))
        if len(events):
            yield history_rows.to_row(user, place, sort(events))


def _added_up(step: tuple[int, dict[str, Iterable[int]]]) -> tuple[int, dict[str, int]]:
    return step[0], {noun: sum(step[1][noun]) for noun in _NOUNS}


def _in_order(firsts: list[tuple[str, int]]) -> list[str]:
    return [item for item, _ in sorted(firsts, key=lambda entry: entry[1])]


def _numbered(items: list[str]) -> dict[str, int]:
    return {item: number for number, item in enumerate(items)}


def _read(
    runner: Runner, source: tables.Log | Place, name: str, options: Preparation, work: Place
) -> tuple[list[dict[str, Any]], int | None]:
    """Writes the histories `read-*`, `items.json` and `notes.json`.

    Returns:
        The counts after each step, and `equal` of `recjax.data.prepare.build.describe`.
    """
    parts = len(source.parts) if isinstance(source, tables.Log) else 1
    with runner.pipeline() as pipeline:
        read = (
            pipeline
            | beam.Create(list(range(parts)))
            | "spread" >> beam.Reshuffle()
            | "read" >> beam.ParDo(_ReadPart(source, name)).with_outputs("items", "notes", main="users")
        )
        firsts = read.items | "first place" >> beam.CombinePerKey(min)
        items = _listed(firsts, "items") | "in order" >> beam.Map(_in_order)
        codes = items | "number" >> beam.Map(_numbered)
        histories = (
            read.users
            | "of a user" >> beam.GroupByKey()
            | "prepare" >> beam.ParDo(_Histories(options), AsSingleton(codes)).with_outputs(
                "counts", "step_items", main="rows"
            )
        )  # fmt: skip
        _ = histories.rows | WriteToParquet(str(work / "read"), history_rows.SCHEMA)
        distinct = histories.step_items | "distinct" >> beam.Distinct()
        counts = {
            "users": histories.counts | "count users" >> beam.combiners.Count.PerKey(),
            "items": distinct | "count items" >> beam.combiners.Count.PerKey(),
            "interactions": histories.counts | "count events" >> beam.CombinePerKey(sum),
        }
        counts = counts | "of a step" >> beam.CoGroupByKey() | "add up" >> beam.Map(_added_up)
        _save_one(items, work / "items.json")
        _save_one(_listed(read.notes, "notes"), work / "accounts.json")
        _save_one(_listed(counts, "counts"), work / "counts.json")
    accounts = sorted(json.loads((work / "accounts.json").read_text()), key=lambda account: account[0])
    if error := next((error for _, _, error in accounts if error is not None), None):
        raise InputError(error)
    _pipeline_output(work / "notes.json", [notes for _, notes, _ in accounts])
    found = dict(json.loads((work / "counts.json").read_text()))
    steps: list[dict[str, Any]] = []
    for number, step in enumerate(history_rows.first_steps(options)):
        counts = found.get(number, dict.fromkeys(_NOUNS, 0))
        steps.append({"step": step if step == "read" else options.step(step)} | counts)
        check_steps(steps)
    return steps, found[_EQUAL]["interactions"] if _FINER in found else None


# 2. Core


def _round(rows: Any, options: Preparation, number: int) -> tuple[Any, Any]:
    """Rows without short users, then without the items that are rare among them; and the list of those."""
    least = max(options.k_core, options.min_length)
    rows = rows | f"users {number}" >> beam.Filter(lambda row: history_rows.length(row) >= least)
    counts = (
        rows | f"count {number}" >> beam.FlatMap(history_rows.item_counts) | f"add {number}" >> beam.CombinePerKey(sum)
    )
    rare = counts | f"few {number}" >> beam.Filter(lambda item: item[1] < options.k_core)
    rare = _listed(rare | f"name {number}" >> beam.Keys(), f"rare {number}")
    return rows | f"drop {number}" >> beam.Map(history_rows.without, AsSingleton(rare)), rare


def _core(runner: Runner, options: Preparation, work: Place, steps: list[dict[str, Any]]) -> str:
    """Repeats rounds until neither users, items nor repeats are left to drop; returns what the histories are called.

    The k-core does not depend on the order in which users and items go, so the rounds may differ from the local
    path's. Repeats are dropped where that does it: each time the k-core is reached.
    """
    stage, repeats, left, counts = "read", 0, 1, {}
    attempt = 0
    while left or repeats:
        attempt += 1
        following, state = f"core{attempt}", work / f"core{attempt}.json"
        with runner.pipeline() as pipeline:
            rows = pipeline | ReadFromParquet(str(work / f"{stage}-*"))
            if repeats and not left:
                rows = rows | "repeats" >> beam.Map(history_rows.deduplicated, options)
            rare: Any = None
            for number in range(ROUNDS):
                rows, rare = _round(rows, options, number)
            rows = rows | "not empty" >> beam.Filter(history_rows.length)
            _ = rows | WriteToParquet(str(work / following), history_rows.SCHEMA)
            repeated = rows | "count repeats" >> beam.Map(history_rows.repeats, options)
            found = {
                "left": rare | "left" >> beam.Map(len),
                "repeats": repeated | "repeats left" >> _total(),
                "users": rows | "count users" >> beam.combiners.Count.Globally(),
                "items": _distinct_items(rows) | "count items" >> beam.combiners.Count.Globally(),
                "interactions": rows | "count events" >> beam.Map(history_rows.length) | "events" >> _total(),
            }
            tagged = [counts | f"tag {noun}" >> beam.Map(_tagged, noun) for noun, counts in found.items()]
            _save_one(_listed(tagged | beam.Flatten(), "state"), state)
        counts = dict(json.loads(state.read_text()))
        left, repeats = counts.pop("left"), counts.pop("repeats")
        stage = following
        if not counts["interactions"]:
            break
    steps.append({"step": options.step("k_core")} | {noun: counts[noun] for noun in _NOUNS})
    check_steps(steps)
    return stage


def _total() -> Any:
    return beam.CombineGlobally(sum)


def _distinct_items(rows: Any) -> Any:
    return rows | "items" >> beam.FlatMap(history_rows.items) | "distinct items" >> beam.Distinct()


def _tagged(value: int, noun: str) -> tuple[str, int]:
    return noun, value


# 3. Write


def _starts(counts: list[tuple[int, int]]) -> dict[int, int]:
    """Range of places -> users before it."""
    before, starts = 0, {}
    for number, count in sorted(counts):
        starts[number], before = before, before + count
    return starts


def _dealt(element: tuple[int, Iterable[Row]], starts: dict[int, int], bounds: list[int]) -> Iterator[Any]:
    """The users of a range of places to shards: (shard, (user number, row))."""
    number, rows = element
    for rank, row in enumerate(sorted(rows, key=lambda row: row["place"]), starts[number]):
        yield int(np.searchsorted(bounds, rank, side="right")), (rank, row)


def _shard(element: tuple[int, Iterable[Any]], bounds: list[int], folder: Place, work: Place) -> dict[str, int]:
    """Writes a shard, and beside it its columns as they are hashed."""
    shard, ranked = element
    rows = [row for _, row in sorted(ranked, key=lambda entry: entry[0])]
    records.write_shard(folder / records.shard_name(shard, len(bounds)), map(history_rows.serialized, rows))
    sizes, texts = encode_texts([row["user"] for row in rows])
    lengths = np.array([history_rows.length(row) for row in rows], "<i8")
    pieces = {"sizes": sizes, "texts": texts, "lengths": lengths.tobytes()}
    pieces |= {column: b"".join(row[column] for row in rows) for column in ("items", "times")}
    if rows[0]["values"] is not None:
        values = np.frombuffer(b"".join(row["values"] for row in rows), np.float32)
        pieces["values"] = canonical_values(values).tobytes()
    for column, data in pieces.items():
        (work / f"{column}-{shard:05d}").write_bytes(data)
    return {"shard": shard, "texts": len(texts), "events": int(lengths.sum())}


def _write(runner: Runner, work: Place, stage: str, rated: bool, folder: Place) -> None:
    """Writes the shards into `folder`; their columns, bounds and sizes, and the items that are kept, into `work`."""
    with runner.pipeline() as pipeline:
        read = pipeline | ReadFromParquet(str(work / f"{stage}-*"))
        kept = _listed(_distinct_items(read), "kept") | "sort" >> beam.Map(sorted)
        rows = read | "renumber" >> beam.Map(history_rows.renumbered, AsSingleton(kept))
        size = rows | "bytes" >> beam.Map(lambda row: len(history_rows.serialized(row))) | "size" >> _total()
        users = rows | "users" >> beam.combiners.Count.Globally()
        bounds = users | "bounds" >> beam.Map(
            lambda count, total: records.shard_bounds(count, total), AsSingleton(size)
        )
        by_range = rows | "range" >> beam.Map(lambda row: (row["place"] // _RANGE, row))
        counts = _listed(by_range | "count ranges" >> beam.combiners.Count.PerKey(), "ranges")
        starts = counts | "starts" >> beam.Map(_starts)
        shards = (
            by_range
            | "of a range" >> beam.GroupByKey()
            | "deal" >> beam.FlatMap(_dealt, AsSingleton(starts), AsSingleton(bounds))
            | "of a shard" >> beam.GroupByKey()
            | "write" >> beam.Map(_shard, AsSingleton(bounds), folder, work)
        )
        for collection, label in ((kept, "kept"), (size, "size"), (bounds, "bounds")):
            _save_one(collection, work / f"{label}.json")
        _save_one(_listed(shards, "shards"), work / "shards.json")


# What is left for one process


def _finish(
    folder: Place,
    work: Place,
    rated: bool,
    name: str,
    logs: RawLogs,
    item_ids: list[str],
    options: Preparation,
    steps: list[dict[str, Any]],
    equal: int | None,
) -> None:
    """Writes what stands beside the shards."""
    kept, size, bounds, shards = (
        json.loads((work / f"{label}.json").read_text()) for label in ("kept", "size", "bounds", "shards")
    )
    ids = [item_ids[number] for number in kept]
    unseen = options.keeps_unseen(logs.notes)
    catalog, counts = catalog_of_items(logs.catalog, ids, name, unseen)
    users, events = bounds[-1], sum(shard["events"] for shard in shards)

    def pieces(*columns: str) -> Iterator[bytes]:
        for column in columns:
            for shard in range(len(bounds)):
                yield (work / f"{column}-{shard:05d}").read_bytes()

    def contents() -> dict[str, Content]:
        columns = {
            "users": Content(8 * users + sum(shard["texts"] for shard in shards), pieces("sizes", "texts")),
            "offsets": Content(8 * (users + 1), _offsets(pieces("lengths"))),
            "events": Content(4 * events, pieces("items")),
            "times": Content(8 * events, pieces("times")),
        }
        return columns | ({"values": Content(4 * events, pieces("values"))} if rated else {})

    with written(folder / records.OFFSETS) as file, file.open("wb") as stream:
        for piece in _offsets(pieces("lengths")):
            stream.write(piece)
    records.write_info(folder, bounds, size, rated)
    description = describe(logs.notes, options, steps, counts, equal)
    if unseen:
        description[OF_EVENTS] = fingerprint_of_pieces(contents(), ["", *ids], catalog.head(len(ids)))
    print_ = fingerprint_of_pieces(contents(), ["", *catalog["item_id"].to_list()], catalog)
    write_header(folder, name, print_, (users, catalog.height, events), catalog, description)


def _offsets(lengths: Iterable[bytes]) -> Iterator[bytes]:
    """The offsets of users, from pieces of their lengths."""
    last = np.zeros(1, "<i8")
    yield last.tobytes()
    for piece in lengths:
        offsets = last + np.cumsum(np.frombuffer(piece, "<i8"))
        last = offsets[-1:]
        yield offsets.astype("<i8").tobytes()
