"""A trained run beside evidence: scores are sums, the share is what validation says, commands take `pretrained+RUN`."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax import cli
from recjax.config import RunConfig
from recjax.data.batches.loader import query_batches
from recjax.data.batches.views import Cloze
from recjax.models.combined import ENCODER, EVIDENCE, SHARE, CombinedModel
from recjax.models.evidence import EvidenceModel
from recjax.models.sasrec import SASRec
from recjax.train import combined, pretrained
from recjax.train.loop import fit
from recjax.train.pretrained import load_named, load_pretrained
from recjax.train.run import Run, load_run
from recjax.typing import InputError, Params
from tests.models.systems import SMALL, ids
from tests.tiny import on_one_device, tiny_datasets


def short(config: RunConfig) -> RunConfig:
    return replace(config, data=replace(config.data, dataset="tiny"), train=replace(config.train, steps=3))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("combined")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECJAX_DATA", str(tiny_datasets(root / "data", ["tiny"])))
        patch.setenv("RECJAX_CACHE", str(root / "cache"))
        patch.setattr(combined, "SHARES", (1.0, 2.0))
        patch.setattr(pretrained, "_fitting", lambda *_: ((), pretrained.weights()))  # not weighed by ranking
        patch.chdir(root)
        on_one_device(patch)
        fit(short(ids(SASRec(**SMALL))), root / "run")
        yield root / "run"


@pytest.fixture(scope="module")
def named(run) -> Run:
    """The run beside evidence; the larger of two shares ranks validation events better, whatever they rank."""
    measure = combined._ndcg
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(combined, "_ndcg", lambda *given: 0 * measure(*given) + given[2])
        return load_named(Path(f"pretrained+{run}"))


def test_scores_are_those_of_the_evidence_plus_a_share_of_the_encoders(run, named):
    found, trained = named, load_run(run)
    evidence = load_pretrained("tiny")
    assert isinstance(found.model, CombinedModel) and found.notes[-1].startswith("its logits count ")
    view = found.config.data.view
    assert view == replace(trained.config.data.view, times=True)
    items = np.tile(np.arange(1, found.dataset.n_items + 1), (8, 1))
    with jax.set_mesh(found.mesh):
        queries, rows = next(query_batches(found.split.test, view, found.dataset.n_items, 8))
        params = {**found.params, SHARE: jnp.float32(0.7)}

        @jax.jit
        def scored(params: Params) -> Any:
            ours = found.model.scoring(params, queries, found.items)
            posterior = evidence.model.scoring(params[EVIDENCE], queries, evidence.items)
            logits = trained.model.scoring(params[ENCODER], queries, trained.items)
            return *(each.scores(items) for each in (ours, posterior, logits)), ours.topk(queries.seen, 5)

        ours, posterior, logits, (lists, values) = jax.tree.map(np.asarray, scored(params))
    assert (rows >= 0).all() and np.ptp(logits) > 0.1
    np.testing.assert_allclose(ours, posterior + 0.7 * logits, rtol=1e-5, atol=1e-5)
    free = np.where([np.isin(row, seen) for row, seen in zip(items, queries.seen, strict=True)], -np.inf, ours)
    np.testing.assert_allclose(values, -np.sort(-free)[:, :5], rtol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(free, lists - 1, axis=1), values, rtol=1e-6)


def test_the_share_is_the_one_that_ranks_the_validation_events_best(run, named, monkeypatch):
    assert float(named.params[SHARE]) == 2.0
    monkeypatch.setattr(combined, "_ndcg", None)  # read from the cache
    assert float(load_named(Path(f"pretrained+{run}")).params[SHARE]) == 2.0


def test_a_run_that_adds_nothing_leaves_the_evidence_alone(run, monkeypatch, tmp_path):
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path))
    monkeypatch.setattr(combined, "SHARES", (0.0, 2.0))
    monkeypatch.setattr(combined, "_ndcg", lambda model, parts, share, *rest: -share)
    found = load_named(Path(f"pretrained+{run}"))
    assert isinstance(found.model, EvidenceModel) and "its logits count 0 times" in found.notes[-1]


def test_commands_take_it(run, named, capsys: pytest.CaptureFixture[str]):
    named = f"pretrained+{run}"
    assert cli.main(["evaluate", "pretrained", str(run), named, "--set", "evaluate.bootstrap=20"]) == 0
    assert f"{named}-pretrained:ndcg@10" in "".join(capsys.readouterr().out.split())
    ids = load_run(run).dataset.item_ids
    assert cli.main(["recommend", named, "--history", ",".join(ids[1:4]), "--k", "3"]) == 0
    assert "beside the evidence" in capsys.readouterr().err
    assert sorted(entry.name for entry in Path.cwd().iterdir()) == ["cache", "data", "run"]


def test_what_cannot_stand_beside_evidence_says_so(named):
    with pytest.raises(InputError, match="names no run, expected such as pretrained"):
        load_named(Path("pretrained+"))
    with pytest.raises(InputError, match="nothing is not a run folder"):
        load_named(Path("pretrained+nothing"))
    with pytest.raises(InputError, match="reads histories by Cloze; beside evidence stands"):
        combined._with_times(Cloze(), Path("runs/x"))
    model = named.model
    with pytest.raises(InputError, match="is made of parameters that there are"):
        model.init(*(None,) * 3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="is not trained further"):
        model.loss(*(None,) * 4)  # pyright: ignore[reportArgumentType]
