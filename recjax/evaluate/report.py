"""What an evaluation found: as JSON, as a table, as a file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Group
from rich.table import Table
from rich.text import Text

from recjax.evaluate.intervals import holm, paired, spread
from recjax.evaluate.metrics import MISS
from recjax.evaluate.slices import SLICES
from recjax.files import read_json, replacing
from recjax.track.rows import best_floor
from recjax.typing import InputError

RANK = "rank"
"""Column of the users' ranks; those of a floor stand in `rank_FLOOR`."""

LEADING = "ndcg@10"
"""What is compared with the floors."""

COLUMNS = ("hr@1", "hr@5", "hr@10", "hr@20", "ndcg@5", "ndcg@10", "mrr", "coverage@10")
"""Metrics that the table shows; the file has all."""


@dataclass(frozen=True, eq=False)
class Report:
    """The result of one evaluation.

    Attributes:
        name: what was evaluated.
        dataset: name, fingerprint, users, items.
        protocol: split, candidates, mask_seen, tie; max_history where histories are cut; a warning where candidates are
            sampled.
        metrics: "all" and each slice -> metric -> value; a slice without users is empty.
        interval: metric -> [low, high], 95 % bootstrap over users.
        floors: floor -> metric -> value, or None where the data cannot have it.
        counts: users, and users of each slice.
        seconds: time to rank all users, floors not counted.
        audit: what makes the split doubtful, see `recjax.data.audit`.
        notes: more to know, e.g. what a predictions file lacked.
        users: user_id, target, rank (null: a miss), history (its events, as the protocol shows it), and the rank by
            each floor that was ranked, `rank_FLOOR`; in the order of the examples.
    """

    name: str
    dataset: dict[str, Any]
    protocol: dict[str, Any]
    metrics: dict[str, dict[str, float]]
    interval: dict[str, list[float]]
    floors: dict[str, dict[str, float] | None]
    counts: dict[str, int]
    seconds: float
    audit: dict[str, Any] | None
    notes: dict[str, Any] = field(default_factory=dict)
    users: pl.DataFrame | None = None

    def to_json(self) -> dict[str, Any]:
        """The content of `evaluation.json`."""
        keys = ("dataset", "protocol", "metrics", "interval", "floors", "counts", "seconds", "audit")
        content = {"name": self.name} | {key: getattr(self, key) for key in keys}
        return content | ({"notes": self.notes} if self.notes else {})

    def save(self, path: Path) -> None:
        """Writes `path` (JSON), and the rank of every user beside it as `<stem>.users.parquet`; both atomically."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.users is not None:
            with replacing(path.with_suffix(".users.parquet")) as temporary:
                self.users.write_parquet(temporary)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(self.to_json(), indent=2, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Report":
        """Reads what `save` wrote.

        Raises:
            InputError: there is no such file, or it is no report.
        """
        content, users = read_json(path, "which `recjax evaluate` writes"), path.with_suffix(".users.parquet")
        try:
            report = cls(**content, users=pl.read_parquet(users) if users.exists() else None)
        except (OSError, TypeError, pl.exceptions.PolarsError) as error:
            raise InputError(f"{path} is no evaluation report: {error}") from None
        tables = (
            report.dataset,
            report.protocol,
            report.metrics,
            report.metrics.get("all") if report.metrics else None,
        )
        tables += (report.interval, report.floors, report.counts, report.notes)
        if not all(isinstance(table, dict) for table in tables):
            raise InputError(f"{path} is no evaluation report: its parts are not tables")
        return report

    def ranks(self) -> np.ndarray:
        """int64 [n], rank of each user's target; `metrics.MISS` where there is none."""
        if self.users is None:
            raise InputError(f"the report of {self.name!r} was stored without its users, which a paired test needs")
        return self.users[RANK].fill_null(int(MISS)).to_numpy()

    def floor_ranks(self) -> dict[str, np.ndarray]:
        """Floor -> int64 [n], rank of each user's target by it; floors whose ranks are not stored are left out."""
        if self.users is None:
            return {}
        stored = {floor: f"{RANK}_{floor}" for floor in self.floors if f"{RANK}_{floor}" in self.users.columns}
        return {floor: self.users[column].fill_null(int(MISS)).to_numpy() for floor, column in stored.items()}

    def against_floors(self) -> str | None:
        """The best floor, and how far below or above it this is: a sentence, or None without floors."""
        best = best_floor(self.floors, LEADING)
        if best is None:
            return None
        name, value = best
        own, ranks = self.metrics["all"][LEADING], self.floor_ranks()
        place = "below" if own < value else "above" if own > value else "equal to"
        line = f"{place} the best floor, {name}: {LEADING} {own - value:+.4f}"
        if name not in ranks:
            return line
        test = paired([ranks[name]], [self.ranks()], LEADING)
        low, high = test["interval"]
        return f"{line} [{low:+.4f}, {high:+.4f}], p = {test['p_t']:.2g} (paired t)"

    def table(self) -> Group:
        """Floors above the model, then its slices; a warning above all where candidates are sampled."""
        lines: list[Any] = [Text(self._headline(), style="bold")]
        if "warning" in self.protocol:
            lines.append(Text(self.protocol["warning"], style="bold red"))
        lines.append(self._main_table())
        if against := self.against_floors():
            lines.append(Text(against, style="bold red" if against.startswith("below") else ""))
        lines += [Text(), self._slice_table(), Text(self._footnote(), style="dim")]
        lines += [Text(f"warning: {doubt}", style="yellow") for doubt in (self.audit or {}).get("warnings", [])]
        return Group(*lines, *(Text(_sentence(key, value)) for key, value in self.notes.items()))

    def _headline(self) -> str:
        data, protocol = self.dataset, self.protocol
        items = f"all {data['items']:,} items" if protocol["candidates"] == "full" else protocol["candidates"]
        seen = "history masked" if protocol["mask_seen"] == "history" else "history not masked"
        fingerprint = data["fingerprint"][:12]
        line = (
            f"{data['name']} ({fingerprint}) · {protocol['split']}, {self.counts['users']:,} users · {items} · {seen}"
        )
        if "max_history" not in protocol:
            return line
        return f"{line} · cold start, last 1 to {protocol['max_history']} events of each history"

    def _main_table(self) -> Table:
        table = _columns("")
        for name, figures in self.floors.items():
            table.add_row(name, *_cells(figures), style="dim")
        table.add_section()
        table.add_row(self.name, *_cells(self.metrics["all"]), style="bold")
        if self.interval:
            for side, label in enumerate(("95 % low", "95 % high")):
                table.add_row(label, *_cells({name: ends[side] for name, ends in self.interval.items()}), style="dim")
        return table

    def _slice_table(self) -> Table:
        table = _columns("slice")
        for name in SLICES:
            if self.counts.get(name):
                table.add_row(f"{name} ({self.counts[name]:,})", *_cells(self.metrics[name]))
        return table

    def _footnote(self) -> str:
        figures = self.metrics["all"]
        parts = [f"ties: {self.protocol['tie']}"]
        if "novelty@10" in figures:
            parts.append(f"novelty@10 {figures['novelty@10']:.2f} bits")
            parts.append(f"popularity lift@10 {figures['popularity_lift@10']:+.2f}")
        if self.seconds:
            parts.append(f"{self.seconds:.1f} s, {self.counts['users'] / self.seconds:,.0f} users/s")
        return " · ".join(parts)


def compare(groups: Mapping[str, Sequence[Report]], metric: str = "ndcg@10") -> dict[str, Any]:
    """Several systems, each run with one or more seeds, on the same users.

    Args:
        groups: name of a system -> its reports, one a seed.
        metric: what the paired tests look at.

    Returns:
        "systems": name -> metric -> mean, std, min, max, runs; "tests": the first system against each other one, see
        `intervals.paired`, with `p_holm`, the p-value of the t-test corrected for their number; "best_floor": name
        and value of the best floor by `metric`, or None without floors.

    Raises:
        InputError: the reports differ in dataset, protocol or users.
    """
    reports = [report for group in groups.values() for report in group]
    for other in reports[1:]:
        for part in ("dataset", "protocol"):
            if getattr(other, part) != getattr(reports[0], part):
                raise InputError(
                    f"{reports[0].name!r} and {other.name!r} cannot be compared: their {part} differs, "
                    f"{getattr(reports[0], part)} against {getattr(other, part)}"
                )
    systems = {name: spread([report.metrics["all"] for report in group]) for name, group in groups.items()}
    ranks = {name: [report.ranks() for report in group] for name, group in groups.items()}
    first, *others = groups
    tests: list[dict[str, Any]] = [
        {"systems": [first, other]} | paired(ranks[first], ranks[other], metric) for other in others
    ]
    for test, corrected in zip(tests, holm([test["p_t"] for test in tests]), strict=True):
        test["p_holm"] = corrected
    floors = next((report.floors for report in reports if report.floors), {})
    return {"systems": systems, "tests": tests, "best_floor": best_floor(floors, metric)}


def comparison_table(comparison: dict[str, Any]) -> Group:
    """The result of `compare`: mean and spread of each system, then the paired tests."""
    table = Table(box=None, pad_edge=False)
    table.add_column("system")
    table.add_column("runs", justify="right")
    shown = ("hr@10", "ndcg@10", "mrr", "coverage@10")
    for name in shown:
        table.add_column(name, justify="right")
    for name, figures in comparison["systems"].items():
        cells = [f"{figures[m]['mean']:.4f} ± {figures[m]['std']:.4f}" if m in figures else "-" for m in shown]
        table.add_row(name, str(next(iter(figures.values()))["runs"]), *cells)
    lines = []
    for test in comparison["tests"]:
        first, second = test["systems"]
        low, high = test["interval"]
        corrected = f", {test['p_holm']:.2g} (Holm)" if len(comparison["tests"]) > 1 else ""
        lines.append(
            Text(
                f"{second} - {first}: {test['metric']} {test['difference']:+.4f} [{low:+.4f}, {high:+.4f}], "
                f"p = {test['p_t']:.2g} (paired t){corrected}, {test['p_wilcoxon']:.2g} (Wilcoxon), "
                f"{test['users']:,} users"
            )
        )
    if comparison["best_floor"] is not None:
        floor, value = comparison["best_floor"]
        below = [name for name, figures in comparison["systems"].items() if figures[LEADING]["mean"] < value]
        if below:
            line = f"below the best floor, {floor} ({LEADING} {value:.4f}): {', '.join(below)}"
            lines.append(Text(line, style="bold red"))
    return Group(table, *lines)


def _columns(label: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(label, no_wrap=True)
    for name in COLUMNS:
        table.add_column(name.replace("coverage@10", "cov@10"), justify="right", no_wrap=True)
    return table


def _cells(figures: dict[str, float] | None) -> list[str]:
    return [f"{figures[name]:.4f}" if figures and name in figures else "-" for name in COLUMNS]


def _sentence(label: str, value: Any) -> str:
    if isinstance(value, dict):
        value = ", ".join(_sentence(key, inner) for key, inner in value.items())
    return f"{label}: {value:,}" if isinstance(value, int) else f"{label}: {value}"
