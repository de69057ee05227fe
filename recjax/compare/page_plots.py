"""The pictures of a comparison, as SVG text with a description for those who cannot see them."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recjax.compare.comparison import Comparison, Curve, Row
from recjax.compare.tables import duration

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8A6D00", "#56B4E9", "#444444", "#882255")
"""Told apart by the colour-blind too (Okabe & Ito), the yellow darkened to stand on white."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", ":")
SIZE = (5.6, 3.7)
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "recjax",
    "font.family": "sans-serif",
    "font.sans-serif": ["system-ui", "Helvetica", "Arial", "DejaVu Sans"],
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": "#333333",
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "axes.grid": True,
    "grid.color": "#e3e3e3",
}


@dataclass(frozen=True)
class Picture:
    """A drawn figure.

    Attributes:
        title: of the figure.
        svg: the drawing.
        description: what it shows, in words and numbers.
    """

    title: str
    svg: str
    description: str


def pictures(comparison: Comparison) -> list[Picture]:
    """Every picture that there are numbers for."""
    several = len(comparison.rows) > 1
    made = [
        _beside_floors(comparison),
        _against(comparison, "train_seconds", "training time", "seconds of training", duration) if several else None,
        _against(comparison, "interactions_per_second", "speed", "interactions a second", "{:,.0f}/s".format)
        if several
        else None,
        _curves(comparison, "steps", "step"),
        _curves(comparison, "seconds", "seconds of training"),
        _lengths(comparison),
        *(_losses(comparison, term) for term in dict.fromkeys(term for row in comparison.rows for term in row.losses)),
    ]
    return [picture for picture in made if picture is not None]


def _draw(title: str, description: str, paint: Callable[[Any], None]) -> Picture:
    import matplotlib  # slow to import, and only needed when a page is made
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        paint(figure.subplots())
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Title": title})
    return Picture(title, text.getvalue(), description)


def _style(index: int) -> dict[str, Any]:
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)], "markersize": 5}


def _line(index: int) -> str:
    return LINES[index // 2 % len(LINES)] if index else "-"


def _legend(axes: Any, count: int) -> None:
    if count > 1:
        axes.legend(frameon=False, fontsize=10, ncols=2 if count > 4 else 1)


def _beside_floors(comparison: Comparison) -> Picture | None:
    """Quality of each row and of each floor, best first, with the intervals of the rows."""
    metric = comparison.metric
    found: list[tuple[int | None, str, float, float | None, float | None]] = [
        (index, row.name, at.value, at.low, at.high)
        for index, row in enumerate(comparison.rows)
        if (at := row.metrics.get(metric)) is not None
    ]
    rows = len(found)
    found += [
        (None, name, figures[metric], None, None)
        for name, figures in comparison.floors.items()
        if figures and figures.get(metric, 0.0) > 0.0
    ]
    if not rows or len(found) < 2:
        return None
    found.sort(key=lambda entry: entry[2])

    def paint(axes: Any) -> None:
        for place, (index, _, value, low, high) in enumerate(found):
            colour = "#999999" if index is None else COLOURS[index % len(COLOURS)]
            axes.barh(place, value, height=0.6, color=colour, alpha=0.5 if index is None else 0.9)
            if low is not None and high is not None:
                axes.errorbar([value], [place], xerr=[[value - low], [high - value]], capsize=3, color="#222222", ls="")
            at = (value if high is None else high, place)
            axes.annotate(f"{value:.4f}", at, (6, 0), textcoords="offset points", va="center", fontsize=9)
        axes.set_yticks(range(len(found)), [entry[1] for entry in found])
        axes.set_xlabel(metric)
        axes.margins(x=0.15)
        axes.set_axisbelow(True)
        axes.grid(axis="y", visible=False)

    said = "; ".join(f"{name} {value:.4f}" for _, name, value, _, _ in reversed(found))
    return _draw("Beside the floors", f"{metric} of rows and, in grey, of floors, which learn nothing: {said}.", paint)


def _against(comparison: Comparison, cost: str, title: str, label: str, show: Callable[[float], str]) -> Picture | None:
    """Quality of each row against one of its costs, with the interval of the quality."""
    metric = comparison.metric
    found = [
        (index, row, value)
        for index, row in enumerate(comparison.rows)
        if (value := getattr(row.cost, cost)) is not None and metric in row.metrics
    ]
    if len(found) < 2:
        return None

    from matplotlib.ticker import EngFormatter

    def paint(axes: Any) -> None:
        for index, row, value in found:
            at = row.metrics[metric]
            error = None if at.low is None or at.high is None else [[at.value - at.low], [at.high - at.value]]
            axes.errorbar([value], [at.value], yerr=error, capsize=3, label=row.name, ls="", **_style(index))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_xlabel(label)
        axes.set_ylabel(metric)
        axes.margins(x=0.15)
        _legend(axes, len(found))

    points = "; ".join(f"{row.name} {row.metrics[metric].value:.4f} at {show(value)}" for _, row, value in found)
    return _draw(f"Quality against {title}", f"{metric} on the evaluated users against {title}: {points}.", paint)


def mean_curve(curves: Sequence[Curve], axis: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
    """Mean, smallest and largest value over runs at the steps that all have, against steps or mean seconds."""
    if not curves or (axis == "seconds" and any(curve.seconds is None for curve in curves)):
        return None
    shared = sorted(set.intersection(*(set(curve.steps) for curve in curves)))
    if not shared:
        return None
    places = [[curve.steps.index(step) for step in shared] for curve in curves]
    values = np.array([np.take(curve.values, at) for curve, at in zip(curves, places, strict=True)])
    across = np.array([np.take(getattr(curve, axis), at) for curve, at in zip(curves, places, strict=True)])
    return across.mean(axis=0), values.mean(axis=0), values.min(axis=0), values.max(axis=0)


def _curves(comparison: Comparison, axis: str, label: str) -> Picture | None:
    """The validation metric along training: mean over seeds, and the band between the worst and the best of them."""
    drawn = [
        (index, row, found)
        for index, row in enumerate(comparison.rows)
        if (found := mean_curve(row.curves, axis)) is not None
    ]
    if not drawn:
        return None

    def paint(axes: Any) -> None:
        for index, row, (across, mean, low, high) in drawn:
            style = _style(index) | {"marker": MARKERS[index % len(MARKERS)] if len(across) < 30 else ""}
            axes.plot(across, mean, ls=_line(index), label=row.name, **style)
            axes.fill_between(across, low, high, color=style["color"], alpha=0.15, linewidth=0)
        if comparison.target is not None:
            axes.axhline(comparison.target, color="#888888", lw=1, ls=":")
            axes.annotate("target", (0.01, comparison.target), xycoords=("axes fraction", "data"), va="bottom")
        axes.set_xlabel(label)
        axes.set_ylabel(f"validation {comparison.metric}")
        _legend(axes, len(drawn))

    ends = "; ".join(
        f"{row.name} ends at {mean[-1]:.4f}, best {mean.max():.4f} at {across[mean.argmax()]:,.0f}"
        for _, row, (across, mean, _, _) in drawn
    )
    title = "Learning curves by step" if axis == "steps" else "Learning curves by time"
    return _draw(title, f"Validation {comparison.metric} by {label}, mean over seeds: {ends}.", paint)


def _losses(comparison: Comparison, term: str) -> Picture | None:
    """The training loss, or a part of it, which compares no rows of other objectives, but shows how each went."""
    drawn = [
        (index, row, found)
        for index, row in enumerate(comparison.rows)
        if (found := mean_curve(row.losses.get(term, []), "steps")) is not None and len(found[0]) > 1
    ]
    if not drawn:
        return None

    title = "Training loss" if term == "loss" else f"Training loss: {term}"

    def paint(axes: Any) -> None:
        for index, row, (across, mean, low, high) in drawn:
            colour = COLOURS[index % len(COLOURS)]
            axes.plot(across, mean, ls=_line(index), label=row.name, color=colour)
            axes.fill_between(across, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.set_xlabel("step")
        axes.set_ylabel(title.lower())
        _legend(axes, len(drawn))

    ends = "; ".join(f"{row.name} from {mean[0]:.3f} to {mean[-1]:.3f}" for _, row, (_, mean, _, _) in drawn)
    return _draw(title, f"{title} by step, mean over seeds: {ends}.", paint)


def _lengths(comparison: Comparison) -> Picture | None:
    """Quality in groups of users by the length of their history."""
    drawn = [(index, row) for index, row in enumerate(comparison.rows) if row.lengths]
    if not drawn:
        return None
    groups = drawn[0][1].lengths
    names = [length_name(group) for group in groups]
    alike = [(index, row) for index, row in drawn if [length_name(group) for group in row.lengths] == names]

    def paint(axes: Any) -> None:
        for order, (index, row) in enumerate(alike):
            values = np.array([[group["value"], group["low"], group["high"]] for group in row.lengths])
            shift = (order - (len(alike) - 1) / 2) * 0.5 / max(len(alike), 1)
            errors = np.maximum([values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]], 0)
            axes.errorbar(
                np.arange(len(names)) + shift, values[:, 0], errors, capsize=2, lw=1, label=row.name, **_style(index)
            )
        labels = [f"{name}\n({group['users']:,})" for name, group in zip(names, groups, strict=True)]
        axes.set_xticks(np.arange(len(names)), labels, fontsize=9)
        axes.set_xlabel("events in the history (users)")
        axes.set_ylabel(comparison.metric)
        _legend(axes, len(alike))

    return _draw("Quality by history length", _lengths_told(comparison.metric, names, alike), paint)


def _lengths_told(metric: str, names: list[str], rows: Sequence[tuple[int, Row]]) -> str:
    told = [
        f"{row.name} "
        + ", ".join(f"{group['value']:.4f} at {name}" for name, group in zip(names, row.lengths, strict=True))
        for _, row in rows
    ]
    return f"{metric} by events in the history, with 95 % intervals over users: {'; '.join(told)}."


def length_name(group: dict[str, Any]) -> str:
    """`5-9`, `1000+`."""
    return f"{group['from']}+" if group["to"] is None else f"{group['from']}-{group['to']}"
