"""Quality of a sentence encoder by itself: whitened text neighbours on real data, beside a run if one is named.

    python experiments/benchmarks/text_floor.py amazon-books-2014
    python experiments/benchmarks/text_floor.py amazon-toys-2014 --run runs/recgpt_pretrain

The floor of `recjax evaluate` is of the space that the run's model reads, which may be more than one encoder; this one
is of a single encoder's vectors of "title. categories" ($RECJAX_ENCODERS, $RECJAX_DATA). Leave-one-out, test split,
full ranking, history masked; in brackets 95 % bootstrap intervals over users, and of the difference to the run paired
over users (t).
"""

import argparse
from pathlib import Path

import numpy as np

from recjax.compare.run_results import EVALUATION
from recjax.data.dataset import Dataset
from recjax.data.splits import LeaveOneOut
from recjax.data.store.locate import cache_folder
from recjax.data.store.prepared import find
from recjax.evaluate.floors import rank_floors
from recjax.evaluate.host_ranking import Rules
from recjax.evaluate.intervals import bootstrap, paired
from recjax.evaluate.metrics import mean_metrics
from recjax.evaluate.report import Report
from recjax.text.encoder import SentenceEncoder
from recjax.text.vectors import item_vectors
from recjax.text.whiten import whitened

TEMPLATE = "{title}. {categories}"


def text_vectors(encoder: str, dataset: Dataset) -> np.ndarray:
    """float32 [v, d], whitened vectors of the items' titles and categories by a sentence encoder."""
    reader = SentenceEncoder(encoder, template=TEMPLATE)
    found = item_vectors(reader, dataset.catalog, cache_folder() / "vectors", progress=True)
    return whitened(found.vectors, found.known)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("dataset")
    options.add_argument("--encoder", default="all-MiniLM-L6-v2", help="(default all-MiniLM-L6-v2)")
    options.add_argument("--run", type=Path, help="a run that was evaluated on that dataset")
    chosen = options.parse_args()
    dataset = find(chosen.dataset)
    split = LeaveOneOut().split(dataset)
    vectors = text_vectors(chosen.encoder, dataset)
    floor = rank_floors(dataset, split, "test", split.test, Rules(k=0), vectors=vectors, only=("text_knn",))["text_knn"]
    if floor is None:
        options.error(f"no item of {chosen.dataset} has a text")
    low, high = bootstrap(floor.ranks, 1000)["ndcg@10"]
    metrics = mean_metrics(floor.ranks)
    print(
        f"{chosen.dataset}, {len(floor.ranks):,} users, {chosen.encoder}: ndcg@10 {metrics['ndcg@10']:.4f} "
        f"[{low:.4f}, {high:.4f}], hr@10 {metrics['hr@10']:.4f}"
    )
    if chosen.run is not None:
        report = Report.load(chosen.run / EVALUATION)
        if report.dataset["fingerprint"] != dataset.fingerprint:
            options.error(f"{chosen.run} was evaluated on another dataset")
        test = paired([floor.ranks], [report.ranks()])
        low, high = test["interval"]
        print(f"{chosen.run}: {test['second']:.4f}, {test['difference']:+.4f} [{low:+.4f}, {high:+.4f}]")


if __name__ == "__main__":
    main()
