"""Denoising first: the task starts from its parameters, in equal total steps, and either phase survives a stop."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from recjax.compare.run_results import read_outcome
from recjax.data.batches.denoising import Corrupted, denoising_view
from recjax.data.batches.loader import Loader
from recjax.data.batches.views import Cloze, Shifted
from recjax.data.splits import Histories
from recjax.models.bert4rec import BERT4Rec
from recjax.parallel.mesh import MeshShape
from recjax.train import loop
from recjax.train.folder.checkpoint import Checkpoints
from recjax.train.interrupt import Interrupt
from recjax.train.loop import fit
from recjax.train.pretrain import PRETRAIN, Pretrain
from recjax.train.schedule import Train
from recjax.train.stages import STAGES, parts
from recjax.typing import InputError
from tests.train.real import real_config, write_datasets
from tests.train.toy import Nothing, OneDevice, toy_config

STAGE = f"{STAGES}/{PRETRAIN}"


@pytest.fixture(scope="module", autouse=True)
def datasets(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in write_datasets(tmp_path_factory.mktemp("data")).items():
            patch.setenv(name, value)
        yield


def pretrained(**train):
    config = real_config(steps=8, evaluate_every=2, pretrain=Pretrain(share=0.5), **train)
    return dataclasses.replace(config, mesh=OneDevice())


def arrays(folder: Path, step: int, averaged: bool = True) -> dict[str, np.ndarray]:
    """Parameters of a checkpoint, by path."""
    with Checkpoints(folder / "checkpoints", writes=False) as checkpoints, jax.set_mesh(mesh := OneDevice().build()):
        sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        target: dict = {}
        for path, shape in checkpoints.shapes(step, averaged).items():
            *parts, last = path.split("/")
            place = target
            for part in parts:
                place = place.setdefault(part, {})
            place[last] = jax.ShapeDtypeStruct(shape, np.float32, sharding=sharding)
        params = checkpoints.restore_params(step, target, averaged)
        return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(params)}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory):
    """A pre-trained run of 4 + 4 steps, and the states that its phases started from."""
    folder, started = tmp_path_factory.mktemp("unbroken"), []
    with pytest.MonkeyPatch.context() as patch:
        prepare = loop._prepare

        def watched(*args):
            beginning, step = prepare(*args)
            leaves = jax.tree.leaves_with_path(beginning.state.params)
            started.append({jax.tree_util.keystr(path): np.array(leaf) for path, leaf in leaves})
            return beginning, step

        patch.setattr(loop, "_prepare", watched)
        return folder, fit(pretrained(), folder), started


def test_the_task_starts_from_the_parameters_of_the_denoising(unbroken):
    folder, result, (random, carried) = unbroken
    learned = arrays(folder / STAGE, 4)
    assert carried.keys() == learned.keys()
    for name, array in carried.items():
        np.testing.assert_array_equal(array, learned[name], err_msg=name)
    assert any((random[name] != learned[name]).any() for name in random)
    assert (result.step, result.total) == (4, 4)
    configs = [json.loads((path / "config.json").read_text()) for path in (folder, folder / STAGE)]
    assert configs[0]["data"]["view"]["type"].endswith(":Shifted") and configs[0]["train"]["steps"] == 8
    assert configs[1]["data"]["view"]["type"].endswith(":Corrupted") and configs[1]["train"]["steps"] == 4


def test_a_stop_in_either_phase_resumes(unbroken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls = []

    def requested(self, step):
        calls.append(step)
        return len(calls) in stops

    monkeypatch.setattr(Interrupt, "requested", requested)
    stops = {4}  # before the first step, and after each of three
    first = fit(pretrained(), tmp_path)
    assert first.preempted and first.step == 3 and not (tmp_path / "config.json").exists()
    calls.clear()
    stops = {5}  # the fourth step, and then the task's first two
    second = fit(pretrained(), tmp_path)
    assert second.preempted and second.step == 2
    calls.clear()
    stops = set()
    assert fit(pretrained(), tmp_path) == unbroken[1]
    assert calls == [2, 3, 4]  # the denoising was not looked at again
    for phase in (STAGE, "."):
        expected, found = arrays(unbroken[0] / phase, 4), arrays(tmp_path / phase, 4)
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_curves_and_costs_count_both_phases(unbroken):
    outcome = read_outcome(unbroken[0])
    curve = outcome.validation()
    assert curve.steps == [6, 8] and curve.seconds is not None
    (_, first), *_, (last, total) = outcome.curves["train_seconds"]
    assert last == 8 and total == outcome.cost(None).train_seconds > first > 0


def test_an_encoder_that_sees_both_sides_learns_from_masks():
    config = dataclasses.replace(
        pretrained(),
        model=BERT4Rec(width=8, layers=1, inner=8, max_length=12),
        data=dataclasses.replace(real_config().data, view=Cloze(max_length=12)),
    )
    first = parts(config, Path("run"))[0].config
    assert first.data.view == Cloze(max_length=12, mask_prob=0.15, last_copy=False)
    assert (first.train.steps, first.train.pretrain, first.train.evaluate_every) == (4, None, 0)
    assert [part.title for part in parts(real_config(), Path("run"))] == [""]


def test_noise_is_of_the_share_asked_for_and_targets_are_clean():
    lengths = np.array([9, 31, 2, 20] * 50)
    rng = np.random.default_rng(0)
    items = rng.integers(1, 1001, lengths.sum()).astype(np.int32)
    histories = Histories.concatenated(lengths, items, np.zeros(len(items), np.int64), np.arange(len(lengths)))
    clean_view = Shifted(max_length=30, targets=1)
    noisy_view = denoising_view(clean_view, 0.3)
    assert noisy_view == Corrupted(Shifted(max_length=30), 0.3)
    with jax.set_mesh(MeshShape().build(jax.devices()[:1])):
        clean, noisy, other = (
            Loader(histories, view, 64, 32, seed, n_items=1000).host_batch(0)
            for view, seed in ((clean_view, 5), (noisy_view, 5), (noisy_view, 6))
        )
    for name in ("targets", "segments", "positions"):
        np.testing.assert_array_equal(getattr(noisy, name), getattr(clean, name))
    tokens = np.asarray(clean.segments) > 0
    np.testing.assert_array_equal(noisy.weights, tokens.astype(np.float32))  # every position learns
    changed = np.asarray(noisy.items) != np.asarray(clean.items)
    assert not changed[~tokens].any()
    assert changed[tokens].mean() == pytest.approx(0.3, abs=0.04)
    noise = np.asarray(noisy.items)[changed]
    assert noise.min() >= 1 and noise.max() <= 1000 and len(np.unique(noise)) > 0.6 * len(noise)
    assert (np.asarray(other.items) != np.asarray(noisy.items)).any()


def test_settings_that_cannot_be():
    with pytest.raises(InputError, match=r"Train\.steps is None, expected 2 or more, for pretrain divides them"):
        Train(epochs=3, pretrain=Pretrain())
    with pytest.raises(InputError, match=r"Pretrain\.share is 1\.0"):
        Pretrain(share=1.0)
    with pytest.raises(InputError, match=r"Pretrain\.corrupt is 0\.0"):
        Pretrain(corrupt=0.0)
    with pytest.raises(InputError, match="no denoising for the view Nothing"):
        parts(
            dataclasses.replace(
                toy_config(pretrain=Pretrain()), data=dataclasses.replace(real_config().data, view=Nothing())
            ),
            Path("run"),
        )
    assert [Pretrain(share=share).steps(10) for share in (0.01, 0.5, 0.99)] == [1, 5, 9]
