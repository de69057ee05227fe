"""Mender's text form: words steer what is generated, padding is nowhere seen, a language model stays as it is."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from recjax import recipes
from recjax.config import override_all
from recjax.data.batches.views import Queries, Shifted
from recjax.data.items import CODES, bare_items
from recjax.evaluate.evaluator import EvaluationData
from recjax.evaluate.steering import Steering
from recjax.models.mender_text import LANGUAGE, TEXTS, MenderText
from recjax.models.model import ItemStats
from recjax.models.slmrec import SMALL
from recjax.nn.groups import FROZEN
from recjax.nn.lora import ADAPTERS, UP
from recjax.plan.program import abstract_inputs
from recjax.settings import change
from recjax.text.lm.folder import read_language_model
from recjax.train.loop import fit
from recjax.train.run import load_run
from recjax.typing import InputError
from tests.descent import descent
from tests.models.test_mender import COLUMNS as VECTORS
from tests.models.test_mender import ITEMS, KIND, KINDS, LENGTH, MEMBERS, ROWS, SIZES, examples, walks
from tests.tiny import on_one_device, tiny_datasets

TWIN = Path(__file__).parents[1] / "text" / "lm" / "twins" / "smollm2"
LOOKS, AVOIDS, FIRST_KIND, FIRST_TITLE = 1, 2, 3, 3 + KINDS
"""Words: two of the templates, one a kind, and one an item, of its title."""

STEPS = 200


def words() -> dict[str, Any]:
    texts = np.zeros((3, ITEMS + 1, 3), np.int32)
    texts[0, 1:, 0] = FIRST_TITLE + np.arange(ITEMS)
    for place, word in ((1, LOOKS), (2, AVOIDS)):
        texts[place, 1:, 0], texts[place, 1:, 1] = word, FIRST_KIND + KIND
    return dict(zip(WORDS, jnp.asarray(texts), strict=True))


WORDS = ("title", "wanted", "unwanted")
COLUMNS = {CODES: VECTORS[CODES], "kinds": VECTORS["kinds"], **words()}
CATALOG = bare_items(ITEMS, COLUMNS)
SHAPES = {name: x.shape[1:] for name, x in COLUMNS.items()}
STATS = ItemStats(ITEMS, np.ones(ITEMS + 1), SHAPES, SIZES, dict.fromkeys(WORDS, (FIRST_TITLE + ITEMS,) * 3))
BASE = replace(SMALL, width=16, layers=1, channels=8, inner=32)
OPTIONS: dict[str, Any] = dict(width=16, layers=1, heads=2, channels=8, inner=32, dropout=0.0, codes=4, beam=ITEMS)
CONFIG = MenderText(**OPTIONS, memory=2, unwanted=0.3, base=BASE, room=4)
MODEL = CONFIG.build(STATS)


@pytest.fixture(scope="module")
def params() -> Any:
    """After training, compiled once."""
    batches = jax.tree.map(lambda *arrays: np.stack(arrays), *(walks(seed) for seed in range(STEPS)))

    @jax.jit
    def trained() -> Any:
        start = MODEL.init(jax.random.key(0), walks(0), CATALOG)
        return descent(lambda params, batch, key: MODEL.loss(params, batch, CATALOG, key), start, batches)[0]

    return trained()


def test_words_of_what_is_wanted_are_generated_and_of_what_is_not_are_not(params):
    """By words alone: a kind's word stands for the kind, also where items' words are exchanged."""
    queries = Queries(walks(7).items, walks(7).items * 0, np.full(ROWS, LENGTH), np.zeros((ROWS, 1), np.int32))  # pyright: ignore
    wanted = np.asarray(walks(7).items)[:, -1:]

    @jax.jit
    def listed(params: Any, preferences: Any, texts: Any) -> Any:
        items = replace(CATALOG, columns={**COLUMNS, **texts})
        return MODEL.steered(params, queries, items, preferences).topk(queries.seen, MEMBERS)[0]

    # Each has those of the kind before.
    exchanged = {name: x.at[1:].set(jnp.roll(x[1:], MEMBERS, axis=0)) for name, x in words().items()}
    found = [listed(params, sign * wanted, each) for sign, each in ((1, words()), (-1, words()), (1, exchanged))]
    kinds = [KIND[np.asarray(lists) - 1] for lists in found]
    own = KIND[wanted - 1]
    assert float((kinds[0] == own).mean()) > 0.8
    assert float((kinds[1][:, :1] == own).mean()) < 0.3  # 0.5 where nothing is wanted
    assert float((kinds[2] == (own - 1) % KINDS).mean()) > 0.8


def test_without_words_of_preferences_steering_is_chance(params):
    asked = examples()
    split: Any = SimpleNamespace(test=asked, validation=asked, examples=lambda which: asked)
    facts = {"name": "d", "whole": "", "fingerprint": "f", "n_users": ROWS, "n_items": ITEMS, "left_out": 0}
    dataset: Any = SimpleNamespace(
        **facts, user_ids=np.arange(ROWS).astype(str), item_ids=np.arange(ITEMS + 1).astype(str)
    )
    data = EvaluationData(dataset, split, Shifted(LENGTH, align="left", targets=1), CATALOG)
    steering = Steering(memory=2, users=None, k=3, users_per_batch=ROWS, bootstrap=0)
    seeing = steering.evaluate(MODEL, params, data, floors=False).metrics
    assert seeing["coarse"]["raised"] > 0.7 and seeing["sentiment"]["success@3"] > 0.3
    assert seeing["oracle"]["hr@5"] > seeing["none"]["hr@5"] + 0.05
    mute = replace(CATALOG, columns={**COLUMNS, **{name: COLUMNS[name] * 0 for name in WORDS[1:]}})
    blind = steering.evaluate(MODEL, params, replace(data, items=mute), floors=False).metrics
    assert blind["fine"]["raised"] == blind["coarse"]["raised"] == 0.5
    assert blind["sentiment"]["success@3"] == 0 and blind["oracle"] == blind["none"]


def test_states_of_words_are_those_without_the_padding_between_them(params):
    padded, whole = jnp.array([[0, 5, 0, 0, 9, 2, 0]]), jnp.array([[5, 9, 2]])

    @jax.jit
    def states(params: Any, tokens: Any) -> Any:
        return MODEL._run(params, lambda t5: MODEL.states(t5, (tokens, tokens > 0)))

    found, expected = np.asarray(states(params, padded))[:, [1, 4, 5]], np.asarray(states(params, whole))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    swapped = np.asarray(states(params, whole[:, [1, 0, 2]]))
    assert np.abs(swapped[0, 2] - expected[0, 2]).max() > 1e-3  # places count


def test_what_is_read_is_preferences_then_the_last_titles():
    batch = replace(walks(0), items=np.array([[1, 5, 7], [4, 0, 0]], np.int32))
    tokens, mask = MODEL.context(batch, CATALOG, jnp.array([[12, -1], [0, 0]]))
    title = lambda item: FIRST_TITLE + item - 1  # noqa: E731
    wished = [[LOOKS, FIRST_KIND + KINDS - 1, 0, AVOIDS, FIRST_KIND, 0], [0] * 6]
    titles = [[title(1), title(5), title(7), 0], [title(4), 0, 0, 0]]
    assert tokens.tolist() == np.concatenate([wished, titles], axis=1).tolist()
    np.testing.assert_array_equal(mask, tokens > 0)


def test_a_language_model_stays_as_its_folder_has_it_and_its_adapters_learn(tmp_path, monkeypatch):
    on_one_device(monkeypatch)
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path / "cache"))
    folder = tiny_datasets(tmp_path / "data", ["shop"]) / "shop"
    whole = read_language_model(TWIN)
    base = replace(whole.decoder.config, layers=1)
    tiny = recipes.tiny(recipes.read("mender_text_ml100k")).config
    own = {"model.base": base, "model.weights": str(TWIN), **{f"items.{name}.folder": str(TWIN) for name in WORDS}}
    config = override_all(change(tiny, own), [f"data.dataset={folder}", "train.steps=3", "train.evaluate_every=0"])
    fit(config, tmp_path / "run")
    run = load_run(tmp_path / "run")
    held, adapters = run.params[LANGUAGE][FROZEN], run.params[LANGUAGE][ADAPTERS]
    jax.tree.map(np.testing.assert_array_equal, held["layer_0"], whole.params["layer_0"])
    np.testing.assert_array_equal(held["tokens"], whole.params["tokens"])
    flat: dict[Any, Any] = dict(flatten_dict(adapters))
    ups = [leaf for path, leaf in flat.items() if path[-1] == UP]
    assert len(ups) == 4 and all(np.any(leaf) for leaf in ups)
    assert f"{TWIN}, with adapters" in run.model.notes["backbone"] and run.params.keys() >= {"into", "decoder_0"}
    inputs = abstract_inputs(config, ITEMS, config.mesh.build(jax.devices()[:1]), 32)
    paths = [jax.tree_util.keystr(path) for path, leaf in jax.tree.leaves_with_path(inputs.state.opt_state)]
    moments = [path for path in paths if LANGUAGE in path]
    assert moments and all(ADAPTERS in path for path in moments)


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="vocabulary of the folder"):
        MenderText(weights="folder")
    with pytest.raises(InputError, match="vocabulary of the folder"):
        MenderText(base=replace(SMALL, vocabulary=5))
    with pytest.raises(InputError, match=r"the tokens 'wanted' of each item.*fitted=TEXTS"):
        CONFIG.build(replace(STATS, sizes={"title": (9,)}))
    with pytest.raises(InputError, match="compares items"):
        CONFIG.build(replace(STATS, columns={**SHAPES, "kinds": ()}))
    small = replace(CONFIG, weights="folder", base=replace(BASE, vocabulary=9))
    with pytest.raises(InputError, match="but folder knows 9"):
        small.build(STATS)
    assert len(TEXTS) == 3
