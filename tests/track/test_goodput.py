import pytest

from recjax.track import goodput as goodputs
from recjax.track.goodput import KINDS, Goodput, goodput_line
from recjax.track.metrics import MetricLog


@pytest.fixture
def clock(monkeypatch):
    """Time that passes when told to; `clock.now += 1`."""

    class Clock:
        now = 100.0

    monkeypatch.setattr(goodputs.time, "perf_counter", lambda: Clock.now)
    monkeypatch.setattr(goodputs, "_first_moment", lambda: Clock.now)
    return Clock


def live(clock, folder, start, *spans):
    """A process that goes on at step `start` and spends (kind, seconds), logging at the given steps."""
    goodput = Goodput()
    goodput.resume(folder, start)
    with MetricLog(folder, start) as log:
        for span in spans:
            if isinstance(span, int):
                log.write(span, goodput.values())
            else:
                clock.now += span[1]
                goodput.spent(span[0])
    return goodput


def test_all_time_is_counted_and_what_was_lost_is_restart(clock, tmp_path):
    first = live(
        clock, tmp_path, 0, ("init", 5), ("compile", 2), ("step", 10), ("checkpoint", 1), 4, ("step", 7), ("data", 1), 6
    )
    assert sum(first.seconds.values()) == 26 and first.seconds["restart"] == 0
    second = live(clock, tmp_path, 4, ("init", 3), ("step", 10), ("evaluation", 2), 8)  # killed after step 6
    expected = {
        "init": 8,
        "compile": 2,
        "step": 20,
        "checkpoint": 1,
        "restart": 8,
        "evaluation": 2,
        "data": 0,
        "refresh": 0,
    }
    assert second.seconds == expected
    third = live(clock, tmp_path, 8, ("init", 1))  # it was told to stop: nothing was lost
    assert third.seconds == {**expected, "init": 9}
    assert second.line() == (
        "goodput 48.8% of 41 s: step 48.8%, init 19.5%, compile 4.9%, evaluation 4.9%, checkpoint 2.4%, restart 19.5%"
    )
    assert goodput_line(tmp_path) == second.line()
    assert set(KINDS) == set(expected)


def test_a_run_without_times_has_no_line(tmp_path):
    assert goodput_line(tmp_path) is None
    with MetricLog(tmp_path, 0) as log:
        log.write(1, {"loss": 1.0})
    assert goodput_line(tmp_path) is None


def test_the_first_run_of_a_process_counts_from_its_start(monkeypatch):
    monkeypatch.setattr(goodputs, "_begun", False)
    first, second = Goodput(), Goodput()
    first.spent("init")
    second.spent("init")
    assert first.seconds["init"] > 1 > second.seconds["init"] >= 0
