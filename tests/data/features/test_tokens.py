"""Tokens of items' texts: by a tokenizer that is fitted, and by that of a language model's folder."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recjax.data.features.tokens import END, FILE, TOKENIZER, Tokens, fit_tokenizer
from recjax.typing import InputError
from tests.data.features.test_features import IDS, SHOP, TITLES, source

LAMP, NOTHING = IDS.index("a"), IDS.index("c")


def texts(feature: Tokens, state, rows) -> list[str]:
    """The texts that the tokens of rows spell."""
    tokenizer = feature.tokenizer(state)
    return [tokenizer.decode([int(t) - 1 for t in row if t], skip_special_tokens=False) for row in rows]


def test_tokens_spell_the_texts_and_keep_their_end_where_they_are_cut():
    feature = Tokens(count=12, vocabulary=300, end="\n")
    state = feature.fit([SHOP], 0)
    rows = feature.make(SHOP, state)
    assert (rows.shape, rows.dtype) == ((len(IDS), 12), np.int32)
    assert not rows[[0, NOTHING]].any()
    there = [item for item in TITLES if TITLES[item]]
    assert texts(feature, state, rows[[IDS.index(item) for item in there]]) == [f"{TITLES[item]}\n" for item in there]
    cut = replace(feature, count=2)
    (start,) = texts(cut, state, cut.make(SHOP, state)[[LAMP]])
    assert start.endswith("\n") and "Red Lamp".startswith(start[:-1]) and len(start) < len("Red Lamp\n")
    assert rows.max() < feature.sizes(state)[0] == feature.sizes({})[0] == 301


def test_several_columns_share_a_tokenizer():
    templates = ("{title}", "likes {title}")
    features = [Tokens(template, count=14, vocabulary=300, fitted=templates) for template in templates]
    one, other = (feature.fit([SHOP], 0) for feature in features)
    np.testing.assert_array_equal(one[TOKENIZER], other[TOKENIZER])
    rows = [feature.make(SHOP, one)[LAMP] for feature in features]
    assert texts(features[0], one, rows) == ["Red Lamp", "likes Red Lamp"]
    with pytest.raises(InputError, match="template"):
        replace(features[0], fitted=("likes",))


def test_a_catalog_that_was_never_seen_is_read_by_the_saved_tokenizer():
    feature = Tokens(count=30, vocabulary=300)
    state = feature.fit([SHOP], 0)
    other = source("other", titles={**TITLES, "a": f"Käse 木 {END}"})
    row = feature.make(other, state)[other.dataset.item_ids.index("a")]
    assert texts(feature, state, [row]) == [f"Käse 木 {END}"]
    assert 1 not in row, "the special token in a title is letters"


def test_the_tokenizer_of_a_folder_is_saved_with_the_run(tmp_path: Path):
    fit_tokenizer(["red lamp", "blue lamp"] * 9, 280).save(str(tmp_path / FILE))
    (tmp_path / "config.json").write_text("{}")
    feature = Tokens(count=20, folder=str(tmp_path))
    state = feature.fit([SHOP], 0)
    planned = feature.sizes({})
    (tmp_path / FILE).unlink()
    assert texts(feature, state, feature.make(SHOP, state)[[LAMP]]) == ["Red Lamp"]
    assert feature.sizes(state) == planned
    with pytest.raises(InputError, match=r"tokenizer\.json does not exist"):
        feature.fit([SHOP], 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"vocabulary": 100}, "vocabulary"), ({"count": 0}, "count"), ({"template": "{"}, "template")],
)
def test_settings_that_cannot_be(changes, message):
    with pytest.raises(InputError, match=message):
        Tokens(**changes)


def test_texts_that_are_not_there_and_ends_that_do_not_fit():
    with pytest.raises(InputError, match="no item has a text"):
        Tokens().fit([source(titles=dict.fromkeys(TITLES))], 0)
    feature = Tokens(count=2, end="abc def")
    with pytest.raises(InputError, match="end"):
        feature.make(SHOP, Tokens(vocabulary=257).fit([SHOP], 0))
