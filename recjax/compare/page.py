"""A comparison as one HTML page that needs nothing else: no script, no font, no address outside it."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from recjax.compare.comparison import Comparison, Row
from recjax.compare.page_plots import Picture, pictures
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


def write_page(comparison: Comparison, path: Path) -> None:
    """Writes the page, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as new:
        new.write_text(page(comparison), encoding="utf-8")


def page(comparison: Comparison) -> str:
    """The page's HTML."""
    sections = [
        ("In short", _list(summary(comparison))),
        ("Quality", _table(quality_grid(comparison)) + _notes(explanations(comparison)) if comparison.dataset else ""),
        ("Cost", _table(cost_grid(comparison))),
        ("Pictures", f'<div class="pictures">{"".join(map(_figure, pictures(comparison)))}</div>'),
        ("Whom it serves", _table(slice_grid(comparison)) if comparison.slices else ""),
        ("Before you believe it", _list([*below_floor(comparison), *_remarks(comparison), *comparison.doubts])),
        ("What differs", _table(settings_grid(comparison)) if any(row.settings for row in comparison.rows) else ""),
        ("Data and rules", _facts(_data(comparison)) if comparison.dataset else ""),
        ("How to repeat it", _how(comparison)),
    ]
    body = "".join(
        f'<section aria-labelledby="s{index}"><h2 id="s{index}">{_text(title)}</h2>{content}</section>\n'
        for index, (title, content) in enumerate(sections)
        if content
    )
    question = "".join(f"<p>{_text(part)}</p>" for part in comparison.question.split("\n\n") if part.strip())
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(comparison.title)}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
        f'<header><h1>{_text(comparison.title)}</h1>{question}<p class="facts">{_text(headline(comparison))}</p>'
        f"</header>\n<main>\n{body}</main>\n"
        f"<footer><p>Made by recjax {_text(comparison.commit)}</p></footer>\n</body>\n</html>\n"
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


def _how(comparison: Comparison) -> str:
    machine = [("Hardware", line) for line in comparison.machine]
    if comparison.wall_seconds is not None:
        machine.append(("All runs took", f"{duration(comparison.wall_seconds)}, from their start to their evaluation"))
    facts = _facts([*machine, *([("recjax", comparison.commit)] if comparison.commit else [])])
    commands = _code(comparison.commands) if comparison.commands else ""
    runs = [command for row in comparison.rows for command in row.commands]
    if runs:
        commands += f"<p>The runs, each by itself:</p>{_code(runs)}"
    folders = [folder for row in comparison.rows for folder in row.folders]
    if folders and not runs:
        commands += f"<p>Run folders: {', '.join(f'<code>{_text(folder)}</code>' for folder in folders)}</p>"
    settings = "\n".join(f"{key} = {value}" for key, value in comparison.configuration.items())
    name = comparison.rows[0].name
    whole = (
        f"<details><summary>The whole configuration of {_text(name)}</summary><pre>{_text(settings)}</pre></details>"
    )
    return facts + commands + (whole if settings else "")


def _code(lines: Sequence[str]) -> str:
    return f"<pre>{_text(chr(10).join(lines))}</pre>"


def _facts(pairs: Sequence[tuple[str, str]]) -> str:
    inside = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in pairs)
    return f"<dl>{inside}</dl>" if inside else ""


def _list(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{_text(line)}</li>" for line in lines) + "</ul>" if lines else ""


def _notes(lines: Sequence[str]) -> str:
    return "".join(f'<p class="note">{_text(line)}</p>' for line in lines)


def _table(grid: Grid) -> str:
    if not grid.rows:
        return ""
    head = "".join(
        f'<th scope="col">{_text(title).replace(chr(10), "<br>")}</th>' if title else '<td class="corner"></td>'
        for title in grid.header
    )
    lines = []
    for index, row in enumerate(grid.rows):
        cells = [f'<th scope="row">{_text(row[0])}</th>']
        for column, cell in enumerate(row[1:], start=1):
            cells.append(f"<td>{_cell(cell, (index, column) in grid.best)}</td>")
        kind = ' class="quiet"' if index in grid.quiet else ""
        lines.append(f"<tr{kind}>{''.join(cells)}</tr>")
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{_text(grid.title)}"><table>'
        f"<caption>{_text(grid.title)}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
        "</table></div>"
    )


def _cell(text: str, best: bool = False) -> str:
    first, *more = text.split("\n")
    shown = f"<strong>{_text(first)}</strong>" if best else _text(first)
    return shown + "".join(f"<small>{_text(line)}</small>" for line in more)


def _figure(picture: Picture) -> str:
    data = base64.b64encode(picture.svg.encode()).decode()
    return (
        f'<figure><img src="data:image/svg+xml;base64,{data}" alt="{_text(picture.description)}">'
        f"<figcaption>{_text(picture.title)}</figcaption></figure>"
    )


def _text(value: str) -> str:
    return html.escape(value, quote=True)
