"""Patterns of mixers as text."""

import pytest

from recjax.mixers.attention import Attention
from recjax.mixers.pattern import pattern
from recjax.mixers.stack import Stack
from recjax.typing import InputError


def test_names_settings_repeats_and_letters():
    assert pattern("attention", heads=2, dropout=0.1) == (Attention(2, 0.1),)
    assert pattern("attention(heads=4; dropout=0.5)*2, attention", heads=1) == (
        Attention(4, 0.5),
        Attention(4, 0.5),
        Attention(1),
    )
    assert pattern("aa", heads=2) == (Attention(2),) * 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("attentoin", "did you mean 'attention'"),
        ("attention(head=2)", "heads"),
        ("attention,,attention", "no pattern of mixers"),
        ("", "no pattern of mixers"),
    ],
)
def test_what_is_no_pattern_is_named(text, message):
    with pytest.raises(InputError, match=message):
        pattern(text)


def test_a_scanned_stack_repeats_whole_patterns():
    with pytest.raises(InputError, match="no multiple of the pattern's 2 mixers"):
        Stack(pattern("aa"), 3, 8, True, "pre", 8, scan=True)
