"""A run with several evaluators: its best parameters by any metric, its report, its page."""

import dataclasses
import json

import jax
import pytest

from recjax import cli
from recjax.compare.run_results import compare_runs, read_outcome
from recjax.compare.tables import quality_grid
from recjax.evaluate.options import Options
from recjax.evaluate.protocol import Evaluate
from recjax.evaluate.report import Report
from recjax.train.loop import fit
from recjax.train.run import load_run, read_record
from recjax.typing import InputError
from tests.train.real import real_config, write_datasets


@pytest.fixture
def config(tmp_path, monkeypatch):
    for name, value in write_datasets(tmp_path).items():
        monkeypatch.setenv(name, value)
    evaluators = (Evaluate(users_per_batch=16, bootstrap=20), Options(5, users_per_batch=16, bootstrap=20))
    return dataclasses.replace(real_config(metric="Options.hr@1", steps=2, evaluate_every=1), evaluate=evaluators)


def test_a_run_is_chosen_by_the_metric_of_a_further_evaluator(config, tmp_path, capsys):
    unknown = dataclasses.replace(config, train=dataclasses.replace(config.train, metric="Options.hr@10"))
    with pytest.raises(InputError, match=r"train.metric is 'Options.hr@10', .*ndcg@10, .*Options.hr@1, "):
        fit(unknown, tmp_path / "unknown")
    run = tmp_path / "run"
    result = fit(config, run)
    _, record = read_record(run)
    curve = read_outcome(run).validation()
    assert result.best_value == record["progress"]["best_value"] == max(curve.values)
    capsys.readouterr()
    assert cli.main(["evaluate", str(run), "--json"]) == 0
    report = Report.load(run / "evaluation.json")
    assert json.loads(capsys.readouterr().out) == report.to_json()
    assert jax.device_count() > 1  # lists by command come from a mesh of several devices too
    item = load_run(run).dataset.item_ids[1]
    assert cli.main(["recommend", str(run), "--history", item, "--k", "3"]) == 0
    assert len(capsys.readouterr().out.splitlines()) >= 3
    assert list(report.tasks) == ["Options"] and report.tasks["Options"].users is not None
    comparison = compare_runs({"one": [read_outcome(run)]}, "page")
    estimate = comparison.rows[0].metrics["Options.hr@1"]
    assert estimate.value == report.figures["Options.hr@1"] and estimate.over == "users"
    assert "Options.hr@1" in comparison.floors["popularity"] and "popularity" in comparison.floor_tests
    assert comparison.rows[0].lengths
    assert "Options.hr@1" in quality_grid(comparison).header
