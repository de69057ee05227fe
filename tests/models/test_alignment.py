"""A sentence encoder trained on pairs of items: its batches, its loss against a plain one, its folder."""

import dataclasses
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from recjax.cli import main
from recjax.config import RunConfig
from recjax.data.batches.loader import Data
from recjax.data.batches.mixture import Mixture
from recjax.data.batches.pairs import PairBatch, PairLoader
from recjax.data.batches.views import Shifted
from recjax.data.embedded.synthetic import synthetic
from recjax.data.items import bare_items
from recjax.data.splits import Histories
from recjax.evaluate.protocol import Evaluate
from recjax.models.alignment import Alignment
from recjax.models.model import ItemStats
from recjax.models.rpg import RPG
from recjax.text.encoder import SentenceEncoder
from recjax.text.folder import read_folder
from recjax.text.rows import TokenRows
from recjax.tokenizers.pq import PQ
from recjax.train import encoder_task
from recjax.train.alignment import align
from recjax.train.loop import Train, fit
from recjax.train.optimiser import Adam
from recjax.train.run import load_run
from recjax.train.stages import Stage
from recjax.typing import InputError
from tests.text.titles import TITLES
from tests.train import toy
from tests.train.toy import OneDevice

TWINS = Path(__file__).parents[1] / "text" / "twins"


def histories(*items: list[int]) -> Histories:
    lengths, flat = np.array([*map(len, items)]), np.concatenate(items).astype(np.int32)
    return Histories.concatenated(lengths, flat, np.zeros(len(flat), np.int64), np.arange(len(items)))


def texts(*lengths: int) -> list[np.ndarray]:
    return [np.full(length, 7, np.int32) for length in lengths]


def test_pairs_are_all_those_within_the_window_and_no_others():
    user = [1, 2, 3, 4, 5, 6]
    loader = PairLoader(histories(user, [6], [4, 2]), texts(3, 1, 2, 3, 1, 2), 4, rows=8, window=3)
    drawn = Counter(map(tuple, loader.pairs(np.arange(6000)).tolist()))
    expected = {(a, b) for a in user for b in user if 1 <= b - a <= 3} | {(4, 2)}
    assert set(drawn) == expected
    assert drawn[4, 2] == 3000  # every user with two events once an epoch
    # The later event is drawn first, then how far back the other one is.
    later = Counter(later for (_, later), count in drawn.items() for _ in range(count) if later != 2)
    assert all(abs(later[event] - 600) < 120 for event in (3, 4, 5, 6))
    assert loader.steps(1) == 1 and loader.steps(8) == 2


def test_batches_are_a_function_of_the_step():
    loader = PairLoader(histories([1, 2, 3], [3, 1], [2, 3]), texts(3, 0, 2), 4, rows=2, window=2, seed=5)
    one, again, other = (jax.device_get(loader.batch(step)) for step in (4, 4, 5))
    jax.tree.map(np.testing.assert_array_equal, one, again)
    assert (one.items != other.items).any()
    np.testing.assert_array_equal(one.lengths, np.array([0, 3, 0, 2])[one.items])
    np.testing.assert_array_equal(one.tokens[..., 0] == 7, one.lengths > 0)
    with pytest.raises(InputError, match="each other's negatives"):
        PairLoader(histories([1, 2]), texts(1, 1), 4, rows=1, window=2)
    with pytest.raises(InputError, match="two events or more"):
        PairLoader(histories([1], [2]), texts(1, 1), 4, rows=2, window=2)


@pytest.mark.parametrize("family", ["bert", "mpnet"])
def test_loss_against_a_plain_one(family):
    config = Alignment(str(TWINS / family), layers=1, temperature=0.3)
    model = config.build(ItemStats(6, np.zeros(7)))
    # Items 1 and 2 stand in several pairs, item 4 has no text, and the last pair is one item twice.
    items = np.array([[1, 2], [3, 1], [2, 5], [4, 6], [6, 6]], np.int32)
    rng = np.random.default_rng(0)
    lengths = np.array([0, 4, 4, 6, 0, 4, 6], np.int32)
    tokens = np.where(np.arange(6) < lengths[:, None], rng.integers(5, 60, (7, 6)), 0).astype(np.int32)
    batch = PairBatch(items, tokens[items], lengths[items])
    loss, grads = jax.jit(jax.value_and_grad(lambda params: model.loss(params, batch, bare_items(6), None)[0]))(
        model.encoder.params
    )

    module = model.encoder.module
    encode = jax.jit(lambda params, texts: module.apply({"params": params}, TokenRows(texts, jnp.ones_like(texts))))
    vectors = np.zeros((7, module.sizes.width))
    for length in np.unique(lengths[lengths > 0]):
        alike = np.flatnonzero(lengths == length)
        hidden = np.asarray(encode(model.encoder.params, tokens[alike, :length]), np.float64)
        found = hidden[:, 0] if model.encoder.pooling == "cls" else hidden.mean(axis=1)
        vectors[alike] = found / np.linalg.norm(found, axis=1, keepdims=True)
    losses = []
    for first, second in items[:3]:
        for anchor, partner, column in ((first, second, 1), (second, first, 0)):
            others = [row[column] for row in items if 4 not in row and row[column] not in (anchor, partner)]
            scores = np.exp([vectors[anchor] @ vectors[other] / 0.3 for other in [partner, *others]])
            losses.append(-np.log(scores[0] / scores.sum()))
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-4)

    moved = {name for name, tree in grads.items() if max(np.abs(leaf).max() for leaf in jax.tree.leaves(tree)) > 0}
    assert moved == {f"layer_{module.sizes.layers - 1}"}


@pytest.fixture(scope="module")
def catalogs(tmp_path_factory) -> Iterator[None]:
    """Three small catalogs whose users go from titles to others of the same words."""
    root = tmp_path_factory.mktemp("catalogs")
    for name in ("synthetic-a", "synthetic-b", "synthetic-c"):
        raw = synthetic(name, users=80, items=96)
        folder = root / f"tiny-{name[-1]}"
        folder.mkdir()
        raw.interactions.write_csv(folder / "interactions.csv")
        raw.catalog.write_csv(folder / "items.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECJAX_DATA", str(root))
        patch.setenv("RECJAX_CACHE", str(root / "cache"))
        yield


def config(**train) -> RunConfig:
    return RunConfig(
        name="tiny",
        data=Mixture(("tiny-a", "tiny-b"), held_out="tiny-c", rows=16),
        model=Alignment(str(TWINS / "bert"), layers=1, max_tokens=12),
        optim=Adam(1e-3),
        mesh=OneDevice(),
        train=Train(**{"steps": 6, "evaluate_every": 3, "validation_users": 32, **train}),
        evaluate=Evaluate(),
    )


def test_an_encoder_is_trained_chosen_and_written(tmp_path, catalogs):
    told = []
    found = align(config(), tmp_path / "run", tell=told.append)
    assert found.out == tmp_path / "run" / "encoder" and [found.before] == told
    assert found.result.best_step in (3, 6)
    source, written = read_folder(TWINS / "bert"), read_folder(found.out)
    assert (written.pooling, written.normalise, written.max_tokens) == (
        source.pooling,
        source.normalise,
        source.max_tokens,
    )
    last = f"layer_{source.module.sizes.layers - 1}"
    for name, tree in written.params.items():
        same = jax.tree.map(lambda a, b: bool((np.asarray(a) == b).all()), tree, source.params[name])
        assert all(jax.tree.leaves(same)) == (name != last)
    assert set(load_file(found.out / "model.safetensors")) == set(source.module.tensor_names().values())
    again = align(config(), tmp_path / "run", tmp_path / "again", tell=told.append)
    assert again.before is None and len(told) == 1  # it was over, so there is nothing to tell
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (found.out / "model.safetensors").read_bytes()
    before, after = (SentenceEncoder(str(path)).encode(TITLES[:8]) for path in (TWINS / "bert", found.out))
    assert np.abs(before - after).max() > 1e-4
    with pytest.raises(InputError, match="ranks nothing by itself"):
        load_run(tmp_path / "run", recipe=toy)
    # The folder has what the best checkpoint's validation was of.
    with jax.set_mesh(config().mesh.build()):
        check = encoder_task._validation(config(), config().model, config().data)
        assert check(written.params)["ndcg@10"] == pytest.approx(found.result.best_value, abs=1e-6)
        assert check(source.params) == found.before


def test_a_stopped_run_can_write_its_encoder(tmp_path, catalogs, monkeypatch, capsys):
    recipe, run = tmp_path / "tiny.py", tmp_path / "run"
    recipe.write_text("from tests.models.test_alignment import config\n")
    words = ["align", str(recipe), "--run", str(run)]
    assert main([*words, "--no-train"]) == 2
    assert "is not a run folder" in capsys.readouterr().err
    looks = []

    def validate(params):
        if looks:  # while training
            signal.raise_signal(signal.SIGTERM)
        looks.append(params)
        return dict.fromkeys(Evaluate.metrics, 0.1 * len(looks))

    monkeypatch.setattr(encoder_task, "_validation", lambda *_: validate)
    assert main(words) == 0
    assert "--no-train writes that of the best step" in capsys.readouterr().out
    assert len(looks) == 2 and not (run / "encoder").exists()
    assert main([*words, "--no-train"]) == 0
    written = read_folder(run / "encoder").params
    jax.tree.map(np.testing.assert_array_equal, written, jax.tree.map(np.asarray, looks[1]))


def test_what_cannot_be_aligned(tmp_path, catalogs):
    whole = config()
    with pytest.raises(InputError, match="expected a Mixture"):
        align(dataclasses.replace(whole, data=whole.data.on("tiny-a")), tmp_path / "run")
    with pytest.raises(InputError, match="expected a sentence encoder"):
        align(dataclasses.replace(whole, model=Evaluate()), tmp_path / "run")
    with pytest.raises(InputError, match="would be lost"):
        align(whole, tmp_path / "run", TWINS / "bert")
    with pytest.raises(InputError, match=r"Alignment\.layers is 0"):
        Alignment("bert", layers=0)
    with pytest.raises(InputError, match=r"Alignment\.temperature is 0"):
        Alignment("bert", temperature=0.0)
    with pytest.raises(InputError, match="`recjax align` trains it"):
        fit(whole, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_an_encoder_is_a_stage_of_the_run_that_reads_texts_by_it(tmp_path, catalogs):
    first = config(steps=2, evaluate_every=0)
    changes = {"model": first.model, "data": first.data, "text": None}
    run = dataclasses.replace(
        first,
        data=Data("tiny-c", Shifted(max_length=6), rows=16),
        model=RPG(width=8, layers=1, heads=2, max_length=6, codes=12),
        text=SentenceEncoder("stage:align/encoder", max_tokens=12),
        tokenizer=PQ(slots=2, clusters=12, iterations=2, rotations=1),
        train=dataclasses.replace(first.train, stages=(Stage("align", changes),), take=()),
    )
    assert fit(run, tmp_path / "run").step == 2
    made = tmp_path / "run" / "stages" / "align" / "encoder"
    assert (made / "model.safetensors").is_file()
    (tmp_path / "run").rename(tmp_path / "moved")
    loaded = load_run(tmp_path / "moved", recipe=toy)
    assert loaded.config.text.folder == str(tmp_path / "moved" / "stages" / "align" / "encoder")
