"""The tables of a comparison, as plain text cells for the page and as they stand on a terminal."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import rich.box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from recjax.compare.comparison import Comparison, Estimate, Row, size_note
from recjax.evaluate.floors import best_floor
from recjax.evaluate.intervals import p_text

SIGNIFICANT = 0.05
LEADING = ("ndcg@10", "hr@10")
MORE = ("recall@10", "mrr", "coverage@10")
UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
NONE = "–"  # noqa: RUF001 (the typographer's dash for an empty cell)


@dataclass(frozen=True)
class Grid:
    """A table of text.

    Attributes:
        title: of the table.
        header: a title for each column.
        rows: a cell for each column; the first is the row's name. Further lines of a cell say more of its first.
        best: (row, column) of cells to stress.
        quiet: numbers of rows that are there to compare with, such as floors.
    """

    title: str
    header: list[str]
    rows: list[list[str]]
    best: frozenset[tuple[int, int]] = frozenset()
    quiet: frozenset[int] = frozenset()


def quality_grid(comparison: Comparison, metrics: Sequence[str] | None = None) -> Grid:
    """Metrics with their intervals, the one that is tested first, floors above, and what the paired tests say."""
    rows = comparison.rows
    if metrics is None:
        of_tasks = [metric for row in rows for metric in row.metrics if "." in metric]
        metrics = (*LEADING, *MORE, *of_tasks)
    named = dict.fromkeys((comparison.metric, *metrics))
    metrics = [metric for metric in named if any(metric in row.metrics for row in rows)]
    tests = comparison.floor_tests
    tested = bool(tests) or any(row.test is not None for row in rows)
    header = ["", "seeds", *metrics] + ([f"{comparison.metric}\nagainst {rows[0].name}", "verdict"] if tested else [])
    floors = [
        [name, "", *(_floor(figures, metric) for metric in metrics), *(_test_cells(tests.get(name)) if tested else [])]
        for name, figures in comparison.floors.items()
    ]
    cells = list(floors)
    for row in rows:
        line = [row.name, str(len(row.seeds)) if row.metrics else NONE]
        line += [estimate(row.metrics.get(metric)) for metric in metrics]
        cells.append(line + (_test_cells(row.test) if tested else []))
    best = set()
    for column, metric in enumerate(metrics, start=2):
        values = [row.metrics[metric].value if metric in row.metrics else float("-inf") for row in rows]
        if len(rows) > 1 and max(values) > float("-inf"):
            best.add((len(floors) + values.index(max(values)), column))
    return Grid("Quality", header, cells, frozenset(best), frozenset(range(len(floors))))


def _floor(figures: dict[str, float] | None, metric: str) -> str:
    return f"{figures[metric]:.4f}" if figures and metric in figures else NONE


def estimate(found: Estimate | None) -> str:
    """The figure, and its interval in a second line."""
    if found is None:
        return NONE
    return f"{found.value:.4f}" + ("" if found.low is None else f"\n[{found.low:.4f}, {found.high:.4f}]")


def _test_cells(test: dict[str, Any] | None) -> list[str]:
    if test is None:
        return [NONE, NONE]
    low, high = test["interval"]
    return [f"{test['difference']:+.4f}\n[{low:+.4f}, {high:+.4f}]", verdict(test)]


def verdict(test: dict[str, Any]) -> str:
    """Verdict of the corrected test on a row against the first."""
    p = test["p_holm"]
    if p >= SIGNIFICANT:
        return f"no difference shown\n({p_text(p)})"
    return f"{'better' if test['difference'] > 0 else 'worse'}\n({p_text(p, 1)})"


def below_floor(comparison: Comparison) -> list[str]:
    """The rows that are below the best floor, a sentence each."""
    best = best_floor(comparison.floors, comparison.metric)
    if best is None:
        return []
    name, value = best
    known = [
        (row.name, row.metrics[comparison.metric].value) for row in comparison.rows if comparison.metric in row.metrics
    ]
    return [
        f"{row} is below the best floor: {comparison.metric} {found:.4f} against {value:.4f} of {name}"
        for row, found in known
        if found < value
    ]


def cost_grid(comparison: Comparison) -> Grid:
    """Cost of each row; the least of each column is stressed."""
    rows = comparison.rows
    target = NONE if comparison.target is None else f"time to\n{comparison.metric} {comparison.target:.4f}"
    columns = {
        "parameters": [_size(row, rows[0]) for row in rows],
        "interactions/s": [number(row.cost.interactions_per_second) for row in rows],
        "training time": [duration(row.cost.train_seconds) for row in rows],
        target: [duration(row.cost.seconds_to_target) for row in rows],
        "peak memory": [_memory(row) for row in rows],
        "one more event": [_online(row) for row in rows],
    }
    best = set()
    for column, name in ((2, "interactions_per_second"), (3, "train_seconds"), (4, "seconds_to_target")):
        known = {index: value for index, row in enumerate(rows) if (value := getattr(row.cost, name)) is not None}
        if len(known) > 1:
            pick = max if name == "interactions_per_second" else min
            best.add((pick(known, key=known.__getitem__), column))
    cells = [[row.name, *(column[index] for column in columns.values())] for index, row in enumerate(rows)]
    return Grid("Cost", ["", *columns], cells, frozenset(best))


def _size(row: Row, first: Row) -> str:
    if row.cost.parameters is None:
        return NONE
    note = size_note(row, first)
    return f"{row.cost.parameters:,}" + (f"\n({note})" if note else "")


def number(value: float | None) -> str:
    return NONE if value is None else f"{value:,.0f}"


def duration(seconds: float | None) -> str:
    """`0.031 s`, `4.2 s`, `2 min 49 s`, `1 h 43 min`."""
    if seconds is None:
        return NONE
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds:.2g} s"
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def _memory(row: Row) -> str:
    host, device = row.cost.host_bytes, row.cost.device_bytes
    parts = [] if device is None else [f"{_bytes(device)} a device"]
    return "\n".join([*parts, *([] if host is None else [f"{_bytes(host)} host"])]) or NONE


def _online(row: Row) -> str:
    if row.cost.online_ms is None:
        return NONE
    kept = "" if row.cost.state_bytes is None else f"\n{_bytes(row.cost.state_bytes)} a user"
    return f"{row.cost.online_ms:.3g} ms{kept}"


def _bytes(size: float) -> str:
    scale, unit = next(((scale, unit) for scale, unit in UNITS if size >= scale), (1, "B"))
    return f"{size / scale:.3g} {unit}"


def slice_grid(comparison: Comparison) -> Grid:
    """The metric of each slice of the users."""
    header = ["users whose target is", "users", *(row.name for row in comparison.rows)]
    cells, best = [], set()
    for index, (name, values) in enumerate(comparison.slices.items()):
        shown = [NONE if value is None else f"{value:.4f}" for value in values]
        cells.append([name, f"{comparison.counts[name]:,}", *shown])
        known = {column: value for column, value in enumerate(values, start=2) if value is not None}
        if len(known) > 1 and max(known.values()) > 0:
            best.add((index, max(known, key=known.__getitem__)))
    return Grid(f"{comparison.metric} by kind of target", header, cells, frozenset(best))


def settings_grid(comparison: Comparison) -> Grid:
    """The settings in which any row differs from the first, with the values of all."""
    keys = list(dict.fromkeys(key for row in comparison.rows for key in row.settings))
    base = comparison.configuration
    cells = []
    for key in keys:
        own = base.get(key, NONE).rpartition(":")[2]
        cells.append([key, *(row.settings.get(key, own) for row in comparison.rows)])
    best = {
        (index, column)
        for index, key in enumerate(keys)
        for column, row in enumerate(comparison.rows, start=1)
        if key in row.settings
    }
    return Grid("Settings that differ", ["", *(row.name for row in comparison.rows)], cells, frozenset(best))


def comparison_tables(comparison: Comparison) -> Group:
    """Quality and cost for a terminal, with what a reader must know of them."""
    lines: list[Any] = [Text(headline(comparison), style="bold")]
    lines += [_rich(quality_grid(comparison, LEADING))] if comparison.dataset else []
    lines += [_rich(cost_grid(comparison))]
    notes = [f"{row.name}: {remark}" for row in comparison.rows for remark in row.remarks]
    failures = [f"{row.name}: {failure}" for row in comparison.rows for failure in row.failures]
    texts = [Text(line, style="dim") for line in explanations(comparison)]
    bad = [Text(line, style="bold red") for line in [*below_floor(comparison), *failures]]
    return Group(*lines, *texts, *(Text(note) for note in notes), *bad)


def headline(comparison: Comparison) -> str:
    """Dataset, users and rules in a line."""
    data, protocol = comparison.dataset, comparison.protocol
    if not data:
        return comparison.title
    items = f"all {data['items']:,} items" if protocol["candidates"] == "full" else protocol["candidates"]
    seen = "history masked" if protocol["mask_seen"] == "history" else "history not masked"
    users = f"{protocol['split']} split, {comparison.counts['users']:,} users"
    return f"{data['name']} ({data['fingerprint'][:12]}) · {users} · {items} · {seen}"


def explanations(comparison: Comparison) -> list[str]:
    """Legend of brackets and verdicts, where there are any."""
    over = {found.over for row in comparison.rows for found in row.metrics.values() if found.over}
    lines = []
    if "seeds" in over:
        lines.append("Brackets: 95 % interval of the mean over seeds (Student's t): what other seeds would give.")
    if "users" in over:
        lines.append("Brackets of a single seed: 95 % bootstrap interval over users; how far seeds vary is not in it.")
    if comparison.floor_tests or any(row.test for row in comparison.rows):
        lines.append(
            f"Verdict: paired t-test of {comparison.metric} over the same users, seeds averaged per user, against "
            f"{comparison.rows[0].name}; p corrected by Holm for the number of tests, floors apart. It says "
            "what other users would show, not what other seeds would."
        )
    if comparison.target is not None:
        lines.append(
            f"Time to target: seconds of training until validation first reaches {comparison.metric} "
            f"{comparison.target:.4f} ({comparison.target_note}). Compilation, validation and checkpoints are not in "
            "any time."
        )
    if any(row.cost.online_ms is not None for row in comparison.rows):
        lines.append(
            "One more event: time until a user's state has taken it, for one user with a history of half the longest "
            "length; and what is kept of a user. A dash: the model reads the whole history again."
        )
    return lines


def _rich(grid: Grid) -> Table:
    table = Table(title=grid.title, title_justify="left", box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for index, title in enumerate(grid.header):
        table.add_column(title, justify="right" if index else "left", no_wrap=bool(index))
    for index, row in enumerate(grid.rows):
        cells = [Text(cell, style="bold" if (index, at) in grid.best else "") for at, cell in enumerate(row)]
        table.add_row(*cells, style="dim" if index in grid.quiet else None)
    return table
