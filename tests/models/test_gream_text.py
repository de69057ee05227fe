"""GREAM over a language model: its texts token by token, its two ways to rank, what alignment and chains teach."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax import recipes
from recjax.config import override_all
from recjax.data.batches.views import Batch, Queries
from recjax.data.items import CODES, bare_items
from recjax.decode.sampling import log_probabilities
from recjax.models.gream_text import GREAMText, GREAMTextTuned
from recjax.models.model import ItemStats
from recjax.models.parts.tuned import REFERENCE
from recjax.models.slmrec import SMALL
from recjax.nn.groups import FROZEN, path_name, split_frozen
from recjax.nn.lora import ADAPTERS
from recjax.settings import change
from recjax.text.lm.decoder import Decoder
from recjax.text.lm.folder import read_language_model
from recjax.text.rows import TokenRows
from recjax.train.loop import fit
from recjax.train.run import load_run
from recjax.typing import InputError
from tests.descent import descent
from tests.drawn import drawn_for
from tests.tiny import on_one_device, tiny_datasets

TWIN = Path(__file__).parents[1] / "text" / "lm" / "twins" / "smollm2"
ITEMS, SIZES, WORDS = 16, (4, 4), 10
TUPLES = np.stack(np.divmod(np.arange(-1, ITEMS) % ITEMS, 4), axis=1).astype(np.int32)
TITLES = np.concatenate([np.add(TUPLES, [1, 5]), np.zeros((ITEMS + 1, 1), int)], axis=1).astype(
    np.int32
)  # words 0-3 and 4-7
KINDS = np.concatenate([9 + TUPLES[:, 1:] % 2, np.zeros((ITEMS + 1, 1), int)], axis=1).astype(np.int32)  # words 8 and 9
TITLES[0] = KINDS[0] = 0
COLUMNS = {CODES: TUPLES, "titles": TITLES, "kinds": KINDS}
CATALOG = bare_items(ITEMS, {name: jnp.asarray(column) for name, column in COLUMNS.items()})
STATS = ItemStats(
    ITEMS,
    np.ones(ITEMS + 1),
    {CODES: (2,), "titles": (3,), "kinds": (2,)},
    SIZES,
    {"titles": (WORDS + 1,) * 3, "kinds": (WORDS + 1,) * 2},
)
CONFIG = GREAMText(replace(SMALL, width=16, layers=1, channels=8, inner=32), codes=5, memory=2, scale=2.0, beam=None)
MODEL = CONFIG.build(STATS)
REASONING = replace(CONFIG, mode="reasoning").build(STATS)
START, THINK, WANT, NAME, END, WORD = 0, 11, 12, 13, 14, 15
"""Tokens: a start, two slots with room for five codes, four marks, and the words."""


def batch_of(rows: Any, targets: Any) -> Batch:
    rows, targets = np.array(rows, np.int32), np.array(targets, np.int32)
    there = (rows > 0).astype(np.int32)
    return Batch(rows, there, there.cumsum(1) - there, targets, (targets > 0).astype(np.float32))  # pyright: ignore[reportArgumentType]


BATCH = batch_of([[1, 7, 3, 0], [12, 5, 0, 0]], [[7, 3, 10, 0], [5, 16, 0, 0]])
QUERIES = Queries(BATCH.items, BATCH.positions, np.array([3, 2], np.int32), BATCH.items[:, :0])  # pyright: ignore[reportArgumentType]
"""The same histories without a target."""


@cache
def params() -> Any:
    fresh = drawn_for(MODEL.init, jax.random.key(0), BATCH, CATALOG)
    return jax.tree.map(lambda leaf: 5 * leaf, fresh)  # so that logits differ


@cache
def states_of() -> Any:
    """Compiled: the decoder over one text of at most 40 tokens, without a cache."""

    @jax.jit
    def states(params: Any, tokens: Any) -> Any:
        language, own = params["language"], params["own"]
        every = jnp.concatenate([2.0 * own, language["tokens"][:WORDS]])  # read twice as large as written
        rows = TokenRows(tokens, jnp.ones_like(tokens))
        found = MODEL.network.decoder.apply({"params": language}, every[tokens], rows, method=Decoder.states)
        return found[0], jnp.concatenate([own, every[len(own) :]])  # pyright: ignore[reportIndexIssue]

    return states


def probabilities(text: list[int], choices: list[int]) -> np.ndarray:
    """Logarithms, of the tokens that may follow a text."""
    padded = np.zeros((1, 40), np.int32)
    padded[0, : len(text)] = text
    states, every = map(np.asarray, states_of()(params(), padded))
    logits = every[choices].astype(np.float64) @ states[len(text) - 1]
    return logits - np.log(np.exp(logits).sum())


def item(number: int) -> list[int]:
    return [START, 1 + int(TUPLES[number, 0]), 6 + int(TUPLES[number, 1])]


def words(entries: np.ndarray) -> list[int]:
    return [WORD + int(entry) - 1 for entry in entries if entry]


def evidence(history: list[int]) -> list[int]:
    return [THINK, *(token for number in history[:-3:-1] for token in [*words(KINDS[number]), END]), WANT]


def nats_of_item(text: list[int], number: int) -> list[float]:
    """Of the codes of an item after a text."""
    _, one, two = item(number)
    slots = [list(range(1, 5)), list(range(6, 10))]
    given = [[*text, START], [*text, START, one]]
    return [-probabilities(given[slot], slots[slot])[(one - 1, two - 6)[slot]] for slot in range(2)]


def nats_of_text(text: list[int], entries: np.ndarray) -> list[float]:
    """Of the words and the end of an item's text after another."""
    every, found = [*range(WORD, WORD + WORDS), END], []
    for token in [*words(entries), END]:
        found.append(-probabilities(text, every)[every.index(token)])
        text = [*text, token]
    return found


def test_the_loss_is_that_of_its_texts_written_out():
    history, target = [1, 7, 3], 10
    alone = jax.tree.map(lambda x: np.where(np.arange(2).reshape(2, *[1] * (x.ndim - 1)) == 0, x, 0 * x), BATCH)
    compiled = jax.jit(lambda params, batch, catalog: MODEL.loss(params, batch, catalog, None))
    loss, sums = compiled(params(), alone, CATALOG)
    past = [token for number in history for token in item(number)]
    direct = [nats_of_item(past[: 3 * number], each) for number, each in enumerate([*history, target]) if number]
    chain = past + evidence(history)
    thought = [*chain, *words(KINDS[target]), END]
    drawn = np.asarray(jax.random.randint(jax.random.key(0), (2,), 1, ITEMS + 1))
    expected = {
        "direct": np.mean(direct),
        "wanted": np.mean(nats_of_text(chain, KINDS[target])),
        "answer": np.mean(nats_of_item(thought, target)),
        "find": np.mean([nats_of_item([*words(TITLES[each]), END], each) for each in drawn]),
        "name": np.mean([nats_of_text([*item(each), NAME], TITLES[each]) for each in drawn]),
    }
    for name, mean in expected.items():
        np.testing.assert_allclose(sums[name][0] / sums[name][1], mean, rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(loss, sum(expected.values()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model", [MODEL, REASONING], ids=["direct", "reasoning"])
def test_step_by_step_with_a_cache_is_each_item_read_as_a_whole(model):
    every = np.tile(np.arange(1, ITEMS + 1), (2, 1))
    searched = replace(model, config=replace(model.config, beam=ITEMS))

    @jax.jit
    def ranked(params: Any, items: Any) -> Any:
        lists = searched.scoring(params, QUERIES, items).topk(QUERIES.seen, ITEMS)
        return model.scoring(params, QUERIES, items).scores(every), lists

    found, (listed, values) = jax.tree.map(np.asarray, ranked(params(), CATALOG))
    assert (np.sort(listed) == every).all()
    np.testing.assert_allclose(values, np.take_along_axis(found, listed - 1, axis=1), rtol=1e-4, atol=1e-4)
    for row, history in enumerate([[1, 7, 3], [12, 5]]):
        text = [token for number in history for token in item(number)]
        if model is REASONING:
            text += evidence(history)
            every_word = [*range(WORD, WORD + WORDS), END]
            for _ in range(2):  # a kind has two words at most
                if text[-1] != END:
                    text.append(every_word[int(np.argmax(probabilities(text, every_word)))])
            text += [END] * (text[-1] != END)
        expected = [-sum(nats_of_item(text, number)) for number in (1, 6, 11, 16)]
        np.testing.assert_allclose(found[row, [0, 5, 10, 15]], expected, rtol=1e-4, atol=1e-4)


def test_evidence_is_of_the_history_and_says_nothing_of_the_target():
    """By rule: the kinds of the last two items, newest first. A query, which has no target, reads the same."""
    other = replace(BATCH, targets=np.where(BATCH.targets > 0, BATCH.targets % ITEMS + 1, 0))
    parts = [MODEL.evidence(source, CATALOG) for source in (BATCH, other, QUERIES)]
    assert [[int(t) for t in parts[0].tokens[row][parts[0].there[row]]] for row in range(2)] == [
        evidence([1, 7, 3]),
        evidence([12, 5]),
    ]
    for part in parts[1:]:
        jax.tree.map(np.testing.assert_array_equal, part, parts[0])
    changed = MODEL.evidence(replace(BATCH, items=np.where(BATCH.items > 0, BATCH.items % ITEMS + 1, 0)), CATALOG)
    assert (changed.tokens != parts[0].tokens).any()


def test_alignment_finds_items_by_titles_and_a_chain_says_what_kind_is_wanted():
    """Planted: a title spells its item's codes, of which the histories show half; kinds alternate in a history.

    Without alignment, the titles of items without events say nothing; without chains, no kind is written.
    """
    random = np.random.default_rng(1)
    kinds = (np.arange(5) + random.integers(0, 2, (120, 8, 1))) % 2
    rows = 1 + 4 * random.integers(0, 2, kinds.shape) + kinds + 2 * random.integers(0, 2, kinds.shape)  # items 1 to 8
    batches = jax.tree.map(lambda *x: np.stack(x), *(batch_of(each[:, :-1], each[:, 1:]) for each in rows))

    @jax.jit
    def trained(start: Any, batches: Batch, items: Any) -> Any:
        params, sums = descent(lambda params, batch, key: MODEL.loss(params, batch, items, key), start, batches)
        sums = {name: a / b for name, (a, b) in sums.items()}
        return sums, REASONING.wanted(params, jax.tree.map(lambda x: x[-1], batches), items)

    start = drawn_for(MODEL.init, jax.random.key(2), jax.tree.map(lambda x: x[0], batches), CATALOG)
    sums, written = trained(start, batches, CATALOG)
    np.testing.assert_array_equal(written, KINDS[rows[-1, :, -1]])
    for name in ("find", "name", "wanted"):  # chance of a code 1.39 nats
        assert sums[name][-10:].mean() < 0.3 < 1.0 < sums[name][0], (name, sums[name][-10:].mean())


def test_a_folder_stays_as_it_is_and_adapters_alone_have_moments(tmp_path, monkeypatch):
    on_one_device(monkeypatch)
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path / "cache"))
    folder = tiny_datasets(tmp_path / "data", ["shop"]) / "shop"
    whole = read_language_model(TWIN)
    base = replace(whole.decoder.config, layers=1)
    tiny = recipes.tiny(recipes.read("gream_text_phones")).config
    own = {"model.base": base, "model.weights": str(TWIN), "model.mode": "reasoning"}
    own |= {
        f"items.{name}.{key}": value for name in ("titles", "kinds") for key, value in {"folder": str(TWIN)}.items()
    }
    config = override_all(change(tiny, own), [f"data.dataset={folder}", "train.evaluate_every=0"])
    fit(config, tmp_path / "run")
    run = load_run(tmp_path / "run")
    language, names = run.params["language"], ("layer_0", "norm", "tokens")
    assert set(language) == {FROZEN, ADAPTERS} and set(language[FROZEN]) == set(names)
    for name in names:
        jax.tree.map(np.testing.assert_array_equal, language[FROZEN][name], whole.params[name])
    assert any(np.any(leaf) for path, leaf in jax.tree.leaves_with_path(language[ADAPTERS]) if "lora_b" in str(path))
    assert f"{TWIN}, with adapters" in run.model.notes["backbone"] and run.model.notes["mode"] == "reasoning"
    trained = jax.tree.leaves_with_path(split_frozen(run.params)[0])  # of which alone there are moments
    assert {path_name(path).split("/")[:2][-1] for path, _ in trained} == {ADAPTERS, "own"}


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="vocabulary"):
        GREAMText(base=replace(SMALL, vocabulary=5))
    with pytest.raises(InputError, match="vocabulary"):
        GREAMText(weights="folder")
    with pytest.raises(InputError, match="Tokens"):
        CONFIG.build(replace(STATS, sizes={"titles": (9, 9, 9), "kinds": (8, 8)}))
    with pytest.raises(InputError, match="codes"):
        CONFIG.build(replace(STATS, code_sizes=()))
    with pytest.raises(InputError, match="vocabulary of the 10 tokens"):
        GREAMText(replace(SMALL, vocabulary=8), weights="folder").build(STATS)


def test_the_policy_step_makes_targets_likelier_after_a_reasoning_and_leaves_the_reference():
    settings = {name: value for name, value in vars(CONFIG).items() if name != "mode"}
    tuned = GREAMTextTuned(**settings, mode="reasoning", samples=8, k=2, tries=3).build(STATS)
    start = {**params(), FROZEN: {REFERENCE: params()}}

    @jax.jit
    def trained(start: Any) -> Any:
        loss = lambda params, _, key: tuned.loss(params, BATCH, CATALOG, key)  # noqa: E731
        return descent(loss, start, jnp.arange(30), rate=0.003)

    after, sums = trained(start)
    rewards, divergence = sums["reward"][0], sums["kl"][0]
    assert float(rewards[-5:].mean()) > float(rewards[0]) + 2 * 0.2  # sums over two rows
    assert float(divergence[0]) == 0 and float(divergence[-1]) > 0
    jax.tree.map(np.testing.assert_array_equal, after[FROZEN], start[FROZEN])

    every = np.tile(np.arange(1, ITEMS + 1), (2, 1))

    @jax.jit
    def both(params: Any) -> Any:
        search = REASONING.search(params, BATCH, CATALOG)
        return log_probabilities(search, jnp.asarray(TUPLES[every])), search.scores(every)

    np.testing.assert_allclose(*both(params()), rtol=1e-4, atol=1e-5)
