"""Prompts hold texts, vectors and sets; what follows a set does not depend on the order of its parts."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from recjax.ops.attention.sets import set_layout
from recjax.text.lm.folder import read_language_model
from recjax.text.lm.generate import generate
from recjax.text.lm.prompt import Parts, Prompt, Vectors
from recjax.text.rows import TokenRows, padded
from recjax.typing import InputError

TWIN = Path(__file__).parent / "twins" / "smollm2"
CHOICE = Prompt("had {history}. which of {options} the next?")
OPTIONS = ["the red", "a jar of the blue", "tea"]


@pytest.fixture(scope="module")
def model():
    return read_language_model(TWIN)


def test_texts_are_tokenised_with_what_is_around_them(model):
    rows = Prompt("see{what}end").rows(model.tokenizer, [{"what": " the "}, {"what": "xyz"}])
    assert rows.tokens[0, : rows.segments[0].sum()].tolist() == model.tokenise(["see the end"])[0]
    assert rows.slots is rows.allowed is rows.positions is None


def test_vectors_have_their_slots(model):
    shown = [{"history": Vectors(2), "options": Parts([["b", Vectors()], ["a", Vectors()]], canonical=True)}]
    rows = CHOICE.rows(model.tokenizer, shown)
    slots = rows.slots[0][rows.slots[0] >= 0]
    assert slots.tolist() == [0, 1, 3, 2]  # the part of "a" comes first, and has the vector that was given with it
    places = [int(np.flatnonzero(rows.slots[0] == slot)[0]) for slot in (2, 3)]
    assert [model.tokenizer.id_to_token(rows.tokens[0, place - 1]) for place in places] == ["b", "a"]


def test_layout_of_nested_sets():
    positions, allowed = set_layout([1, (2, [1, (1, 3), 1]), 1])
    assert positions.tolist() == [0, 1, 2, 1, 2, 2, 3, 4, 5, 6]
    sees = [np.flatnonzero(row).tolist() for row in allowed]
    assert sees[2] == [0, 1, 2] and sees[4] == [0, 3, 4] and sees[7] == [0, 3, 5, 6, 7]
    assert sees[8] == [0, 3, 4, 5, 6, 7, 8] and sees[9] == list(range(10))
    positions, allowed = set_layout([2, (3,), 1])
    assert positions.tolist() == list(range(6)) and (allowed == np.tri(6, dtype=bool)).all()


def test_the_order_of_parts_does_not_matter(model):
    def rows(options, **how):
        return CHOICE.rows(model.tokenizer, [{"history": "tea", "options": Parts(options, **how)}])

    @jax.jit
    def last(rows):
        inputs = model.decoder.apply({"params": model.params}, rows, method="embed")
        return model.decoder.apply({"params": model.params}, inputs, rows, method="states")[:, -1]

    def differ(a, b) -> float:
        return float(np.abs(last(a) - last(b)).max() / np.abs(last(a)).max())

    one, other = rows(OPTIONS), rows(OPTIONS[::-1])
    assert differ(one, other) < 2e-6
    plain = [
        replace(pair, allowed=np.tri(pair.tokens.shape[1], dtype=bool)[None]) for pair in (one, other)
    ]  # positions alone do not do it
    assert differ(*plain) > 1e-2
    places = np.arange(one.tokens.shape[1], dtype=np.int32)[None]
    assert differ(replace(one, positions=places), replace(other, positions=places)) > 1e-2  # nor does the mask
    canonical = [rows(options, canonical=True) for options in (OPTIONS, OPTIONS[::-1])]
    jax.tree.map(np.testing.assert_array_equal, *canonical)


def test_a_set_of_one_part_is_plain_text(model):
    rows = Prompt("{set}").rows(model.tokenizer, [{"set": Parts(["the red tea"])}])
    plain = padded(model.tokenise(["the red tea"]))
    jax.tree.map(np.testing.assert_array_equal, rows, plain)


def test_what_a_prompt_refuses(model):
    for template in ("{a.b}", "{0}", "{a!r}", "{a:3}", "{", "{}"):
        with pytest.raises(InputError, match="the prompt"):
            Prompt(template)
    refusals = {
        "has the slots history, options, but values are of history": {"history": "x"},
        "holds the special token '</s>'": {"history": "x", "options": Parts(["a", ["b</s>"]])},
    }
    for message, values in refusals.items():
        with pytest.raises(InputError, match=message):
            CHOICE.rows(model.tokenizer, [values])
    with pytest.raises(InputError, match="a row has no token"):
        Prompt("{a}").rows(model.tokenizer, [{"a": "x"}, {"a": ""}])
    with pytest.raises(InputError, match="prompts of 60 tokens and 5 new ones are more than the model's 64 positions"):
        generate(model.decoder, model.params, padded([[3] * 60]), new=5)
    with pytest.raises(InputError, match="expected at most 4"):
        CHOICE.rows(model.tokenizer, [{"history": "x", "options": "y"}], length=4)


def test_what_is_generated_behind_a_set_sees_it_all(model):
    rows = Prompt("{set}?").rows(model.tokenizer, [{"set": Parts(OPTIONS)}])
    made = np.asarray(generate(model.decoder, model.params, rows, new=3).tokens)
    length = rows.tokens.shape[1]
    allowed = np.tri(length + 3, dtype=bool)[None].copy()
    allowed[:, :length, :length] = rows.allowed
    after = rows.positions.max() + 1 + np.arange(3, dtype=np.int32)[None]
    whole = TokenRows(
        *(np.concatenate(pair, axis=1) for pair in ((rows.tokens, made), (rows.segments, made >= 0))),
        np.concatenate([rows.positions, after], axis=1),
        allowed=allowed,
    )
    logits = jax.jit(model.decoder.apply)({"params": model.params}, whole)
    np.testing.assert_array_equal(logits[0, length - 1 : -1].argmax(-1), made[0])
