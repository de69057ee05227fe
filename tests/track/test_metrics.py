import json

import pytest

from recjax.track.metrics import MetricLog, read_metrics
from recjax.typing import InputError


def test_one_object_a_line_readable_at_once(tmp_path):
    with MetricLog(tmp_path, 0) as log:
        log.write(5, {"loss": 1.5, "grad_norm": 2.0})
        lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 5, "name": "loss", "value": 1.5},
        {"step": 5, "name": "grad_norm", "value": 2.0},
    ]
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_resuming_drops_what_came_after_the_checkpoint(tmp_path):
    with MetricLog(tmp_path, 0) as log:
        for step in (2, 4, 6):
            log.write(step, {"loss": float(step)})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "na')  # killed while writing
    with MetricLog(tmp_path, 4) as log:
        log.write(6, {"loss": 60.0})
    assert read_metrics(tmp_path) == {"loss": [(2, 2.0), (4, 4.0), (6, 60.0)]}


def test_a_fresh_start_empties_the_log(tmp_path):
    with MetricLog(tmp_path, 0) as log:
        log.write(2, {"loss": 1.0})
    with MetricLog(tmp_path, 0) as log:
        log.write(2, {"loss": 3.0})
    assert read_metrics(tmp_path) == {"loss": [(2, 3.0)]}


def test_no_log(tmp_path):
    with pytest.raises(InputError, match=r"metrics\.jsonl does not exist"):
        read_metrics(tmp_path)
