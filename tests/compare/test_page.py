"""The page is whole, valid and needs nothing outside it; a browser draws it."""

import base64
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from rich.console import Console

from recjax.compare.comparison import Curve, Row
from recjax.compare.page import page, write_page
from recjax.compare.page_plots import mean_curve
from recjax.compare.tables import NONE, below_floor, comparison_tables, cost_grid, quality_grid, settings_grid
from tests.compare.sample import comparison

VOID = {"meta", "img", "br"}
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Checker(HTMLParser):
    """Collects the tags of a document, and complains where one is not closed in its turn."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        self.text.append(data)


def read(text: str) -> Checker:
    checker = Checker()
    checker.feed(text)
    checker.close()
    assert not checker.open
    return checker


@pytest.fixture(scope="module")
def made() -> str:
    return page(comparison())


def test_every_part_is_there(made):
    checker = read(made)
    assert made.startswith("<!DOCTYPE html>") and ("html", {"lang": "en"}) in checker.tags
    assert any(tag == "meta" and attrs.get("name") == "viewport" for tag, attrs in checker.tags)
    text = "".join(checker.text)
    for title in ("In short", "Quality", "Cost", "Pictures", "Whom it serves", "Before you believe it", "What differs"):
        assert title in text
    for expected in (
        "0.2620",
        "[0.2560, 0.2680]",
        "better",
        "popularity",
        "+7.5%, not matched",
        "2 min 50 s",
        "1.3 GB host",
        "the loss is nan & the gradient's norm <inf>",
        "recjax ablate mixers --seeds 3",
        "recjax train mixers.py --set model.mixer=s4 --set seed=2",
        "99182a8e90e87e2f" * 4,
        "training sees the future",
        "AMD EPYC",
        "2026-11-28 09:30 to 2026-11-29 14:05 UTC",
        "1 h 6 min",
        "3c42702",
        "train.steps = 1600",
    ):
        assert expected in text, expected


def test_nothing_outside_it_is_asked_for(made):
    checker = read(made)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in checker.tags}
    for tag, attrs in checker.tags:
        for name in ("src", "href"):
            assert (attrs.get(name) or "data:").startswith("data:"), (tag, attrs)
    assert "url(" not in made and "@import" not in made
    assert "gru <script>" not in made and "gru &lt;script&gt;" in made


def test_it_can_be_read_without_seeing(made):
    checker = read(made)
    images = [attrs for tag, attrs in checker.tags if tag == "img"]
    assert len(images) == 8
    for image in images:
        assert len(image["alt"] or "") > 60
        drawn = ElementTree.fromstring(base64.b64decode((image["src"] or "").partition("base64,")[2]))
        assert drawn.tag.endswith("svg")
    tables = [tag for tag, _ in checker.tags if tag == "table"]
    assert len(tables) == sum(tag == "caption" for tag, _ in checker.tags) == 4
    assert {attrs.get("scope") for tag, attrs in checker.tags if tag == "th"} == {"col", "row"}
    sections = [attrs["aria-labelledby"] for tag, attrs in checker.tags if tag == "section"]
    ids = [attrs["id"] for _, attrs in checker.tags if "id" in attrs]
    assert sections == ids and len(set(ids)) == len(ids)


def test_the_same_numbers_make_the_same_page(made):
    assert page(comparison()) == made


def test_a_run_alone_has_a_page(tmp_path: Path):
    alone = replace(comparison(), rows=comparison().rows[:1], commands=[])
    write_page(alone, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert len([tag for tag, _ in read(text).tags if tag == "img"]) == 6  # beside its floors, and against nothing else
    assert "against attention" not in text and "What differs" not in text
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_rows_without_a_result_do_not_spoil_the_others():
    failed = Row("mamba", failures=["seed 0 failed: step 3: the loss is nan"])
    text = page(replace(comparison(), rows=[*comparison().rows, failed]))
    assert "mamba has no result." in text and "mamba: seed 0 failed" in text
    bare = replace(comparison(), rows=[failed], dataset={}, protocol={}, floors={}, slices={})
    assert "mamba has no result." in page(bare)


def test_rows_below_the_best_floor_are_named():
    text = "".join(read(page(comparison())).text)
    assert "attention reaches ndcg@10 0.2500 (the best floor, transition, 0.2401)" in text
    assert "gru <script> reaches ndcg@10 0.2310 (below the best floor, transition, 0.2401)" in text
    assert "gru <script> is below the best floor: ndcg@10 0.2310 against 0.2401 of transition" in text
    assert "s4 is below" not in text and "s4 reaches ndcg@10 0.2620, +0.0120 against attention" in text
    assert not below_floor(replace(comparison(), floors={"text_knn": None}))


def test_floors_are_tested_against_the_first_row():
    test = {"difference": -0.0099, "interval": [-0.012, -0.0078], "p_holm": 0.001}
    grid = quality_grid(replace(comparison(), floor_tests={"transition": test}))
    cells = {row[0]: row[-2:] for row in grid.rows}
    assert cells["transition"] == ["-0.0099\n[-0.0120, -0.0078]", "worse\n(p = 0.001)"]
    assert cells["popularity"] == [NONE, NONE]
    alone = replace(comparison(), rows=comparison().rows[:1], floor_tests={"transition": test})
    assert "against attention" in page(alone)


def test_the_best_of_each_column_is_stressed():
    quality, cost = quality_grid(comparison()), cost_grid(comparison())
    assert {(quality.rows[row][0], quality.header[column]) for row, column in quality.best} == {
        ("s4", "ndcg@10"),
        ("s4", "hr@10"),
        ("s4", "mrr"),
        ("attention", "coverage@10"),
    }
    assert {(cost.rows[row][0], cost.header[column].split("\n")[0]) for row, column in cost.best} == {
        ("attention", "interactions/s"),
        ("attention", "training time"),
        ("attention", "time to"),
    }
    settings = settings_grid(comparison())
    assert settings.rows == [
        ["model.mixer", "attention", "s4", "gru <script>"],
        ["model.width", "64", "68", "72"],
    ]


def test_tables_on_a_terminal():
    console = Console(width=120, record=True)
    console.print(comparison_tables(comparison()))
    text = console.export_text()
    assert "[0.2560, 0.2680]" in text and "(p = 0.0007)" in text and "…" not in text
    assert all(len(line.rstrip()) <= 120 for line in text.splitlines())


def test_curves_are_averaged_at_the_steps_that_all_runs_have():
    runs = [Curve([1, 2, 4], [1.0, 2.0, 4.0], [0.1, 0.2, 0.5]), Curve([2, 4], [4.0, 8.0], [0.4, 0.3])]
    found = mean_curve(runs, "seconds")
    assert found is not None
    across, mean, low, high = found
    np.testing.assert_allclose(across, [3.0, 6.0])
    np.testing.assert_allclose(mean, [0.3, 0.4])
    np.testing.assert_allclose([low, high], [[0.2, 0.3], [0.4, 0.5]])
    assert mean_curve([Curve([1], None, [0.1])], "seconds") is None


@pytest.mark.skipif(BROWSER is None, reason="no chromium here to draw the page with")
def test_a_browser_draws_it(made, tmp_path: Path):
    assert BROWSER is not None
    (tmp_path / "page.html").write_text(made)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=500,1600"]
    shot = [f"--screenshot={tmp_path / 'page.png'}", f"--user-data-dir={tmp_path / 'profile'}"]
    subprocess.run(
        [BROWSER, *options, *shot, (tmp_path / "page.html").as_uri()], check=True, capture_output=True, timeout=120
    )
    assert ink(tmp_path / "page.png") > 0.03  # text and pictures, not a blank sheet


def ink(path: Path) -> float:
    """Share of the picture that is not white."""
    from matplotlib.image import imread

    return float((np.asarray(imread(path))[..., :3].min(axis=-1) < 0.9).mean())


def test_the_metric_that_is_tested_comes_first():
    assert quality_grid(replace(comparison(), metric="mrr"), ("ndcg@10", "hr@10")).header[2:5] == [
        "mrr",
        "ndcg@10",
        "hr@10",
    ]
    assert quality_grid(comparison(), ("ndcg@10", "hr@10")).header[2:4] == ["ndcg@10", "hr@10"]
