import numpy as np
import polars as pl
import pytest

from recjax.evaluate.history_lengths import by_history_length
from recjax.evaluate.report import Report


def report(ranks, lengths) -> Report:
    users = pl.DataFrame({"user_id": [f"u{i}" for i in range(len(ranks))], "rank": ranks, "history": lengths})
    return Report("toy", {}, {}, {"all": {}}, {}, {}, {"users": len(ranks)}, 1.0, None, users=users)


def test_users_are_grouped_by_how_long_their_history_is():
    lengths = [1, 2, 3, 49, 50, 5000]
    groups = by_history_length([report([1, 3, None, 1, 1, 7], lengths)])
    assert [(group["from"], group["to"], group["users"]) for group in groups] == [
        (1, 2, 2),
        (3, 4, 1),
        (20, 49, 1),
        (50, 99, 1),
        (1000, None, 1),
    ]
    values = [1.0, 1 / np.log2(4)]
    half = 1.959964 * np.std(values, ddof=1) / np.sqrt(2)
    assert groups[0]["value"] == pytest.approx(0.75)
    assert groups[0]["high"] - groups[0]["value"] == pytest.approx(half, rel=1e-5)
    assert groups[1]["value"] == 0.0  # a miss


def test_seeds_are_averaged_per_user():
    groups = by_history_length([report([1, 1], [4, 4]), report([None, None], [4, 4])])
    assert [group["value"] for group in groups] == [0.5]
    assert groups[0]["low"] == groups[0]["high"] == 0.5  # no two users differ


def test_reports_of_before_have_no_lengths():
    old = report([1], [4])
    assert old.users is not None
    assert by_history_length([report([1], [4]), Report(**{**vars(old), "users": old.users.drop("history")})]) == []
