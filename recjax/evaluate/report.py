"""Results of an evaluation: as JSON, as a table, as a file."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Group
from rich.table import Table
from rich.text import Text

from recjax.data.dataset import Dataset
from recjax.evaluate.floors import best_floor
from recjax.evaluate.intervals import holm, p_text, paired_values, spread
from recjax.evaluate.metrics import CUTOFFS, MISS, cutoff, user_metrics
from recjax.files import file_digest, read_json, replacing, sealed, unsealed
from recjax.typing import InputError

EVALUATION = "evaluation.json"
"""File of a report in a run's folder."""

RANK = "rank"
"""Column of the users' ranks; those of a floor stand in `rank_FLOOR`."""

TIES = "equal scores rank by item id"

USERS = "users_sha256"
"""Digests of the files of users beside `evaluation.json`, by name."""

NOT_RANKED = "items without events, which the model cannot rank"
"""Note of a report: how many there are."""

LEADING = "ndcg@10"
"""Metric that is compared with the floors."""

COLUMNS = (
    *("hr@1", "hr@5", "hr@10", "hr@20", "recall@5", "recall@10", "recall@20", "ndcg@5", "ndcg@10", "mrr"),
    *("coverage@10", "gap_accuracy", "stop_error"),
)
"""Metrics that the table shows of a report with many; the file has all."""

FEW = 5
"""Metrics that a report has many of."""


def dataset_facts(dataset: Dataset) -> dict[str, Any]:
    """Description of the dataset in a report."""
    return {
        "name": dataset.name,
        "fingerprint": dataset.whole or dataset.fingerprint,
        "users": dataset.n_users,
        "items": dataset.n_items + dataset.left_out,
    }


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
        audit: what makes the split doubtful, see `recjax.data.prepare.audit`.
        notes: more to know, e.g. what a predictions file lacked.
        users: user_id, target, rank (null: a miss), history (its events, as the protocol shows it), and the rank by
            each floor that was ranked, `rank_FLOOR`; in the order of the examples. Where a user has several targets:
            user_id, targets (how many), history, the metrics by name, and the leading one by each floor,
            `ndcg@10_FLOOR`.
        tasks: what further evaluators found, by their names.
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
    tasks: "dict[str, Report]" = field(default_factory=dict)

    def __repr__(self) -> str:
        """Short; `table()` has the whole."""
        shown = [name for name in ("ndcg@10", "hr@10") if name in self.metrics["all"]] or list(self.metrics["all"])[:2]
        figures = ", ".join(f"{name} {self.metrics['all'][name]:.4f}" for name in shown)
        data, split = self.dataset, self.protocol.get("split", "")
        return f"<report of {self.name!r} on {data['name']!r}, {split}, {self.counts['users']:,} users: {figures}>"

    def to_json(self) -> dict[str, Any]:
        """The content of `evaluation.json`."""
        content = {"name": self.name, "dataset": self.dataset} | self._findings() | {"audit": self.audit}
        content |= {"notes": self.notes} if self.notes else {}
        found = {
            name: task._findings() | ({"notes": task.notes} if task.notes else {}) for name, task in self.tasks.items()
        }
        return content | ({"tasks": found} if found else {})

    def _findings(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in ("protocol", "metrics", "interval", "floors", "counts", "seconds")}

    def save(self, path: Path) -> None:
        """Writes `path` (JSON), and what is known of every user beside it, all atomically.

        Users go to `<stem>.users.parquet`, those of a task to `<stem>.TASK.users.parquet`.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        users = {}
        for name, report in {"": self, **self.tasks}.items():
            if report.users is not None:
                with replacing(file := _users_path(path, name)) as temporary:
                    report.users.write_parquet(temporary)
                    users[file.name] = file_digest(temporary)
        with replacing(path) as temporary:
            content = sealed(self.to_json() | {USERS: users})
            temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")

    @staticmethod
    def load(path: Path) -> "Report":
        """Reads what `save` wrote.

        Raises:
            InputError: there is no such file, it is no report, or it or a file of users is damaged.
        """
        content = read_json(path, "which `recjax evaluate` writes")
        try:
            content = unsealed(content, path)
            for name, expected in content.pop(USERS, {}).items():
                if (file := path.with_name(name)).exists() and file_digest(file) != expected:
                    raise InputError(f"{file} is damaged: its content is not what was written")
            tasks = content.pop("tasks", {})
            shared = {"name": content["name"], "dataset": content["dataset"], "audit": None} if tasks else {}
            found = {name: Report(**shared, **task, users=_users_of(path, name)) for name, task in tasks.items()}
            report = Report(**content, users=_users_of(path), tasks=found)
        except InputError:
            raise
        except (OSError, ValueError, TypeError, KeyError, AttributeError, pl.exceptions.PolarsError) as error:
            raise InputError(f"{path} is no evaluation report: {error}") from None
        names = ("dataset", "protocol", "metrics", "interval", "floors", "counts", "notes")
        tables = [getattr(report, name) for name in names]
        if not (all(isinstance(table, dict) for table in tables) and isinstance(report.metrics.get("all"), dict)):
            raise InputError(f"{path} is no evaluation report: its parts are not tables")
        return report

    def ranks(self) -> np.ndarray:
        """int64 [n], rank of each user's target; `metrics.MISS` where there is none."""
        if self.users is None:
            raise InputError(f"the report of {self.name!r} was stored without its users, which a paired test needs")
        return self.users[RANK].fill_null(int(MISS)).to_numpy()

    def values(self, metric: str, floor: str | None = None) -> np.ndarray | None:
        """Values of a metric by user, of the model or of a floor: float64 [n], or None where they are not stored."""
        task, _, rest = metric.partition(".")
        if task in self.tasks:
            return self.tasks[task].values(rest, floor)
        end = "" if floor is None else f"_{floor}"
        if self.users is None:
            return None
        if RANK + end in self.users.columns:
            return user_metrics(self.users[RANK + end].fill_null(int(MISS)).to_numpy(), cutoff(metric)).get(metric)
        return self.users[metric + end].to_numpy() if metric + end in self.users.columns else None

    @property
    def figures(self) -> dict[str, float]:
        """Metric -> value for all users; those of a task as `TASK.METRIC`."""
        return self.metrics["all"] | self._of_tasks(lambda task: task.metrics["all"])

    @property
    def intervals(self) -> dict[str, list[float]]:
        """`interval` with that of the tasks, named as in `figures`."""
        return self.interval | self._of_tasks(lambda task: task.interval)

    @property
    def floor_figures(self) -> dict[str, dict[str, float] | None]:
        """`floors` with what the tasks say of each, named as in `figures`."""
        every = dict.fromkeys([*self.floors, *(floor for task in self.tasks.values() for floor in task.floors)])
        found = {floor: self._of_tasks(lambda task, of=floor: task.floors.get(of) or {}) for floor in every}
        return {floor: (self.floors.get(floor) or {}) | more or None for floor, more in found.items()}

    def _of_tasks(self, part: Callable[["Report"], dict[str, Any]]) -> dict[str, Any]:
        return {f"{name}.{key}": value for name, task in self.tasks.items() for key, value in part(task).items()}

    @property
    def leading(self) -> str:
        """The metric that systems are compared by."""
        figures = self.metrics["all"]
        return LEADING if LEADING in figures else next(iter(figures))

    def against_floors(self) -> str | None:
        """The best floor, and how far below or above it this is: a sentence, or None without floors."""
        metric = self.leading
        best = best_floor(self.floors, metric)
        if best is None:
            return None
        name, value = best
        own, ours, theirs = self.metrics["all"][metric], self.values(metric), self.values(metric, name)
        place = "below" if own < value else "above" if own > value else "equal to"
        line = f"{place} the best floor, {name}: {metric} {own - value:+.4f}"
        if ours is None or theirs is None:
            return line
        test = paired_values(theirs, ours, metric)
        low, high = test["interval"]
        return f"{line} [{low:+.4f}, {high:+.4f}], {p_text(test['p_t'])} (paired t)"

    def table(self) -> Group:
        """Floors above the model, then its slices; a warning above all where candidates are sampled."""
        lines: list[Any] = [Text(self._headline(), style="bold")]
        if "warning" in self.protocol:
            lines.append(Text(self.protocol["warning"], style="bold red"))
        lines.append(self._main_table())
        if against := self.against_floors():
            lines.append(Text(against, style="bold red" if against.startswith("below") else ""))
        lines += [Text(), self._slice_table(), *map(Text, self._group_floors()), Text(self._footnote(), style="dim")]
        lines += [Text(f"warning: {doubt}", style="yellow") for doubt in (self.audit or {}).get("warnings", [])]
        lines += [Text(_sentence(key, value)) for key, value in self.notes.items()]
        for name, task in self.tasks.items():
            lines += [Text(), Text(name, style="bold"), task.table()]
        return Group(*lines)

    def _headline(self) -> str:
        data, protocol = self.dataset, self.protocol
        ranked = data["items"] - self.notes.get(NOT_RANKED, 0)
        items = f"all {ranked:,} items" if ranked == data["items"] else f"{ranked:,} of {data['items']:,} items"
        items = items if protocol["candidates"] == "full" else protocol["candidates"]
        seen = "history masked" if protocol["mask_seen"] == "history" else "history not masked"
        fingerprint = data["fingerprint"][:12]
        line = (
            f"{data['name']} ({fingerprint}) · {protocol['split']}, {self.counts['users']:,} users · {items} · {seen}"
        )
        if "max_history" not in protocol:
            return line
        return f"{line} · cold start, last 1 to {protocol['max_history']} events of each history"

    def _main_table(self) -> Table:
        shown = self._shown()
        table = _columns("", shown)
        for name, figures in self.floors.items():
            table.add_row(name, *_cells(figures, shown), style="dim")
        table.add_section()
        table.add_row(self.name, *_cells(self.metrics["all"], shown), style="bold")
        if self.interval:
            for side, label in enumerate(("95 % low", "95 % high")):
                ends = {name: both[side] for name, both in self.interval.items()}
                table.add_row(label, *_cells(ends, shown), style="dim")
        return table

    def _slice_table(self) -> Table | Text:
        shown = self._shown()
        table = _columns("slice", shown)
        for name, figures in self.metrics.items():
            if name != "all" and self.counts.get(name):
                table.add_row(f"{name} ({self.counts[name]:,})", *_cells(figures, shown))
        return table if table.row_count else Text()

    def _group_floors(self) -> list[str]:
        """The best floor of each slice whose floors are known."""
        found = {name: best_floor(self.floors, f"{name}.{LEADING}") for name in self.metrics}
        return [f"{name}: the best floor is {best[0]}, {LEADING} {best[1]:.4f}" for name, best in found.items() if best]

    def _shown(self) -> list[str]:
        found = self.metrics["all"]
        if len(found) < FEW:
            return list(found)
        own = [name for name in found if cutoff(name) not in (None, *CUTOFFS["hr"])]  # of a longer list
        shown = [name for name in COLUMNS if name in found]
        place = shown.index("mrr") if "mrr" in shown else len(shown)
        return [*shown[:place], *own, *shown[place:]]

    def _footnote(self) -> str:
        figures = self.metrics["all"]
        parts = [f"ties: {self.protocol['tie']}"]
        if "novelty@10" in figures:
            parts.append(f"novelty@10 {figures['novelty@10']:.2f} bits")
            parts.append(f"popularity lift@10 {figures['popularity_lift@10']:+.2f}")
        if self.seconds:
            parts.append(f"{self.seconds:.1f} s, {self.counts['users'] / self.seconds:,.0f} users/s")
        return " · ".join(parts)


def _users_path(path: Path, task: str = "") -> Path:
    return path.with_suffix(f".{task}.users.parquet" if task else ".users.parquet")


def _users_of(path: Path, task: str = "") -> pl.DataFrame | None:
    users = _users_path(path, task)
    return pl.read_parquet(users) if users.exists() else None


def compare(groups: Mapping[str, Sequence[Report]], metric: str | None = None) -> dict[str, Any]:
    """Several systems, each run with one or more seeds, on the same users.

    Args:
        groups: name of a system -> its reports, one a seed.
        metric: what the paired tests look at; by default what the first report leads with.

    Returns:
        "systems": name -> metric -> mean, std, min, max, runs; "metric"; "tests": the first system against each other,
        see `intervals.paired_values`, with `p_holm`, the p-value of the t-test corrected for their number;
        "best_floor": name and value of the best floor by `metric`, or None without floors.

    Raises:
        InputError: the reports differ in dataset, protocol or users.
    """
    reports = [report for group in groups.values() for report in group]
    metric = metric or reports[0].leading
    for other in reports[1:]:
        for part in ("dataset", "protocol"):
            if getattr(other, part) != getattr(reports[0], part):
                raise InputError(
                    f"{reports[0].name!r} and {other.name!r} cannot be compared: their {part} differs, "
                    f"{getattr(reports[0], part)} against {getattr(other, part)}"
                )
    systems = {name: spread([report.figures for report in group]) for name, group in groups.items()}
    values = {name: mean_values(group, metric) for name, group in groups.items()}
    first, *others = groups
    tests: list[dict[str, Any]] = [
        {"systems": [first, other]} | paired_values(values[first], values[other], metric) for other in others
    ]
    for test, corrected in zip(tests, holm([test["p_t"] for test in tests]), strict=True):
        test["p_holm"] = corrected
    floors = next((report.floor_figures for report in reports if report.floors), {})
    return {"systems": systems, "metric": metric, "tests": tests, "best_floor": best_floor(floors, metric)}


def mean_values(reports: Sequence[Report], metric: str, floor: str | None = None) -> np.ndarray:
    """Values of a metric user by user, averaged over reports of the same users (seeds of one system), float64 [n].

    Raises:
        InputError: a report was stored without its users, or does not know the metric of each.
    """
    values = []
    for report in reports:
        if (found := report.values(metric, floor)) is None:
            raise InputError(f"the report of {report.name!r} does not say {metric} of each user, which a test needs")
        values.append(found)
    return np.mean(values, axis=0)


def comparison_table(comparison: dict[str, Any]) -> Group:
    """The result of `compare`: mean and spread of each system, then the paired tests."""
    table = Table(box=None, pad_edge=False)
    table.add_column("system")
    table.add_column("runs", justify="right")
    first = next(iter(comparison["systems"].values()))
    shown = [name for name in first if name.rpartition(".")[2] in ("hr@10", "recall@10", "ndcg@10", "mrr", "auc")]
    shown += ["coverage@10"] if "coverage@10" in first else []
    for name in shown:
        table.add_column(name, justify="right")
    for name, figures in comparison["systems"].items():
        cells = [f"{figures[m]['mean']:.4f} ± {figures[m]['std']:.4f}" if m in figures else "-" for m in shown]
        table.add_row(name, str(next(iter(figures.values()))["runs"]), *cells)
    lines = []
    for test in comparison["tests"]:
        first, second = test["systems"]
        low, high = test["interval"]
        corrected = f", {p_text(test['p_holm'])} (Holm)" if len(comparison["tests"]) > 1 else ""
        lines.append(
            Text(
                f"{second} - {first}: {test['metric']} {test['difference']:+.4f} [{low:+.4f}, {high:+.4f}], "
                f"{p_text(test['p_t'])} (paired t){corrected}, {p_text(test['p_wilcoxon'])} (Wilcoxon), "
                f"{test['users']:,} users"
            )
        )
    if comparison["best_floor"] is not None:
        floor, value = comparison["best_floor"]
        metric = comparison["metric"]
        below = [name for name, figures in comparison["systems"].items() if figures[metric]["mean"] < value]
        if below:
            line = f"below the best floor, {floor} ({metric} {value:.4f}): {', '.join(below)}"
            lines.append(Text(line, style="bold red"))
    return Group(table, *lines)


def _columns(label: str, shown: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(label, no_wrap=True)
    for name in shown:
        table.add_column(name.replace("coverage@10", "cov@10"), justify="right", no_wrap=True)
    return table


def _cells(figures: dict[str, float] | None, shown: Sequence[str]) -> list[str]:
    return [f"{figures[name]:.4f}" if figures and name in figures else "-" for name in shown]


def _sentence(label: str, value: Any) -> str:
    if isinstance(value, dict):
        value = ", ".join(_sentence(key, inner) for key, inner in value.items())
    if isinstance(value, float):
        return f"{label}: {value:,.4g}" if abs(value) < 1000 else f"{label}: {value:,.0f}"
    return f"{label}: {value:,}" if isinstance(value, int) else f"{label}: {value}"
