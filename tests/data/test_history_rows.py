"""Steps of pipelines on one user at a time, in plain loops: the histories of the local path."""

from collections import Counter
from dataclasses import replace

import polars as pl
import pytest

from recjax.data.dataset import EQUAL_TIMES
from recjax.data.importers.timestamps import NANOSECOND
from recjax.data.prepare import history_rows
from recjax.data.prepare.build import build
from recjax.data.prepare.preparation import Preparation, sort, ties
from recjax.data.store.records import Records
from tests.data.samples import logs, random_logs


@pytest.mark.parametrize("finer", [False, True])
@pytest.mark.parametrize("duplicates", ["consecutive", "pair"])
def test_rows_become_the_histories_of_the_local_path(duplicates, finer):
    raw = random_logs(3, users=40, items=25, events=500, span=9)
    rated = logs([(*row, float(number % 5)) for number, row in enumerate(raw.interactions.rows())])
    parts_of_a_second = pl.Series(range(500)).shuffle(seed=0).cast(pl.Int32)
    if finer:
        rated = replace(rated, interactions=rated.interactions.with_columns(parts_of_a_second.alias(NANOSECOND)))
    options = Preparation(k_core=4, min_length=6, duplicates=duplicates, min_rating=1.0)
    expected = build(rated, options)
    codes = {item: code for code, item in enumerate(rated.interactions["item_id"].unique(maintain_order=True))}

    rows, chunks = [], {}
    for half in (pl.col("place") >= 250, pl.col("place") < 250):  # as of two files, the later one first
        events = rated.interactions.with_row_index("place").filter(half)
        names = ["place", "item_id", "timestamp", "rating", *[NANOSECOND] * finer]
        for user, *columns in events.group_by("user_id").agg(names).iter_rows():
            chunks.setdefault(user, []).append(columns if finer else [*columns, None])
    equal = 0
    for user, parts in chunks.items():
        place, events = history_rows.gathered(parts, codes)
        equal += ties(sort(events))
        *_, last = history_rows.stepped(events, options)
        rows.append(history_rows.to_row(user, place, sort(last)))
    rare, repeats = [-1], 0
    while rare or repeats:
        rows = [history_rows.deduplicated(row, options) for row in rows] if repeats and not rare else rows
        rows = [row for row in rows if history_rows.length(row) >= 6]
        counts = Counter()
        for row in rows:
            counts.update(dict(history_rows.item_counts(row)))
        rare = [item for item, count in counts.items() if count < 4]
        rows = [history_rows.without(row, rare) for row in rows]
        repeats = sum(history_rows.repeats(row, options) for row in rows)

    assert expected.description.get(EQUAL_TIMES) == (equal if finer else None)
    kept = sorted({item for row in rows for item in history_rows.items(row)})
    rows = [history_rows.renumbered(row, kept) for row in sorted(rows, key=lambda row: row["place"])]
    assert 0 < len(rows) < 40 and [row["user"] for row in rows] == expected.user_ids
    whole = Records(expected.user_ids, expected.offsets, expected.items, expected.timestamps, expected.values)
    assert [history_rows.serialized(row) for row in rows] == list(whole.serialized())
