"""Results of runs, gathered from their folders into rows to compare."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from recjax import config as configs
from recjax.compare.comparison import MATCHED, Comparison, Cost, Curve, Estimate, Row
from recjax.evaluate.history_lengths import by_history_length
from recjax.evaluate.intervals import holm, paired_values, spread
from recjax.evaluate.report import EVALUATION, Report, compare, mean_values
from recjax.evaluate.slices import SLICES
from recjax.files import read_json
from recjax.nn.groups import is_frozen
from recjax.track.memory import DEVICE, HOST
from recjax.track.metrics import losses_of, read_metrics
from recjax.train.folder.checkpoint import Checkpoints
from recjax.train.folder.run_folder import CHECKPOINTS, CONFIG
from recjax.train.folder.starts import Start, read_starts
from recjax.train.stages import stage_folders
from recjax.train.step_log import SECONDS
from recjax.typing import InputError

T = TypeVar("T")

ONLINE = "one more event"
"""Name of the report's note of what `evaluate.online` measured."""

SHOWN = ("ndcg@10", "hr@10", "recall@10", "mrr", "coverage@10")
"""Metrics of a row, beside the one it was chosen by and the leading ones of further evaluators."""

Curves = dict[str, list[tuple[int, float]]]
"""Name -> (step, value) pairs in order."""

DRAWN = 300
"""Points of a loss curve, about."""

TARGET_SHARE = 0.95
"""Of the first row's best validation: the target that is timed unless another is given."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """One run, as its folder tells.

    Attributes:
        folder: of the run.
        config: content of `config.json`.
        report: of the evaluation, or None where it was not evaluated.
        curves: content of `metrics.jsonl`.
        parameters: numbers trained, or None without a checkpoint.
        starts: of the processes that trained it; none of a run of an earlier version.
    """

    folder: Path
    config: dict[str, Any]
    report: Report | None
    curves: Curves
    parameters: int | None
    starts: Sequence[Start] = ()

    @property
    def seed(self) -> int:
        return self.config["seed"]

    @property
    def metric(self) -> str:
        """Metric of validation."""
        return self.config["train"]["metric"]

    def validation(self) -> Curve:
        """The validation metric along the run."""
        points = self.curves.get(f"validation/{self.metric}", [])
        seconds = dict(self.curves.get(SECONDS, []))
        steps = [step for step, _ in points]
        timed = [seconds[step] for step in steps] if all(step in seconds for step in steps) else None
        return Curve(steps, timed, [value for _, value in points])

    def losses(self) -> dict[str, Curve]:
        """The training loss and its parts along the run, thinned to what a picture can show."""
        found = {}
        for name in losses_of(self.curves):
            points = self.curves[name][:: max(1, len(self.curves[name]) // DRAWN)]
            found[name] = Curve([step for step, _ in points], None, [value for _, value in points])
        return found

    def cost(self, target: float | None) -> Cost:
        """Cost of the run."""
        curve, speeds = self.validation(), self._values("interactions_per_second")
        online = {} if self.report is None else self.report.notes.get(ONLINE, {})
        reached = None
        if target is not None and curve.seconds is not None:
            reached = next((s for s, v in zip(curve.seconds, curve.values, strict=True) if v >= target), None)
        return Cost(
            parameters=self.parameters,
            interactions_per_second=statistics.median(speeds) if speeds else None,
            train_seconds=max(self._values(SECONDS), default=None),
            seconds_to_target=reached,
            host_bytes=max(self._values(HOST), default=None),
            device_bytes=max(self._values(DEVICE), default=None),
            online_ms=online.get("ms"),
            state_bytes=online.get("bytes_per_user"),
        )

    def _values(self, name: str) -> list[float]:
        return [value for _, value in self.curves.get(name, [])]


def by_system(entries: Sequence[T], config_of: Callable[[T], Any]) -> list[list[T]]:
    """Runs by system, in order: those that differ in nothing but the seed are one."""
    systems: list[list[T]] = []
    for entry in entries:
        alike = (group for group in systems if set(configs.diff(config_of(group[0]), config_of(entry))) <= {"seed"})
        if (group := next(alike, None)) is not None:
            group.append(entry)
        else:
            systems.append([entry])
    return systems


def read_outcome(run_dir: Path) -> Outcome:
    """Reads a run folder; nothing is computed and no device is used.

    Raises:
        InputError: it is none, or its files are damaged.
    """
    tree = read_json(run_dir / CONFIG, f"so {run_dir} is not a run folder")
    if not (isinstance(tree, dict) and isinstance(tree.get("seed"), int) and isinstance(tree.get("train"), dict)):
        raise InputError(f"{run_dir / CONFIG} is not the configuration of a run")
    report = Report.load(run_dir / EVALUATION) if (run_dir / EVALUATION).is_file() else None
    curves: Curves = {}
    for stage in stage_folders(run_dir, tree):
        own = {name: points for name, points in _curves(stage).items() if not name.startswith("validation/")}
        curves = _joined(curves, own)
    curves = _joined(curves, _curves(run_dir))
    parameters = _parameters(run_dir, tuple(tree["train"].get("freeze", ())))
    return Outcome(run_dir, tree, report, curves, parameters, read_starts(run_dir))


def _curves(run_dir: Path) -> Curves:
    return read_metrics(run_dir) if (run_dir / "metrics.jsonl").is_file() else {}


def _joined(first: Curves, then: Curves) -> Curves:
    """The curves of a run after those of the stages before it, steps and seconds counted from the start of that."""
    steps, seconds = first.get(SECONDS, [(0, 0.0)])[-1]
    joined = {name: list(points) for name, points in first.items()}
    for name, points in then.items():
        more = seconds if name == SECONDS else 0.0
        joined.setdefault(name, []).extend((steps + step, value + more) for step, value in points)
    return joined


def _parameters(run_dir: Path, freeze: tuple[str, ...]) -> int | None:
    """Numbers trained."""
    if not (run_dir / CHECKPOINTS).is_dir():
        return None
    with Checkpoints(run_dir / CHECKPOINTS, writes=False) as checkpoints:
        if checkpoints.latest is None:
            return None
        shapes = checkpoints.shapes(checkpoints.latest, averaged=False)
        return sum(math.prod(shape) for name, shape in shapes.items() if not is_frozen(name, freeze))


def settings_of(tree: Any) -> dict[str, str]:
    """Key -> value as `--set` takes it, of a configuration's JSON."""
    return {key: _text(value) for key, (_, value) in configs.diff({}, tree).items()}


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(map(_text, value))
    return str(value)


def differing(first: Any, other: Any) -> dict[str, str]:
    """Settings of `other` that are not those of `first`, beside the seed; a class by its name."""
    changed = configs.diff(first, other)
    return {key: _text(value).rpartition(":")[2] for key, (_, value) in changed.items() if key not in ("seed", "name")}


def compare_runs(groups: Mapping[str, Sequence[Outcome]], title: str, target: float | None = None) -> Comparison:
    """Rows of systems, each of one or more runs that differ in nothing but the seed.

    Args:
        groups: name of a system -> its runs; the first system is what the others are compared with.
        title: of the comparison.
        target: validation metric whose first reaching is timed; by default 95 % of the best of the first system.

    Raises:
        InputError: no system has a run.
    """
    runs = {name: list(group) for name, group in groups.items() if group}
    if not runs:
        raise InputError("there is no run to compare")
    first = next(iter(runs.values()))
    note = "given"
    if target is None:
        best = [max(values) for run in first if (values := run.validation().values)]
        target = TARGET_SHARE * statistics.mean(best) if best else None
        note = f"{TARGET_SHARE:.0%} of the best validation of {next(iter(runs))}"
    rows = [_row(name, group, first[0], target) for name, group in runs.items()]
    rows = _tested(rows, runs)
    reports = [run.report for group in runs.values() for run in group if run.report is not None]
    shown = reports[0] if reports else None
    comparison = Comparison(
        title,
        rows,
        metric=first[0].metric,
        target=target,
        target_note=note,
        configuration=settings_of(first[0].config),
        machine=_distinct(runs, lambda start: start.machine),
        commit="; ".join(_distinct(runs, lambda start: start.recjax)),
    )
    if shown is None:
        return comparison
    floors = next((report.floor_figures for report in reports if report.floors), {})
    return replace(
        comparison,
        dataset=shown.dataset,
        protocol=shown.protocol,
        counts=shown.counts,
        floors=floors,
        floor_tests=_floor_tests([run.report for run in first if run.report is not None], comparison.metric),
        slices=_slices(list(runs.values()), shown.counts, comparison.metric),
        doubts=(shown.audit or {}).get("warnings", []),
    )


def _distinct(runs: Mapping[str, Sequence[Outcome]], of: Callable[[Start], str]) -> list[str]:
    return list(dict.fromkeys(of(start) for group in runs.values() for run in group for start in run.starts))


def _row(name: str, runs: Sequence[Outcome], first: Outcome, target: float | None) -> Row:
    reports = [run.report for run in runs if run.report is not None]
    costs = [run.cost(target) for run in runs]
    curves = [curve for run in runs if (curve := run.validation()).values]
    losses = [run.losses() for run in runs]
    mean = {field: _mean([getattr(cost, field) for cost in costs]) for field in (each.name for each in fields(Cost))}
    if any(cost.seconds_to_target is None for cost in costs):  # a mean of those that got there would flatter
        mean["seconds_to_target"] = None
    parameters = costs[0].parameters
    return Row(
        name,
        seeds=[run.seed for run in runs],
        settings=differing(first.config, runs[0].config),
        metrics=_estimates(reports, runs[0].metric),
        cost=Cost(**{**mean, "parameters": parameters}),
        curves=curves,
        losses={term: [run[term] for run in losses if term in run] for term in dict.fromkeys(chain(*losses))},
        lengths=by_history_length(reports, runs[0].metric) if reports else [],
        folders=[str(run.folder) for run in runs],
        commands=[run.starts[0].command for run in runs if run.starts and run.starts[0].command],
        times=[start.time for run in runs for start in run.starts],
        remarks=_remarks(runs, first, parameters),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None


def _estimates(reports: Sequence[Report], chosen: str) -> dict[str, Estimate]:
    if not reports:
        return {}
    figures, intervals = spread([report.figures for report in reports]), reports[0].intervals
    tasks = [f"{name}.{task.leading}" for name, task in reports[0].tasks.items()]
    found = {}
    for metric in (metric for metric in dict.fromkeys((chosen, *SHOWN, *tasks)) if metric in figures):
        value = figures[metric]["mean"]
        if len(reports) > 1:
            found[metric] = Estimate(value, figures[metric]["low"], figures[metric]["high"], "seeds")
        elif metric in intervals:
            low, high = intervals[metric]
            found[metric] = Estimate(value, low, high, "users")
        else:
            found[metric] = Estimate(value)
    return found


def _remarks(runs: Sequence[Outcome], first: Outcome, parameters: int | None) -> list[str]:
    remarks = []
    if parameters and first.parameters and abs(parameters / first.parameters - 1) > MATCHED:
        remarks.append(f"{parameters / first.parameters - 1:+.0%} parameters: not of the first row's size")
    curves = [run.validation().values for run in runs]
    rising = sum(len(values) > 1 and max(values) == values[-1] for values in curves)
    if rising:
        remarks.append(f"best validation was the last in {rising} of {len(runs)} runs: longer training may help")
    return remarks


def _tested(rows: list[Row], runs: dict[str, list[Outcome]]) -> list[Row]:
    """Adds the paired tests against the first row, of rows evaluated as it was."""
    groups = {name: [run.report for run in group if run.report is not None] for name, group in runs.items()}
    base = next(iter(groups.values()))
    if not base:
        return rows
    metric = next(iter(runs.values()))[0].metric
    same = {name: group for name, group in groups.items() if group and all(_alike(r, base[0], metric) for r in group)}
    tests = {test["systems"][1]: test for test in compare(same, metric)["tests"]} if len(same) > 1 else {}
    tested = []
    for row in rows:
        other = bool(groups[row.name]) and row.name not in same
        remarks = row.remarks + (["evaluated on other users or by other rules, so not tested"] if other else [])
        tested.append(replace(row, test=tests.get(row.name), remarks=remarks))
    return tested


def _floor_tests(reports: list[Report], metric: str) -> dict[str, dict[str, Any]]:
    """Each floor against the first row, whose seeds all ranked the same users."""
    if not reports or any(not _alike(report, reports[0], metric) for report in reports):
        return {}
    ours = mean_values(reports, metric)
    theirs = {floor: reports[0].values(metric, floor) for floor in reports[0].floor_figures}
    tests = {name: paired_values(ours, found, metric) for name, found in theirs.items() if found is not None}
    corrected = holm([test["p_t"] for test in tests.values()])
    return {floor: test | {"p_holm": p} for (floor, test), p in zip(tests.items(), corrected, strict=True)}


def _alike(report: Report, base: Report, metric: str) -> bool:
    same = report.dataset == base.dataset and report.protocol == base.protocol
    return same and report.values(metric) is not None


def _slices(groups: list[list[Outcome]], counts: dict[str, int], metric: str) -> dict[str, list[float | None]]:
    found = {}
    for name in (name for name in SLICES if counts.get(name)):
        values = [[run.report.metrics[name].get(metric) for run in group if run.report is not None] for group in groups]
        found[name] = [_mean(each) for each in values]
    return found
