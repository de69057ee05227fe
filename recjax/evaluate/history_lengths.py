"""Quality by how much is known of a user: the metric in groups of users of similar history length."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from recjax.evaluate.intervals import LEVEL
from recjax.evaluate.report import Report, mean_values

EDGES = (1, 3, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Smallest history of each group; the last has no largest one."""


def by_history_length(reports: Sequence[Report], metric: str = "ndcg@10") -> list[dict[str, Any]]:
    """The metric of the users of each group, averaged over the reports (seeds of one system) per user before.

    Args:
        reports: of the same users, in the same order.
        metric: which one.

    Returns:
        For each group that has users: from, to (None: no upper end), users, value, and low and high, the 95 % interval
        over users by the normal approximation. Nothing for reports stored before users had a `history` column, or
        without users.
    """
    users = [report.users for report in reports]
    known = all(report.values(metric) is not None for report in reports)
    if not known or any(table is None or "history" not in table.columns for table in users):
        return []
    assert users[0] is not None
    lengths = users[0]["history"].to_numpy()
    values = mean_values(reports, metric)
    from scipy import stats  # slow to import, and training imports this room

    normal, groups = float(stats.norm.ppf((1 + LEVEL) / 2)), []
    for start, end in pairwise((*EDGES, None)):
        inside = values[(lengths >= start) & (True if end is None else lengths < end)]
        if not len(inside):
            continue
        mean = float(inside.mean())
        half = normal * float(inside.std(ddof=1)) / len(inside) ** 0.5 if len(inside) > 1 else 0.0
        last = None if end is None else end - 1
        groups.append(
            {"from": start, "to": last, "users": len(inside), "value": mean, "low": mean - half, "high": mean + half}
        )
    return groups
