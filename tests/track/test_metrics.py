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


DAMAGE = {
    "a number": b"5\n",
    "no UTF-8": b'{"step": 2, "name": "\xff\xfe", "value": 1.0}\n',
    "a cut line": b'{"step": 2, "na\n',
    "a list": b"[]\n",
    "a step that is a text": b'{"step": "2", "name": "loss", "value": 1.0}\n',
    "no value": b'{"step": 2, "name": "loss"}\n',
    "zeros": b"\0\0\0\n",
    "deep": b"[" * 100_000 + b"\n",
}


@pytest.mark.parametrize("line", DAMAGE.values(), ids=list(DAMAGE))
def test_damaged_lines_are_left_out_and_counted(tmp_path, caplog, line):
    with MetricLog(tmp_path, 0) as log:
        log.write(2, {"loss": 2.0})
    path = tmp_path / "metrics.jsonl"
    before = path.read_bytes() + line + b'{"step": 4, "name": "loss", "value": 4.0}\n'
    path.write_bytes(before)
    assert read_metrics(tmp_path) == {"loss": [(2, 2.0), (4, 4.0)]}
    with MetricLog(tmp_path, 4) as log:
        assert log.resumed == {"loss": 4.0}
    assert "1 lines cannot be read" in caplog.text
    assert (tmp_path / "metrics.jsonl.damaged").read_bytes() == before
    assert len(path.read_text().splitlines()) == 2
    caplog.clear()
    with MetricLog(tmp_path, 4):
        assert not caplog.text


def test_a_fresh_start_empties_the_log(tmp_path):
    with MetricLog(tmp_path, 0) as log:
        log.write(2, {"loss": 1.0})
    with MetricLog(tmp_path, 0) as log:
        log.write(2, {"loss": 3.0})
    assert read_metrics(tmp_path) == {"loss": [(2, 3.0)]}


def test_no_log(tmp_path):
    with pytest.raises(InputError, match=r"metrics\.jsonl does not exist"):
        read_metrics(tmp_path)
