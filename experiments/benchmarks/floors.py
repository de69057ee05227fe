"""Floors and baselines on real data, beside published figures: leave-one-out, test split, full ranking, history masked.

    RECJAX_DATA=... OPENBLAS_NUM_THREADS=1 python experiments/benchmarks/floors.py [DATASET ...]

Popularity must come within 0.0008 of the published HR@10 and NDCG@10, the transition floor within 0.0005, and Markov-1
(counts of gap 1, rows normalised, last item only, ties by popularity) within 0.0008; datasets with few users, where
ties among scores move the figures, have a wider bound. Exits with 1 if a figure does not. Seconds are of the
processor, fitting and ranking all users, which other work on the machine does not lengthen.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import sparse

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))  # also where recjax is not installed

from recjax.data.splits import Histories, LeaveOneOut, Split
from recjax.data.store.prepared import find
from recjax.evaluate.ease import MOST_ITEMS
from recjax.evaluate.floors import events_before, rank_floors
from recjax.evaluate.host_ranking import Rules, rank_scored
from recjax.evaluate.metrics import mean_metrics

# HR@10 and NDCG@10 of popularity, Markov-1 and transition.
PUBLISHED = {
    "ml-1m": ((0.0364, 0.0179), (0.2144, 0.1259), (0.2526, 0.1465)),
    "ml-100k": ((0.0859, 0.0449), (0.1442, 0.0766), (0.1951, 0.1063)),
    "amazon-beauty-2014": ((0.0135, 0.0061), (0.0668, 0.0439), (0.0807, 0.0517)),
    "amazon-toys-2014": ((0.0091, 0.0052), (0.0709, 0.0482), (0.0932, 0.0619)),
    "amazon-sports-2014": ((0.0091, 0.0052), (0.0368, 0.0234), (0.0438, 0.0277)),
    "amazon-clothing-2014": ((0.0056, 0.0027), (0.0246, 0.0148), (0.0280, 0.0170)),
    "amazon-health-2014": ((0.0145, 0.0094), (0.0489, 0.0318), (0.0606, 0.0380)),
    "amazon-books-2014": ((0.0176, 0.0076), (0.0637, 0.0472), (0.0846, 0.0613)),
    "amazon-giftcards-2018": ((0.1485, 0.0731), (0.3079, 0.1748), (0.3668, 0.1967)),
    "lastfm": ((0.0413, 0.0192), (0.0542, 0.0291), (0.0533, 0.0325)),
    "online-retail": ((0.0219, 0.0121), (0.2001, 0.1452), (0.2193, 0.1567)),
}
WIDER = {"lastfm": 0.003, "amazon-giftcards-2018": 0.015}
LEARNED = ("item_knn", "ease", "session_knn")
DEFAULT = ("ml-1m", "amazon-beauty-2014", "amazon-toys-2014", "amazon-sports-2014")


def markov(split: Split, popularity: np.ndarray) -> Callable[[Histories], np.ndarray]:
    """Scores by what followed the last item directly; the comparison row of the published tables."""
    items, size = split.train.items, len(popularity)
    row = np.repeat(np.arange(len(split.train)), split.train.lengths)
    adjacent = row[:-1] == row[1:]
    pairs = (items[:-1][adjacent], items[1:][adjacent])
    counts = sparse.coo_array((np.ones(len(pairs[0])), pairs), shape=(size, size)).tocsr()
    sums = np.asarray(counts.sum(axis=1))
    shares: Any = sparse.diags_array(np.divide(1.0, sums, out=np.zeros(size), where=sums > 0)) @ counts
    weights = shares.tocsr()

    def scores(histories: Histories) -> np.ndarray:
        return weights[histories.items[histories.stops - 1]].toarray() + 1e-9 * popularity

    return scores


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("datasets", nargs="*", default=DEFAULT, metavar="DATASET", help=f"of {', '.join(PUBLISHED)}")
    table = Table("dataset", "floor", "hr@10", "published", "ndcg@10", "published", "bound", "seconds", box=None)
    failed = False
    for name in options.parse_args().datasets:
        dataset = find(name)
        split = LeaveOneOut().split(dataset)
        popularity = events_before(split, "test", dataset.n_items)

        def ranked(floor: str, split=split, dataset=dataset, popularity=popularity):
            if floor == "markov-1":
                return rank_scored(markov(split, popularity), split.test, dataset.n_items, Rules(k=0))
            return rank_floors(dataset, split, "test", split.test, Rules(k=0), only=(floor,))[floor]

        known = zip(("popularity", "markov-1", "transition"), PUBLISHED[name], (8e-4, 8e-4, 5e-4), strict=True)
        others = [(floor, None, None) for floor in ("text_knn", "text_transition", *LEARNED)]
        for floor, figures, bound in (*known, *others):
            if floor == "ease" and dataset.n_items > MOST_ITEMS:
                table.add_row(name, floor, "too many items")
                continue
            begun = time.process_time()
            rankings = ranked(floor)
            seconds = f"{time.process_time() - begun:.1f}"
            if rankings is None:
                table.add_row(name, floor, "no text")
                continue
            metrics = mean_metrics(rankings.ranks)
            found = (metrics["hr@10"], metrics["ndcg@10"])
            if figures is None or bound is None:
                table.add_row(name, floor, f"{found[0]:.4f}", "", f"{found[1]:.4f}", "", "", seconds)
                continue
            bound = max(bound, WIDER.get(name, 0.0))
            # Published figures are rounded to four digits.
            wrong = any(abs(a - b) > bound + 5e-5 for a, b in zip(found, figures, strict=True))
            failed |= wrong
            cells = (
                f"{found[0]:.4f}",
                f"{figures[0]:.4f}",
                f"{found[1]:.4f}",
                f"{figures[1]:.4f}",
                f"{bound:.4f}",
                seconds,
            )
            table.add_row(name, floor, *cells, style="red" if wrong else "")
    Console(width=None if sys.stdout.isatty() else 110).print(table)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
