"""TextLM: histories as texts without gaps; what a run leaves is a language model that others begin with."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from scipy.special import log_softmax

from recjax.config import RunConfig
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Batch, Queries, Shifted
from recjax.data.features.behaviour import Behaviour
from recjax.data.features.tokens import Tokens
from recjax.data.items import bare_items
from recjax.evaluate.evaluator import EvaluationData, sampled
from recjax.evaluate.perplexity import Perplexity
from recjax.evaluate.protocol import Evaluate
from recjax.models.model import ItemStats
from recjax.models.slmrec import SLMRec
from recjax.models.text_lm import FOLDER, TextLM
from recjax.nn.groups import FROZEN
from recjax.nn.lora import ADAPTERS, LoRA
from recjax.parallel.mesh import MeshShape
from recjax.text.lm.config import DecoderConfig
from recjax.text.lm.folder import read_language_model
from recjax.text.rows import padded
from recjax.train.loop import fit
from recjax.train.optimiser import Adam
from recjax.train.run import Run, load_run
from recjax.train.schedule import Train
from recjax.train.stages import Stage
from recjax.typing import InputError
from tests.tiny import on_one_device, tiny_datasets

TWIN = Path(__file__).parents[1] / "text" / "lm" / "twins" / "smollm2"
BASE = DecoderConfig(0, 8, 1, 2, 2, 4, 16)
ITEMS, COUNT, WORDS = 5, 3, 12
TEXTS = np.zeros((ITEMS + 1, COUNT), np.int32)
TEXTS[1:] = [[2, 3, 0], [4, 5, 6], [7, 0, 0], [0, 0, 0], [8, 2, 0]]
CATALOG = bare_items(ITEMS, {"tokens": np.pad(TEXTS, [(0, 128 - len(TEXTS)), (0, 0)])})
STATS = ItemStats(ITEMS, np.ones(ITEMS + 1), {"tokens": (COUNT,)}, sizes={"tokens": (WORDS + 1,) * COUNT})
FIRST, SECOND = (1, 2, 4, 3), (5, 1)
"""Histories; item 4 has no text."""
ROWS: Any = [np.array([row], np.int32) for row in ([1, 2, 4, 5, 0], [1, 1, 1, 2, 0], [0, 1, 2, 0, 0], [2, 4, 3, 1, 0])]
BATCH = Batch(*ROWS, weights=(ROWS[1] > 0).astype(np.float32))


def spelled(history: tuple[int, ...]) -> list[int]:
    """Numbers of the tokens of a history's texts."""
    return [int(entry) - 1 for item in history for entry in TEXTS[item] if entry]


@cache
def started(config: TextLM, stats: ItemStats = STATS) -> tuple[Any, Any]:
    model = config.build(stats)
    return model, jax.jit(model.init)(jax.random.key(0), BATCH, CATALOG)


def test_histories_are_the_texts_of_their_items_and_the_loss_is_that_of_each_text_alone():
    model, params = started(TextLM(BASE))
    rows = model.rows(BATCH, CATALOG)
    texts = [spelled(FIRST), spelled(SECOND)]
    whole = [token for text in texts for token in text]
    kept = rows.tokens[0, : len(whole)]
    assert kept.tolist() == whole
    assert rows.segments[0].tolist()[: len(kept) + 1] == [1] * len(texts[0]) + [2] * len(texts[1]) + [0]
    loss, sums = model.loss(params, BATCH, CATALOG, None)
    logits = jax.jit(lambda p, r: model.decoder.apply({"params": p}, r))(params, padded(texts))
    nats = [
        -log_softmax(np.asarray(row, np.float64)[: len(text) - 1], axis=-1)[range(len(text) - 1), text[1:]]
        for row, text in zip(logits, texts, strict=True)
    ]
    assert int(sums["loss"][1]) == sum(map(len, nats))
    np.testing.assert_allclose(loss, np.concatenate(nats).mean(), rtol=1e-5)
    short = replace(model, config=replace(model.config, room=4)).rows(BATCH, CATALOG)
    assert short.tokens.tolist() == [whole[:4]]


def test_the_likelihood_of_a_text_is_that_of_its_tokens_behind_the_history():
    """Also where only the last tokens of the history have room, and without a history."""
    model, params = started(TextLM(BASE))
    items: Any = np.array([[1, 2, 4], [5, 0, 0], [0, 0, 0]], np.int32)
    targets: Any = np.array([2, 1, 2])
    queries: Any = Queries(items, items, (items > 0).sum(1), items[:, :0])
    expected = [0.0, 0.0, 0.0]
    for short in (False, True):
        asked = replace(model, config=replace(model.config, room=4 if short else None))
        sums, counts = jax.jit(asked.text_likelihood)(params, queries, targets, CATALOG)
        assert counts.tolist() == [2, 1, 2]
        for row, (history, target) in enumerate(zip(items.tolist(), targets.tolist(), strict=True)):
            own = spelled((target,))
            text = [*spelled(tuple(history)), *own][-4 if short else None :]
            logits = np.asarray(model.decoder.apply({"params": params}, padded([text])))[0].astype(np.float64)
            nats = log_softmax(logits[:-1], axis=-1)[range(len(text) - 1), text[1:]]
            expected[row] = nats[len(nats) - len(own) + 1 :].sum()
        np.testing.assert_allclose(sums, expected, rtol=1e-5)


def run(data: Path, model: Any, **changes: Any) -> RunConfig:
    words = {"tokens": Tokens(count=6, vocabulary=260, end="\n")}
    return RunConfig(
        name="text_lm",
        data=Data("planted", view=Shifted(8), rows=8),
        items=changes.pop("items", words),
        model=model,
        optim=Adam(learning_rate=0.01),
        mesh=MeshShape(),
        train=Train(steps=2, evaluate_every=0, **changes),
        evaluate=Evaluate(),
    )


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("RECJAX_DATA", str(tiny_datasets(tmp_path / "data", ["planted"])))
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path / "cache"))
    on_one_device(monkeypatch)
    return tmp_path


def test_a_stage_leaves_a_language_model_that_the_run_begins_with(data: Path):
    language = run(data, TextLM(BASE))
    stage = Stage("language", {"model": language.model, "items": language.items})
    blocks = SLMRec(BASE, weights=f"stage:language/{FOLDER}", parts=1, vectors="behaviour")
    config = run(data, blocks, items={"behaviour": Behaviour(6)}, stages=(stage,), take=())
    fit(config, data / "run")
    left = read_language_model(data / "run" / "stages" / "language" / FOLDER)
    made = load_run(data / "run" / "stages" / "language")
    jax.tree.map(np.testing.assert_array_equal, left.params, jax.device_get(made.params))
    assert left.stop == (0,) and left.decoder.config == replace(BASE, vocabulary=260)
    begun = load_run(data / "run").params["teacher"][FROZEN]
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(begun["layer_0"]), left.params["layer_0"])


def test_adapters_go_on_from_a_folder_and_are_added_to_what_is_left(data: Path):
    twin = read_language_model(TWIN)
    base = replace(twin.decoder.config, positions=64)
    model = TextLM(base, weights=str(TWIN), trained="adapters", lora=LoRA(2, 2.0, ("query", "down")))
    fit(run(data, model, items={"tokens": Tokens(count=6, folder=str(TWIN))}), data / "run")
    params = jax.device_get(load_run(data / "run").params)
    jax.tree.map(np.testing.assert_array_equal, params[FROZEN], twin.params)
    adapters: Any = flatten_dict(params[ADAPTERS])
    moved = {path[-2] for path, leaf in adapters.items() if path[-1] == "lora_b" and leaf.any()}
    assert moved == {"query", "down"}
    left = read_language_model(data / "run" / FOLDER)
    found: Any = flatten_dict(left.params)
    before: Any = flatten_dict(twin.params)
    changed = {path[-2] for path in found if not np.array_equal(found[path], before[path])}
    assert changed == moved
    check_perplexity(load_run(data / "run"))
    with pytest.raises(InputError, match="the sizes of"):
        replace(model, base=replace(base, inner=8)).given()


def check_perplexity(run: Run) -> None:
    """The report of a run against its model's likelihoods of the same texts; a history is worth what it adds."""
    assert run.events is not None
    view, held_out = run.config.data.view, sampled(run.events.test, 20)
    with jax.set_mesh(run.mesh):
        known = EvaluationData(run.dataset, run.events, view, run.items)
        report = Perplexity(users=20, bootstrap=20).evaluate(run.model, run.params, known)
        items: Any = np.asarray(view.queries(held_out.histories, 8, run.model.n_items).items)
        some: Any = Queries(items, items, (items > 0).sum(1), items[:, :0])
        for values, queries in (("likelihood", some), ("likelihood: alone", replace(some, items=items * 0))):
            sums, counts = jax.jit(run.model.text_likelihood)(run.params, queries, held_out.targets, run.items)
            assert report.users is not None
            np.testing.assert_allclose(report.users[values].to_numpy(), sums / counts, rtol=1e-4)
    figures = report.metrics["all"]
    assert figures["perplexity"] == pytest.approx(np.exp(-figures["likelihood"]))
    assert report.metrics["alone"] != figures and "nats a token" in next(reversed(report.notes))


def test_what_cannot_be():
    with pytest.raises(InputError, match="trained"):
        TextLM(trained="adapters")
    with pytest.raises(InputError, match="no column 'words' of them"):
        TextLM(column="words").build(STATS)
    with pytest.raises(InputError, match="vocabulary 0, or 12 at least"):
        TextLM(replace(BASE, vocabulary=11)).build(STATS)
