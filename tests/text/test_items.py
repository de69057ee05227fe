"""Item texts: fields that are missing leave no trace, and nothing to read is None."""

import polars as pl
import pytest

from recjax.text.items import ItemText, fingerprint
from recjax.typing import InputError

CATALOG = pl.DataFrame(
    {
        "item_id": ["1", "2", "3", "4", "5"],
        "title": ["Lamp &amp;amp; shade", "Gel 1oz.", None, " \n", "Pipe | valve"],
        "categories": ["Home|Light  bulbs", "Hair|Gels", "Toys", "", None],
        "brand": ["Acme", None, None, None, "Bo<br>sch 1 < 2"],
    }
)


def test_default_template():
    assert ItemText().texts(CATALOG) == [
        "Lamp & shade. Home Light bulbs. Acme",
        "Gel 1oz. Hair Gels",
        "Toys",
        None,
        "Pipe | valve. Bo sch 1 < 2",
    ]


def test_words_before_a_field_go_with_it():
    texts = ItemText("Title: {title}, by: {brand}").texts(CATALOG)
    assert texts[0] == "Title: Lamp & shade, by: Acme"
    assert texts[1] == "Title: Gel 1oz."
    assert texts[2] is None
    only = ItemText("{title}, by {brand}").texts(pl.DataFrame({"brand": ["Acme"]}))
    assert only == ["by Acme"]


def test_lists_and_paths():
    nested = pl.DataFrame({"categories": [[["Home", "Light"], ["Gifts"]], [[None]], None]})
    assert ItemText().texts(nested) == ["Home Light Gifts", None, None]
    assert ItemText().texts(CATALOG.select("item_id")) == [None] * 5


@pytest.mark.parametrize("template", ["", "title", "{title", "{title!r}", "{0}", "{title}!"])
def test_bad_templates(template):
    with pytest.raises(InputError, match="template"):
        ItemText(template)


def test_a_misspelt_column_is_named():
    with pytest.raises(InputError, match=r"names 'titel'.*did you mean 'title'"):
        ItemText("{titel}").texts(CATALOG)


def test_fingerprints_tell_texts_apart():
    lists = [["a", "b"], ["ab"], ["b", "a"], ["a", "b", None], ["a", "b", ""], ["a\u00e9"], []]
    assert len({fingerprint(texts) for texts in lists}) == len(lists)
    assert fingerprint(["a", None]) == fingerprint(["a", None])
