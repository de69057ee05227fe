"""A comparison as one HTML page that needs nothing else: no script, no font, no address outside it."""

import base64
from pathlib import Path

from markupsafe import Markup

from recjax.compare.comparison import Comparison, Row
from recjax.compare.page_plots import pictures
from recjax.compare.page_style import STYLE
from recjax.compare.tables import (
    Grid,
    below_floor,
    cost_grid,
    duration,
    explanations,
    headline,
    quality_grid,
    settings_grid,
    slice_grid,
    verdict,
)
from recjax.evaluate.floors import best_floor
from recjax.files import replacing

NOTHING = Grid("", [], [])


def write_page(comparison: Comparison, path: Path) -> None:
    """Writes the page, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as new:
        new.write_text(page(comparison), encoding="utf-8")


def page(comparison: Comparison) -> str:
    """The page's HTML, by the template beside this file."""
    import jinja2  # needed only when a page is made

    loader = jinja2.PackageLoader("recjax.compare", ".")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    environment.filters["base64"] = lambda text: base64.b64encode(text.encode()).decode()
    rows = comparison.rows
    return environment.get_template("page.html.j2").render(
        c=comparison,
        style=Markup(STYLE),
        question=[part for part in comparison.question.split("\n\n") if part.strip()],
        headline=headline(comparison),
        summary=summary(comparison),
        quality_grid=quality_grid(comparison) if comparison.dataset else None,
        explanations=explanations(comparison),
        cost_grid=cost_grid(comparison),
        slice_grid=slice_grid(comparison) if comparison.slices else NOTHING,
        settings_grid=settings_grid(comparison) if any(row.settings for row in rows) else NOTHING,
        pictures=pictures(comparison),
        doubts=[*below_floor(comparison), *_remarks(comparison), *comparison.doubts],
        data=_data(comparison) if comparison.dataset else [],
        how_facts=_how(comparison),
        runs=[command for row in rows for command in row.commands],
        folders=[folder for row in rows for folder in row.folders],
        settings=[f"{key} = {value}" for key, value in comparison.configuration.items()],
    )


def summary(comparison: Comparison) -> list[str]:
    """The rows in a sentence each: how good against the first and the best floor, at what cost."""
    first, metric = comparison.rows[0], comparison.metric
    lines = []
    for row in comparison.rows:
        if metric not in row.metrics:
            lines.append(f"{row.name} has no result.")
            continue
        parts = [f"{row.name} reaches {metric} {row.metrics[metric].value:.4f}"]
        parts[0] += _best_floor(comparison, row.metrics[metric].value, row is first)
        if row is not first and row.test is not None:
            said = verdict(row.test).replace("\n(", ", ").removesuffix(")")
            parts.append(f"{row.test['difference']:+.4f} against {first.name} ({said})")
        parts += _cost_in_words(row, first)
        lines.append(", ".join(parts) + ".")
    return lines


def _best_floor(comparison: Comparison, value: float, always: bool) -> str:
    best = best_floor(comparison.floors, comparison.metric)
    if best is None or (value >= best[1] and not always):
        return ""
    return f" ({'below the best floor' if value < best[1] else 'the best floor'}, {best[0]}, {best[1]:.4f})"


def _cost_in_words(row: Row, first: Row) -> list[str]:
    seconds, base = row.cost.train_seconds, first.cost.train_seconds
    if seconds is None:
        return []
    words = f"in {duration(seconds)} of training"
    if row is first or not base:
        return [words]
    return [f"{words}, {seconds / base:.2f} times that of {first.name}"]


def _remarks(comparison: Comparison) -> list[str]:
    lines = [f"{row.name}: {remark}." for row in comparison.rows for remark in row.remarks]
    lines += [f"{row.name}: {failure}" for row in comparison.rows for failure in row.failures]
    if len(comparison.rows) > 1:
        sized = [row for row in comparison.rows if row.cost.parameters is not None]
        if len(sized) > 1 and not any("size" in remark for row in sized for remark in row.remarks):
            lines.append("All rows have the first row's number of parameters within 5 %.")
        settings = {key for row in comparison.rows for key in row.settings}
        equal = [name for name, keys in _FAIR.items() if not settings & set(keys)]
        if equal:
            lines.append(f"The same for all rows: {', '.join(equal)}.")
    if any(len(row.seeds) == 1 for row in comparison.rows):
        lines.append("A row of one seed says nothing of how far seeds vary; differences as small as that are chance.")
    return lines


_FAIR = {
    "training steps": ("train.steps", "train.epochs", "train.patience"),
    "rows a step": ("data.rows", "data.row_length"),
    "learning rate": ("optim.learning_rate",),
    "training data": ("data.dataset", "data.split", "data.user_share"),
}
"""Properties that should not differ between rows -> the settings that decide them."""


def _data(comparison: Comparison) -> list[tuple[str, str]]:
    data, protocol = comparison.dataset, comparison.protocol
    masked = "items of the history leave the ranking" if protocol["mask_seen"] == "history" else "seen items stay"
    return [
        ("Dataset", f"{data['name']}: {data['users']:,} users, {data['items']:,} items"),
        ("Fingerprint", data["fingerprint"]),
        ("Evaluated", f"{comparison.counts['users']:,} users of the {protocol['split']} split"),
        ("Candidates", "the whole catalog" if protocol["candidates"] == "full" else protocol["candidates"]),
        ("Seen items", masked),
        ("Ties", protocol["tie"]),
    ]


def _how(comparison: Comparison) -> list[tuple[str, str]]:
    times = sorted(time for row in comparison.rows for time in row.times)
    facts = [("Training started", " to ".join(dict.fromkeys((times[0], times[-1]))) + " UTC")] if times else []
    facts += [("Hardware", line) for line in comparison.machine]
    if comparison.wall_seconds is not None:
        facts.append(("All runs took", f"{duration(comparison.wall_seconds)}, from their start to their evaluation"))
    return [*facts, ("recjax", comparison.commit)] if comparison.commit else facts
