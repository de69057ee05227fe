"""Shares of a mixture by held-out losses: the rules, the plan that follows, and a run that resumes across a change."""

import dataclasses

import jax
import numpy as np
import pytest

from recjax.config import from_json, to_json
from recjax.data.batches.derived import Numbered
from recjax.data.batches.loader import Loader
from recjax.data.batches.mixture import MixedLoader, Mixture
from recjax.data.batches.shares import InOrder, SkillIt
from recjax.data.batches.views import Cloze, Shifted
from recjax.data.items import on_devices
from recjax.data.splits import LeaveOneOut, Split
from recjax.track.metrics import read_metrics
from recjax.train.held_out import Shares, held_out_loader, loss_of_each
from recjax.train.interrupt import Interrupt
from recjax.train.loop import fit
from recjax.train.run import read_record
from recjax.typing import InputError
from tests.evaluate import toy
from tests.train.toy import NO_COLUMNS, OneDevice, ToyModel, toy_config, toy_task

NAMES = ("a", "b", "c")
CHAIN = ("a>b", "b>c")
LOSSES = np.array([[1.0, 2.0, 3.0], [0.5, 2.0, 3.0], [0.1, 1.0, 3.0]])
RULE = SkillIt(("a>b",), eta=4.0, window=2, every=4)


def splits() -> list[tuple[int, Split]]:
    return [(30, LeaveOneOut().split(toy.dataset(users=60, items=30, seed=seed))) for seed in (0, 1)]


def mixed(rule: SkillIt | None = RULE) -> tuple[MixedLoader, list[Loader]]:
    """Loaders of two datasets, and those of their held-out events."""
    view = Shifted(max_length=6)
    loaders = [Loader(split.train, view, 8, None, 0, n_items=items) for items, split in splits()]
    held_out = [held_out_loader(split.validation, own, view) for (_, split), own in zip(splits(), loaders, strict=True)]
    return MixedLoader(loaders, [1.0, 1.0], rule and rule.every), held_out


def test_the_shares_are_those_computed_by_hand():
    rule = SkillIt(CHAIN, eta=0.5, window=2)
    sums = [[1.0, 1.0, 1.0], [1.0, 2.0, 3.0], [1.5, 4.0, 6.0], [0.6, 3.0, 6.0]]  # of the last two measurements
    for count, (a, b, c) in enumerate(sums):
        raised = np.exp([0.5 * (a + b / 2), 0.5 * (b + c / 2), 0.5 * c])
        np.testing.assert_allclose(rule.weights(NAMES, LOSSES[:count]), raised / raised.sum(), rtol=1e-12)
    np.testing.assert_allclose(SkillIt(CHAIN, eta=0.0).weights(NAMES, LOSSES), 1 / 3)
    own = np.exp(0.5 * LOSSES.sum(axis=0))
    np.testing.assert_allclose(SkillIt().weights(NAMES, LOSSES), own / own.sum())
    order = [2, 0, 1]
    moved = rule.weights([NAMES[place] for place in order], LOSSES[:, order])
    np.testing.assert_allclose(moved, rule.weights(NAMES, LOSSES)[order])
    relative = SkillIt(relative=True, window=1).weights(NAMES, LOSSES)
    np.testing.assert_allclose(relative, SkillIt(window=1).weights(NAMES, LOSSES[2:] / LOSSES[0]))


def test_a_curriculum_gives_each_its_turn():
    rule, losses = InOrder(("c", "a", "b"), share=0.8), np.zeros((9, 3))
    found = [rule.weights(NAMES, losses[:count]).argmax() for count in (0, 1, 2, 9)]
    assert found == [2, 0, 1, 1] and rule.weights(NAMES, losses).tolist() == pytest.approx([0.1, 0.8, 0.1])
    assert InOrder().weights(NAMES, losses[:1]).argmax() == 1


def test_between_changes_each_loader_gets_its_share_and_none_loses_a_batch():
    loader = mixed()[0]
    shares = {0: 0.5, 40: 0.9, 100: 0.2}
    loader.change(40, [0.9, 0.1])
    loader.change(100, [0.2, 0.8])
    sources = np.array([loader.source(step) for step in range(300)])
    for (first, share), last in zip(shares.items(), (40, 100, 300), strict=True):
        drawn = np.cumsum(sources[first:last, 0] == 0)
        assert np.abs(drawn - share * np.arange(1, last - first + 1)).max() <= 1.0
    for number in (0, 1):
        own = sources[sources[:, 0] == number, 1]
        np.testing.assert_array_equal(own, np.arange(len(own)))


def test_no_batch_is_made_ahead_of_a_change():
    loader = mixed()[0]
    batches = loader.iterate(2, 10)
    for _ in range(2):
        next(batches)
    loader.change(4, [1.0, 1e-9])
    rest = list(batches)
    assert len(rest) == 6 and [loader.catalog(step) for step in range(4, 10)] == [0] * 6
    np.testing.assert_array_equal(rest[-1].items, loader.batch(9).items)


def test_held_out_targets_alone_have_a_loss():
    view = Numbered(Shifted(max_length=6))
    (items, split), _ = splits()
    own = Loader(split.train, view, 8, None, 0, n_items=items)
    loader = held_out_loader(split.validation, own, view)
    found = [loader.host_batch(step) for step in range(loader.steps(1))]
    targets = np.concatenate([batch.targets[batch.weights > 0] for batch in found])
    assert np.array_equal(np.unique(targets), np.unique(split.validation.targets))
    assert len(targets) >= len(split.validation)
    with pytest.raises(InputError, match=r"data.view has to be a Shifted view, not Cloze"):
        held_out_loader(split.validation, own, Cloze(6))


def task(rule: SkillIt = RULE):
    loader, held_out = mixed(rule)
    items = (on_devices(NO_COLUMNS),) * 2
    shares = Shares(rule, ("a", "b"), loader, loss_of_each(ToyModel(), held_out, items))
    return toy_task(loader=loader, items=items, shares=shares)


def run(folder):
    with jax.set_mesh(OneDevice().build()):
        prepared = task()
    return fit(toy_config(evaluate_every=0, save_every=50), folder, prepared)


def test_a_run_stopped_around_a_change_is_the_unbroken_one(tmp_path, monkeypatch):
    run(tmp_path / "unbroken")
    with monkeypatch.context() as patch:
        for stop in (4, 5):  # at the change of step 4, and after it
            patch.setattr(Interrupt, "requested", lambda self, step, stop=stop: step == stop)
            assert run(tmp_path / "broken").step == stop
    run(tmp_path / "broken")
    (_, one), (_, other) = (read_record(tmp_path / name) for name in ("unbroken", "broken"))
    shares = one["progress"]["shares"]
    assert [change["step"] for change in shares] == [4, 8] and shares == other["progress"]["shares"]
    losses = np.array([change["losses"] for change in shares])
    for count, change in enumerate(shares, 1):
        np.testing.assert_array_equal(change["weights"], RULE.weights(("a", "b"), losses[:count]))
    last = [read_metrics(tmp_path / name)["loss"][-1] for name in ("unbroken", "broken")]
    assert last[0] == last[1] and one["progress"] == other["progress"]
    assert len(read_metrics(tmp_path / "broken")["mixture/share/a"]) == 2


def test_settings_that_cannot_be():
    data = Mixture(("a", "b"), weighting=RULE)
    assert from_json(to_json(data)) == data
    for edge in ("a>c", "a", "a>a"):
        with pytest.raises(InputError, match=r"edges .*expected `NAME>NAME` of two of the datasets a, b"):
            dataclasses.replace(data, weighting=SkillIt((edge,)))
    with pytest.raises(InputError, match=r"order .*expected the datasets in some order: a, b"):
        dataclasses.replace(data, weighting=InOrder(("a",)))
