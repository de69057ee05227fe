"""An order of catalogs for a curriculum, by their texts: advice for `data.weighting=InOrder`.

    python experiments/benchmarks/catalog_order.py amazon-health-2014 amazon-books-2014 ml-1m

Items are the vectors of their titles and categories by the table of word pieces that comes with recjax, which mean the
same in every catalog ($RECJAX_DATA). Prints how unlike each other the items of each catalog are, how far apart the
catalogs are, and the order with the best score (`recjax/text/catalog_order.py`) beside its reverse.
"""

import argparse

import numpy as np

from recjax.data.store.prepared import find
from recjax.text.catalog_order import MOST, advised_order, distances, order_score, relative, spread
from recjax.text.items import ItemText
from recjax.text.space import unit
from recjax.text.words import WordVectors

SAMPLE = 5_000
"""Items of a catalog that are looked at, drawn at random."""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("datasets", nargs="+", help=f"names or folders, 2 to {MOST}")
    names = options.parse_args().datasets
    if not 2 <= len(names) <= MOST:
        options.error(f"{len(names)} datasets were named, expected 2 to {MOST}")
    catalogs = [cloud(name) for name in names]
    between = relative(distances(catalogs))
    spreads = [spread(vectors) for vectors in catalogs]
    for name, row, own in zip(names, between, spreads, strict=True):
        print(f"{name:24} spread {own:.3f}  distances {' '.join(f'{value:.2f}' for value in row)}")
    best = advised_order(between, spreads)
    for label, order in (("advised order", best), ("its reverse", best[::-1])):
        score = order_score(order, between, spreads)
        print(f"{label}: {','.join(names[place] for place in order)}  score {score:.3f}")


def cloud(name: str) -> np.ndarray:
    """float32 [n, d] of length 1, the items of a catalog that have a text."""
    texts = [text for text in ItemText(WordVectors().template).texts(find(name).catalog) if text]
    chosen = np.random.default_rng(0).permutation(len(texts))[:SAMPLE]
    vectors = unit(WordVectors().encode([texts[place] for place in chosen]))
    return vectors[np.abs(vectors).max(axis=1) > 0]


if __name__ == "__main__":
    main()
