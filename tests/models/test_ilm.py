"""ILM: what queries and titles see of each other, losses against plain loops, a language model that stays as it is."""

from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from recjax import recipes
from recjax.config import override_all
from recjax.data.batches.views import Batch, Queries
from recjax.data.items import bare_items
from recjax.models.ilm import ILM, TRANSLATOR
from recjax.models.ilm_alignment import ILMAlignment, held_out
from recjax.models.model import ItemStats
from recjax.models.parts import qformer as parts
from recjax.models.parts.qformer import QFormer, QFormerConfig, read
from recjax.models.slmrec import SMALL
from recjax.nn.groups import FROZEN
from recjax.settings import change
from recjax.text.lm.folder import read_language_model
from recjax.train.loop import fit
from recjax.train.run import load_run
from recjax.typing import InputError
from tests.drawn import drawn_for
from tests.tiny import on_one_device, tiny_datasets

TWIN = Path(__file__).parents[1] / "text" / "lm" / "twins" / "smollm2"
SIZES = QFormerConfig(queries=3, memory=2, width=8, layers=2, heads=2, inner=16, dropout=0.0)
MODULE = QFormer(SIZES, vocabulary=10)
VECTORS = np.random.default_rng(0).normal(size=(2, 5)).astype(np.float32)
WORDS = np.array([[3, 4, 5, 6], [7, 8, 0, 0]], np.int32)


@cache
def params():
    made = jax.jit(lambda key: MODULE.init(key, VECTORS, WORDS, "matching")["params"])(jax.random.key(0))
    random = np.random.default_rng(2)
    return jax.tree.map(lambda leaf: leaf + 0.3 * random.normal(size=leaf.shape).astype(np.float32), made)


@cache
def outputs(what):
    run = jax.jit(lambda params, vectors, words: MODULE.apply({"params": params}, vectors, words, what))
    return partial(run, params())


def changed(what, vectors=VECTORS, words=WORDS):
    """Flags of outputs of queries, and of tokens of titles, that are other than before: bool [2, 3] and [2, 5]."""
    before, after = outputs(what)(VECTORS, WORDS), outputs(what)(vectors, words)
    return [np.abs(np.asarray(a) - np.asarray(b)).max(axis=-1) > 1e-4 for a, b in zip(before, after, strict=True)]


@pytest.mark.parametrize("what", ["contrast", "matching", "generation"])
def test_what_queries_and_titles_see_of_each_other(what):
    queries, text = changed(what, vectors=VECTORS + np.array([[1.0], [0.0]], np.float32))
    assert queries[0].all() and not queries[1].any() and not text[1].any()
    assert text[0].all() == text[0].any() == (what != "contrast")
    words = WORDS.copy()
    words[0, 2] = 9  # behind its two predecessors and the token before the title
    queries, text = changed(what, words=words)
    assert queries[0].all() == queries.any() == (what == "matching") and not text[1].any()
    assert text[0].tolist() == ([False] * 3 + [True] * 2 if what == "generation" else [True] * 5)
    longer = np.where(WORDS == 0, 9, WORDS)  # words where there were none
    assert changed(what, words=longer)[1][1].all() == (what != "generation")


def test_queries_come_out_in_the_order_in_which_they_are_learned():
    order = np.array([2, 0, 1])
    moved = {**params(), "queries": params()["queries"][order]}
    before, after = (read(MODULE, each, jnp.asarray(VECTORS)) for each in (params(), moved))
    np.testing.assert_allclose(after, before[:, order], rtol=1e-4, atol=1e-5)
    assert np.abs(before[:, order] - before).max() > 1e-2
    np.testing.assert_allclose(outputs("contrast")(VECTORS, WORDS)[0], before, rtol=1e-5, atol=1e-5)


def test_losses_are_those_of_plain_loops():
    random = np.random.default_rng(1)
    queries, texts = random.normal(size=(4, 3, 5)), random.normal(size=(4, 5))
    similar = parts.best_query(queries, texts)  # pyright: ignore[reportArgumentType]
    plain = np.array([[max(query @ text for query in item) for text in texts] for item in queries])
    np.testing.assert_allclose(similar, plain, rtol=1e-5)
    negative = ~np.eye(4, dtype=bool)
    negative[0, 3] = negative[3, 0] = False  # of the same title
    expected = np.zeros(4)
    for i in range(4):
        for scores, wrong in ((plain[i], negative[i]), (plain[:, i], negative[:, i])):
            everyone = np.exp(scores[i]) + sum(np.exp(scores[j]) for j in range(4) if wrong[j])
            expected[i] -= np.log(np.exp(scores[i]) / everyone) / 2
    np.testing.assert_allclose(parts.item_text_contrast(similar, negative), expected, rtol=1e-5)  # pyright: ignore[reportArgumentType]

    logits = random.normal(size=(3, 4))
    right = 1 / (1 + np.exp(-logits))
    expected = -(np.log(right[0]) + np.log(1 - right[1]) + np.log(1 - right[2])) / 3
    np.testing.assert_allclose(parts.item_text_matching(jnp.asarray(logits)), expected, rtol=1e-5)

    logits, words = random.normal(size=(2, 3, 6)), np.array([[2, 5, 0], [0, 0, 0]])
    expected = [np.mean([np.log(np.exp(logits[0, t]).sum()) - logits[0, t, words[0, t]] for t in range(2)]), 0.0]
    np.testing.assert_allclose(parts.text_generation(jnp.asarray(logits), jnp.asarray(words)), expected, rtol=1e-5)


def test_wrong_titles_are_drawn_by_how_similar_they_are():
    similar = jnp.tile(jnp.log(jnp.array([[5.0, 3.0, 1.0, 7.0]])), (4000, 1))
    drawn = parts.hard_negatives(jax.random.key(0), similar, jnp.tile(jnp.array([False, True, True, False]), (4000, 1)))
    shares = np.bincount(np.asarray(drawn), minlength=4) / 4000
    assert shares[[0, 3]].sum() == 0 and abs(shares[1] - 0.75) < 0.03


ITEMS, KINDS = 216, 6


def planted():
    """Items of three attributes: a title is their words, a vector the sum of a code for each."""
    random = np.random.default_rng(3)
    values = np.stack(np.unravel_index(np.arange(ITEMS), (KINDS,) * 3), axis=1)
    codes = random.normal(size=(3, KINDS, 12))
    vectors = np.sum([codes[which][values[:, which]] for which in range(3)], axis=0)
    words = 2 + KINDS * np.arange(3) + values
    columns = {"behaviour": vectors.astype(np.float32), "words": words.astype(np.int32)}
    columns = {name: jnp.asarray(np.pad(column, [(1, 7), (0, 0)])) for name, column in columns.items()}
    sizes = {"words": (2 + 3 * KINDS,) * 3}
    stats = ItemStats(ITEMS, np.ones(ITEMS + 1), {"behaviour": (12,), "words": (3,)}, sizes=sizes)
    return stats, bare_items(ITEMS, columns)


def test_titles_that_were_never_read_are_found_by_the_items_behaviour():
    """Each attribute was read with others. Without cross-attention, or with vectors of other items, this is chance."""
    stats, items = planted()
    sizes = QFormerConfig(queries=2, memory=2, width=32, layers=1, heads=2, inner=32, dropout=0.0)
    model, optimiser, steps = ILMAlignment(sizes, texts=48, held=0.15).build(stats), optax.adam(0.01), 120
    rows = np.random.default_rng(4).integers(1, ITEMS + 1, (steps, 8, 1)).astype(np.int32)
    ones = np.ones_like(rows)
    batches = Batch(rows, ones, 0 * ones, rows % ITEMS + 1, ones.astype(np.float32))  # pyright: ignore[reportArgumentType]
    first = jax.tree.map(lambda leaf: leaf[0], batches)

    @jax.jit
    def trained(params, items):
        def step(carried, given):
            params, state = carried
            batch, key = given
            gradient, sums = jax.grad(lambda p: model.loss(p, batch, items, key), has_aux=True)(params)
            updates, state = optimiser.update(gradient, state)
            return (optax.apply_updates(params, updates), state), (sums, model.drawn(items, key)[0])

        keys = jax.random.split(jax.random.key(1), steps)
        (params, _), (sums, drawn) = jax.lax.scan(step, (params, optimiser.init(params)), (batches, keys))
        return params, sums, drawn

    params, sums, drawn = trained(drawn_for(model.init, jax.random.key(0), first, items), items)
    held = np.flatnonzero(held_out(jnp.arange(1, ITEMS + 1), 0.15)) + 1
    assert 25 < len(held) < 40 and not np.isin(drawn, held).any() and np.isin(drawn, np.arange(1, ITEMS + 1)).all()
    similar = np.asarray(jax.jit(model.similarities)(params, model.inputs(items, jnp.asarray(held))))
    assert (similar.argmax(axis=1) == np.arange(len(held))).mean() > 0.6  # chance 0.03
    for name in ("contrast", "generation", "items"):
        means = np.asarray(sums[name][0] / sums[name][1])
        assert means[-10:].mean() < 0.8 * means[:10].mean(), name


def test_wrong_pairs_are_of_the_most_similar_title_and_of_the_most_similar_item():
    """Of two items there is one wrong title for each, and one wrong item; a third has the first one's title."""
    stats, items = planted()
    vectors, words = (jnp.zeros_like(items[name]).at[1:4].set(items[name][1:4]) for name in ("behaviour", "words"))
    model = ILMAlignment(SIZES, texts=4, held=0.0).build(stats)
    one = np.ones((2, 1), np.int32)
    batch = Batch(one, one, 0 * one, 1 + one, one.astype(np.float32))  # pyright: ignore[reportArgumentType]
    params = drawn_for(model.init, jax.random.key(0), batch, items)
    names, run = ("contrast", "matching"), jax.jit(lambda params, items: model.loss(params, batch, items, None)[1])
    sums = run(params, replace(items, columns={"behaviour": vectors, "words": words.at[3].set(0)}))
    found = [float(sums[name][0]) for name in names]
    rows = np.array([1, 2, 1, 2, 2, 1]), np.array([1, 2, 2, 1, 1, 2])
    matches, similarities = jax.jit(model.matches), jax.jit(model.similarities)
    logits = np.asarray(matches(params, (vectors[rows[0]], words[rows[1]], None)), np.float64)
    matching = (np.log1p(np.exp(-logits[:2])).sum() + np.log1p(np.exp(logits[2:])).sum()) / 3
    similar = np.asarray(similarities(params, (vectors[1:3], words[1:3], None)), np.float64) / 0.07
    odds = [similar[i, 1 - i] - similar[i, i] for i in (0, 1)] + [similar[1 - i, i] - similar[i, i] for i in (0, 1)]
    np.testing.assert_allclose(found, [np.log1p(np.exp(odds)).sum() / 2, matching], rtol=1e-4)
    assert float(sums["matching"][1]) == 2
    alike = run(params, replace(items, columns={"behaviour": vectors, "words": words.at[3].set(words[1])}))
    everything = np.asarray(similarities(params, (vectors[1:4], words[np.array([1, 2, 1])], None)), np.float64) / 0.07
    negative = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], bool)
    expected = parts.item_text_contrast(jnp.asarray(everything), jnp.asarray(negative))
    np.testing.assert_allclose(alike["contrast"][0], np.sum(expected), rtol=1e-4)


def test_a_language_model_stays_as_its_folder_has_it(tmp_path, monkeypatch):
    """And the run begins with the queries of its stage, which stay too where they are frozen."""
    on_one_device(monkeypatch)
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path / "cache"))
    folder = tiny_datasets(tmp_path / "data", ["shop"]) / "shop"
    whole = read_language_model(TWIN)
    base = replace(whole.decoder.config, vocabulary=0, layers=1)
    tiny = recipes.tiny(recipes.read("ilm_grocery")).config
    own = {"model.base": base, "model.weights": str(TWIN), "model.room": 64, "train.freeze": ("^qformer/",)}
    config = override_all(change(tiny, own), [f"data.dataset={folder}", "train.evaluate_every=0"])
    fit(config, tmp_path / "run")
    run, stage = load_run(tmp_path / "run"), load_run(tmp_path / "run" / "stages" / "alignment")
    held = run.params["language"][FROZEN]
    jax.tree.map(np.testing.assert_array_equal, held["blocks"]["layer_0"], whole.params["layer_0"])
    (tokens,) = whole.tokenise([run.config.model.question])
    question = np.asarray(held["prompt"])
    np.testing.assert_array_equal(question[-len(tokens) :], whole.params["tokens"][tokens])
    assert not question[: -len(tokens)].any() and f"{TWIN}, frozen" in run.model.notes["backbone"]
    ours, theirs = (flatten_dict(each.params["qformer"], sep="/") for each in (run, stage))
    assert {name for name in theirs if "text_" in name} == theirs.keys() - ours.keys() and len(ours) > 20
    for name, leaf in ours.items():
        np.testing.assert_array_equal(leaf, theirs[name])
    with pytest.raises(InputError, match="room"):
        replace(config.model, room=62).given()


CATALOG = bare_items(
    9, {"behaviour": jnp.asarray(np.pad(np.random.default_rng(5).normal(size=(9, 5)), [(1, 6), (0, 0)]), jnp.float32)}
)
STATS = ItemStats(9, np.ones(10), {"behaviour": (5,)})
BASE = replace(SMALL, width=8, layers=1, channels=4, inner=16)


@pytest.mark.parametrize("translator", ["qformer", "mlp"])
def test_an_answer_is_a_function_of_the_events_before_it_in_their_order(translator):
    model = ILM(SIZES, translator=translator, base=BASE, room=3).build(STATS)
    rows = np.array([[1, 2, 3, 4], [2, 1, 3, 4], [1, 2, 5, 4], [1, 2, 3, 0]], np.int32)
    asked = Queries(rows, 0 * rows, np.array([3, 3, 3, 3], np.int32), rows[:, :0])  # pyright: ignore[reportArgumentType]
    batch = Batch(rows, np.ones_like(rows), 0 * rows, rows, rows.astype(np.float32))  # pyright: ignore[reportArgumentType]
    found = jax.jit(lambda p: model.scoring(p, asked, CATALOG).scores(jnp.tile(jnp.arange(1, 10), (4, 1))))
    params = drawn_for(model.init, jax.random.key(0), batch, CATALOG)
    assert translator in params and "text_inputs" not in str(jax.tree.structure(params))
    scores = np.asarray(found(params))
    np.testing.assert_allclose(scores[0], scores[3], rtol=1e-5, atol=1e-6)
    assert min(np.abs(scores[0] - scores[other]).max() for other in (1, 2)) > 1e-4


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="divides"):
        QFormerConfig(width=10, heads=4)
    with pytest.raises(InputError, match="vocabulary 0"):
        ILM(base=replace(SMALL, vocabulary=5))
    with pytest.raises(InputError, match="Behaviour"):
        ILM().build(replace(STATS, columns={}))
    with pytest.raises(InputError, match=r"Words\(\)"):
        ILMAlignment().build(STATS)
    assert TRANSLATOR == (r"^qformer/(?!.*\btext_)",)
