"""The text of an item: fields of its catalog row put into a template."""

import difflib
import hashlib
import html
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from recjax.typing import InputError

TEXT_COLUMNS = ("title", "brand", "categories", "genres", "description")
"""Columns of a catalog that usually hold text; a template may name them whether a catalog has them or not."""

PATH_COLUMNS = ("categories", "genres")
"""Columns whose text may be a path, `Beauty|Hair Care|Styling`."""

TEMPLATE = "{title}. {categories}. {genres}. {brand}. {description}"
"""The default: a title, then what else is known, as short sentences."""

WORDS = "{title} {brand} {categories} {genres} {description}"
"""The words alone, for encoders that do not read punctuation."""

_SEPARATORS = " .,;:|/-"
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class ItemText:
    """Texts of items by a template, such as `"{title}. {categories}"`.

    The words before a field belong to it: where a row has nothing in the field, both are dropped, and a text never
    begins with a separator. Lists, lists of lists and paths (`A|B|C` in `categories` and `genres`) are joined by
    spaces; tags are dropped, HTML entities replaced and white space collapsed.

    Attributes:
        template: words and `{column}` fields.

    Raises:
        InputError: the template has no field, or one that is not a plain column name.
    """

    template: str = TEMPLATE

    def __post_init__(self) -> None:
        if not self.fields():
            raise InputError(f"the item text template {self.template!r} names no column, expected e.g. '{{title}}'")

    def fields(self) -> list[tuple[str, str]]:
        """(words before, column) of each field."""
        try:
            parts = list(string.Formatter().parse(self.template))
        except ValueError as error:
            raise InputError(f"the item text template {self.template!r} does not read: {error}") from None
        fields = [(before, field, spec, conversion) for before, field, spec, conversion in parts if field is not None]
        for _, field, spec, conversion in fields:
            if not field.isidentifier() or spec or conversion:
                raise InputError(f"the item text template {self.template!r}: expected {{column}}, found {{{field}...}}")
        if parts and parts[-1][1] is None and fields:
            raise InputError(f"the item text template {self.template!r} must end with a field, not {parts[-1][0]!r}")
        return [(before, field) for before, field, _, _ in fields]

    def texts(self, catalog: pl.DataFrame) -> list[str | None]:
        """One text a row of a catalog; None where it has nothing to read in any field.

        Raises:
            InputError: the template names a column that is neither usual nor in the catalog.
        """
        fields = self.fields()
        for _, name in fields:
            if name not in catalog.columns and name not in TEXT_COLUMNS:
                near = difflib.get_close_matches(name, [*catalog.columns, *TEXT_COLUMNS], n=1)
                raise InputError(
                    f"the item text template names {name!r}, but the catalog's columns are: "
                    f"{', '.join(catalog.columns)}" + (f"; did you mean {near[0]!r}?" if near else "")
                )
        present = [(before, name) for before, name in fields if name in catalog.columns]
        if not present:
            return [None] * catalog.height
        words = [before for before, _ in present]
        columns = [[plain(value, name) for value in catalog[name].to_list()] for _, name in present]
        return [_joined(words, row) for row in zip(*columns, strict=True)]


def plain(value: object, column: str = "") -> str:
    """A cell of a catalog as one line of text; "" where there is nothing to read."""
    if value is None:
        return ""
    if isinstance(value, Sequence | pl.Series) and not isinstance(value, str):
        return " ".join(filter(None, (plain(entry, column) for entry in value)))
    text = str(value)
    if column in PATH_COLUMNS:
        text = text.replace("|", " ")
    if "<" in text:
        text = _TAG.sub(" ", text)
    if "&" in text:
        text = html.unescape(html.unescape(text))  # twice, as shops escape twice
    return _SPACE.sub(" ", text).strip()


def fingerprint(texts: Sequence[str | None]) -> str:
    """sha256 (hex) of texts; no text differs from an empty one."""
    digest = hashlib.sha256(b"recjax texts 1")
    for text in texts:
        data = b"" if text is None else text.encode()
        digest.update(f"{-1 if text is None else len(data)};".encode())
        digest.update(data)
    return digest.hexdigest()


def _joined(words: Sequence[str], values: Sequence[str]) -> str | None:
    text = ""
    for before, value in zip(words, values, strict=True):
        if not value:
            continue
        if not text:
            before = before.lstrip(_SEPARATORS)
        elif text[-1] in ".,;:!?" and before[:1] in (".", ",", ";"):
            before = before[1:]
        text += before + value
    return text or None
