"""Floors of next-basket recommendation: counts of the user's own purchases.

| floor           | score of an item                                                                               |
|-----------------|------------------------------------------------------------------------------------------------|
| popularity      | its events before the test (global top)                                                        |
| personal_top    | the user's own events with it                                                                  |
| personal_recent | the same, an event t baskets ago (the latest: 1) counting t ** -0.5                            |
| last_basket     | 1 for the items of the user's last basket                                                      |
| transition      | windowed transition counts with the last five items, see `recjax.data.transitions`             |

A basket is a run of a user's events with one time stamp. Equal scores of the personal floors are ordered by popularity,
so that items that are new to a user follow where a list would run out.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from recjax.data.splits import Histories, Split, Which
from recjax.evaluate.floors import Score, events_before

SET_FLOORS = ("popularity", "personal_top", "personal_recent", "last_basket", "transition")

BACKFILL = 1e-6
"""Score of an item as popular as can be, beside personal scores: below any difference that these have."""


def personal_scorers(split: Split, which: Which, n_items: int) -> dict[str, Callable[[], Score]]:
    """Floor -> a function that fits it and returns its scores, of the floors that `floors.scorers` does not have.

    Args:
        split: what popularity is counted of.
        which: the part of the split that is evaluated.
        n_items: catalog size.
    """
    counts = events_before(split, which, n_items)
    popularity = BACKFILL * counts / (counts.max() + 1.0)
    weights: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "personal_top": lambda age: np.ones(len(age)),
        "personal_recent": lambda age: age**-0.5,
        "last_basket": lambda age: np.where(age == 1, 1.0, 0.0),
    }

    def scores(weight: Callable[[np.ndarray], np.ndarray], largest: bool, histories: Histories) -> np.ndarray:
        row = np.repeat(np.arange(len(histories)), histories.lengths)
        found = np.zeros((len(histories), n_items + 1))
        add = np.maximum.at if largest else np.add.at
        add(found, (row, histories.items), weight(baskets_ago(histories)))
        return found + popularity

    def maker(name: str) -> Callable[[], Score]:
        return lambda: partial(scores, weights[name], name == "last_basket")

    return {name: maker(name) for name in weights}


def baskets_ago(histories: Histories) -> np.ndarray:
    """float64 [m]: of each event of compact histories, how many baskets back it is; 1 for the last basket."""
    row = np.repeat(np.arange(len(histories)), histories.lengths)
    first = np.ones(len(row), bool)
    first[1:] = (histories.timestamps[1:] != histories.timestamps[:-1]) | (row[1:] != row[:-1])
    number = np.cumsum(first)
    last = np.zeros(len(histories), np.int64)
    last[row] = number  # of repeats the last assignment stays
    return (last[row] - number + 1).astype(np.float64)
