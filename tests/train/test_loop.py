import json
import os
import re
import signal
from dataclasses import replace

import jax
import numpy as np
import pytest

from experiments.benchmarks.kill_resume import TIMINGS
from recjax.parallel.mesh import MeshShape
from recjax.track.metrics import read_metrics
from recjax.track.plots import plot_curves
from recjax.train import loop, programs
from recjax.train.folder.checkpoint import Checkpoints
from recjax.train.loop import TrainingError, fit
from recjax.train.optimiser import AdamW
from recjax.typing import InputError
from tests.train.toy import ToyLoader, interrupt_at, saved, toy_config, toy_task


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def metrics(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if not line["name"].startswith(TIMINGS)]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """A run of 12 steps with an average, clipping, a schedule, accumulation and validation."""
    folder = tmp_path_factory.mktemp("unbroken")
    result = fit(everything(), folder, toy_task())
    return folder, result


def everything(**changes):
    return toy_config(
        **{
            "optim": AdamW(0.02, weight_decay=0.1, clip=1.0, warmup_steps=3, schedule="cosine"),
            "ema": 0.9,
            "accumulate": 2,
            "patience": 4,
            **changes,
        }
    )


@pytest.mark.parametrize("at", [1, 5, 7, 10])
def test_a_run_that_was_stopped_and_resumed_is_the_unbroken_one(tmp_path, unbroken, at):
    folder, result = unbroken
    first = fit(everything(), tmp_path, toy_task(on_step=interrupt_at(at)))
    assert first.preempted and first.step == at + 1
    second = fit(everything(), tmp_path, toy_task())
    assert second == result and not second.preempted
    expected, actual = (saved(f, ema=True, optim=everything().optim) for f in (folder, tmp_path))
    assert_same(expected[0], actual[0])
    assert expected[1] == actual[1]
    assert metrics(tmp_path) == metrics(folder)


def test_what_a_run_has_cost_is_logged_and_goes_on(tmp_path):
    fit(toy_config(), tmp_path, toy_task(on_step=interrupt_at(5), pause=0.03))
    before = read_metrics(tmp_path)["train_seconds"]
    fit(toy_config(), tmp_path, toy_task(pause=0.03))
    curves = read_metrics(tmp_path)
    seconds = dict(curves["train_seconds"])
    assert list(seconds) == [3, 4, 6, 8, 9, 12] and before == list(seconds.items())[:3]
    assert sorted(seconds.values()) == list(seconds.values())
    assert seconds[6] > 3 * 0.03  # pauses count, for the loop waits; the first step, which was compiled, does not
    assert [step for step, _ in curves["host_peak_bytes"]] == list(seconds)
    assert min(value for _, value in curves["host_peak_bytes"]) > 1e7


def test_resume_on_another_mesh(tmp_path, unbroken):
    folder, result = unbroken
    fit(everything(mesh=MeshShape(model=4)), tmp_path, toy_task(on_step=interrupt_at(3)))
    last = fit(everything(mesh=MeshShape(model=2)), tmp_path, toy_task())
    assert (last.step, last.best_step) == (result.step, result.best_step)
    expected, actual = (saved(f, ema=True, optim=everything().optim)[0] for f in (folder, tmp_path))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), expected, actual)


def test_a_finished_run_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "plot_curves", plot_curves)
    result = fit(toy_config(), tmp_path, toy_task())
    before = metrics(tmp_path)
    assert fit(toy_config(), tmp_path, toy_task()) == result
    assert metrics(tmp_path) == before
    assert (tmp_path / "curves.png").stat().st_size > 1000


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_may_come_again_and_again(tmp_path, number):
    before = signal.getsignal(number)
    result = fit(toy_config(), tmp_path, toy_task(on_step=interrupt_at(4, times=5, number=number)))
    assert result.preempted and result.step == 5
    assert signal.getsignal(number) is before


def test_a_signal_before_the_first_step(tmp_path):
    """SIGTERM ends the run before it takes a step; SIGINT gives the prompt back at once."""

    class Early(ToyLoader):
        def batch(self, step):
            os.kill(os.getpid(), self.on_step)
            return super().batch(step)

    result = fit(toy_config(), tmp_path, toy_task(loader=Early(on_step=signal.SIGTERM)))
    assert result.preempted and result.step == 0
    with pytest.raises(KeyboardInterrupt):
        fit(toy_config(), tmp_path, toy_task(loader=Early(on_step=signal.SIGINT)))
    assert fit(toy_config(), tmp_path, toy_task()).step == 12


def test_keeps_the_latest_and_the_best(tmp_path):
    values = iter([0.1, 0.9, 0.3, 0.2])
    task = toy_task(validate=lambda params: {"ndcg@10": next(values)})
    result = fit(toy_config(keep=2, save_every=2), tmp_path, task)
    assert (result.best_step, result.best_value) == (6, 0.9)
    with Checkpoints(tmp_path / "checkpoints", writes=False) as checkpoints:
        assert checkpoints.steps == [6, 10, 12]


def test_early_stopping_and_its_resumption(tmp_path):
    values = [0.5, 0.6, 0.2, 0.6, 0.1, 0.9]
    config = toy_config(steps=18, patience=3)
    calls = iter(values)
    result = fit(config, tmp_path / "a", toy_task(validate=lambda params: {"ndcg@10": next(calls)}))
    assert (result.step, result.best_step, result.stopped) == (15, 6, "no better ndcg@10 in 3 validations")
    assert not result.preempted

    calls = iter(values)
    broken = toy_task(validate=lambda params: {"ndcg@10": next(calls)}, on_step=interrupt_at(10))
    assert fit(config, tmp_path / "b", broken).preempted
    assert fit(config, tmp_path / "b", toy_task(validate=lambda params: {"ndcg@10": next(calls)})) == result
    assert fit(config, tmp_path / "b", toy_task(validate=lambda params: {})) == result  # it stays stopped


def test_stops_at_a_number_that_is_not_finite(tmp_path):
    with pytest.raises(TrainingError, match=r"step 8: the loss is nan.*checkpoint of step 6 is kept"):
        fit(toy_config(save_every=6), tmp_path, toy_task(poison=7))
    assert {"step": 8, "name": "non_finite", "value": 1.0} in metrics(tmp_path)
    state, record = saved(tmp_path)
    assert state.step == 6 and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
    assert record["progress"]["best_step"] in (3, 6)
    with pytest.raises(TrainingError, match="no checkpoint before it"):
        fit(toy_config(), tmp_path / "first", toy_task(poison=0))


def test_nothing_not_finite_is_ever_saved(tmp_path):
    """The poisoned step is the one before a checkpoint, so its numbers are read before that is written."""
    with pytest.raises(TrainingError, match=r"step 8.*step 4 is kept"):
        fit(toy_config(evaluate_every=0), tmp_path, toy_task(poison=7))
    with Checkpoints(tmp_path / "checkpoints", writes=False) as checkpoints:
        assert checkpoints.latest == 4


@pytest.fixture
def steps_made(monkeypatch):
    """The compiled step functions that `fit` makes, none being kept of earlier runs."""
    made = []
    original = programs.make_train_step
    programs.programs_of.cache_clear()

    def make(*args, **kwargs):
        made.append(original(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(programs, "make_train_step", make)
    yield made
    programs.programs_of.cache_clear()


def test_a_step_compiles_once_for_the_runs_of_a_process_that_differ_by_seed_and_folder(tmp_path, steps_made):
    fit(everything(), tmp_path / "one", toy_task(on_step=interrupt_at(5)))
    fit(everything(), tmp_path / "one", toy_task())
    fit(replace(everything(), seed=1), tmp_path / "two", toy_task())
    assert [step._cache_size() for step in steps_made] == [1]
    fit(replace(everything(), optim=AdamW(0.03)), tmp_path / "three", toy_task())
    assert [step._cache_size() for step in steps_made] == [1, 1]


def test_the_loop_refuses_implicit_transfers(tmp_path):
    class HostBatches(ToyLoader):
        def iterate(self, start, stop):
            for step in range(start, stop):
                yield self.host_batch(step, np.arange(16))

    with pytest.raises(Exception, match=r"Disallowed host-to-device transfer"):
        fit(toy_config(), tmp_path, toy_task(loader=HostBatches()))


def test_refuses_another_configuration_and_another_dataset(tmp_path):
    fit(toy_config(), tmp_path, toy_task(on_step=interrupt_at(4)))
    with pytest.raises(InputError, match=re.escape("train.steps is 12 there and 6 now")):
        fit(toy_config(steps=6), tmp_path, toy_task())
    with pytest.raises(InputError, match=re.escape("optim.b1 is 0.9 there and 0.5 now")):
        fit(toy_config(optim=AdamW(0.02, b1=0.5)), tmp_path, toy_task())
    with pytest.raises(InputError, match="fingerprint f00d, but 'toy' has fingerprint beef now"):
        fit(toy_config(), tmp_path, toy_task(fingerprint="beef"))
    assert fit(toy_config(keep=3, log_every=1), tmp_path, toy_task()).step == 12  # these change nothing computed


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"steps": None}, "either steps or epochs"),
        ({"epochs": 2.0}, "either steps or epochs"),
        ({"steps": 0}, "Train.steps is 0, expected 1 or more, or none"),
        ({"keep": 0}, "Train.keep is 0, expected 1 or more"),
        ({"ema": 1.0}, "Train.ema is 1.0, expected a number between 0 and 1"),
        ({"evaluate_every": -1}, "Train.evaluate_every is -1, expected 0 or more"),
        ({"metric": "ndcg@11"}, "'ndcg@11', but validation measures: ndcg@10, hr@10"),
        ({"evaluate_every": 0, "patience": 2}, "train.patience"),
        ({"accumulate": 3}, "accumulate"),
    ],
)
def test_settings_that_cannot_be(tmp_path, train, message):
    with pytest.raises(InputError, match=message):
        fit(toy_config(**train), tmp_path, toy_task())


def test_length_in_epochs_and_validation_once_an_epoch(tmp_path):
    result = fit(toy_config(steps=None, epochs=1.6, evaluate_every=None, save_every=None), tmp_path, toy_task())
    assert result.total == 8
    assert sorted({line["step"] for line in metrics(tmp_path) if "validation" in line["name"]}) == [5, 8]
