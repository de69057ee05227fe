"""Systems compared, as plain numbers from which tables, pictures and the page are made."""

from dataclasses import asdict, dataclass, field
from typing import Any

MATCHED = 0.05
"""Largest relative difference in parameters at which two models count as of one size."""


@dataclass(frozen=True)
class Estimate:
    """A figure and how sure it is.

    Attributes:
        value: the figure; a mean where there are several runs.
        low: lower end of its 95 % interval, or None.
        high: upper end.
        over: what the interval is over: "seeds" (Student's t) or "users" (bootstrap).
    """

    value: float
    low: float | None = None
    high: float | None = None
    over: str | None = None


@dataclass(frozen=True)
class Curve:
    """A figure along one run.

    Attributes:
        steps: steps taken at each point, pre-training included.
        seconds: seconds of training at each, or None where the run did not log them.
        values: the figure.
    """

    steps: list[int]
    seconds: list[float] | None
    values: list[float]


@dataclass(frozen=True)
class Cost:
    """Cost of a system; a mean over its runs, None where it is not known.

    Attributes:
        parameters: numbers trained.
        interactions_per_second: targets a second while training.
        train_seconds: seconds spent on training steps, compilation and validation left out.
        seconds_to_target: the same until the first validation that reached the target.
        host_bytes: largest resident size of the training process.
        device_bytes: most bytes held on a device.
        online_ms: milliseconds for one more event of a user, through what the model keeps of the user.
        state_bytes: what it keeps of a user.
    """

    parameters: int | None = None
    interactions_per_second: float | None = None
    train_seconds: float | None = None
    seconds_to_target: float | None = None
    host_bytes: float | None = None
    device_bytes: float | None = None
    online_ms: float | None = None
    state_bytes: float | None = None


@dataclass(frozen=True)
class Row:
    """One system: a configuration and its runs, one a seed.

    Attributes:
        name: what to call it.
        seeds: of the runs that are in the figures.
        settings: key -> value where its configuration differs from the first row's.
        metrics: metric -> estimate on the evaluation split; empty where no run was evaluated.
        test: paired test against the first row (see `recjax.evaluate.report.compare`), or None.
        cost: what it costs.
        curves: validation, one a run.
        losses: name -> curves, one a run: the training loss as "loss", and the parts that the model reports of it.
        lengths: the metric by history length, see `recjax.evaluate.history_lengths`.
        folders: of the runs.
        commands: that make the runs.
        times: when their training was started, UTC.
        failures: what went wrong with other runs of it.
        remarks: what a reader should know before believing the row.
    """

    name: str
    seeds: list[int] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, Estimate] = field(default_factory=dict)
    test: dict[str, Any] | None = None
    cost: Cost = Cost()
    curves: list[Curve] = field(default_factory=list)
    losses: dict[str, list[Curve]] = field(default_factory=dict)
    lengths: list[dict[str, Any]] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    times: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def size_note(row: Row, first: Row) -> str:
    """Size against the first row's: "" where it is the same, "+3 %", or "+12 %, not matched"."""
    ours, theirs = row.cost.parameters, first.cost.parameters
    if not ours or not theirs or ours == theirs:
        return ""
    share = ours / theirs - 1
    return f"{share:+.1%}" + ("" if abs(share) <= MATCHED else ", not matched")


@dataclass(frozen=True)
class Comparison:
    """Several systems on the same users, or one alone.

    Attributes:
        title: of the page.
        question: what is asked, in the author's words; may be several paragraphs.
        metric: what curves, tests and pictures are of.
        rows: the systems; the first is what the others are compared with.
        dataset: name, fingerprint, users, items.
        protocol: of the evaluation.
        counts: users of the evaluation, and of each slice.
        floors: floor -> metric -> value, None where the data cannot have it.
        floor_tests: floor -> its paired test against the first row, as in `Row.test`; empty where ranks are not known.
        slices: slice -> metric of each row, in order; None where a row was not evaluated.
        doubts: what makes the split doubtful.
        target: validation metric whose first reaching is timed, or None.
        target_note: why this one.
        machine: where the runs ran, one line each.
        commit: of the code.
        wall_seconds: what the runs took together, from start to end, or None.
        commands: that make the page.
        configuration: key -> value of the first row.
    """

    title: str
    rows: list[Row]
    metric: str
    question: str = ""
    dataset: dict[str, Any] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    floors: dict[str, Any] = field(default_factory=dict)
    floor_tests: dict[str, dict[str, Any]] = field(default_factory=dict)
    slices: dict[str, list[float | None]] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)
    target: float | None = None
    target_note: str = ""
    machine: list[str] = field(default_factory=list)
    commit: str = ""
    wall_seconds: float | None = None
    commands: list[str] = field(default_factory=list)
    configuration: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The content of `results.json`."""
        return asdict(self)
