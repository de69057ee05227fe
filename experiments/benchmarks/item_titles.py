"""python experiments/benchmarks/item_titles.py RUN

Items to titles after `ILMAlignment` (a run, or the stage `RUN/stages/alignment`): how often the item's own title is the
nearest of 100, of items whose titles were held out of training. Half of them, every other one, is for choosing
settings ("validation"). Beside it, a ridge regression from the same vectors of behaviour to vectors of titles by the
word table that comes with recjax; its penalty is chosen on the validation half.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import recjax
from recjax.models.ilm_alignment import held_out
from recjax.text.vectors import item_vectors
from recjax.text.words import WordVectors

AMONG, DRAWS = 100, 20


def hits(similar: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Share of rows whose diagonal is the best of `AMONG` columns, the mean over draws, and its standard error."""
    random, count = np.random.default_rng(seed), len(similar)
    found = np.zeros((DRAWS, count))
    for row in range(count):
        others = np.delete(np.arange(count), row)
        for draw in range(DRAWS):
            wrong = random.choice(others, min(AMONG, count) - 1, replace=False)
            found[draw, row] = (similar[row, wrong] < similar[row, row]).all()
    each = found.mean(axis=0)
    return float(each.mean()), float(each.std() / count**0.5)


def main(folder: str) -> None:
    run = recjax.load(Path(folder)).run
    model: Any = run.model
    config = run.config.model
    vectors, words = (np.asarray(run.items[name]) for name in (config.vectors, config.words))
    ids = np.arange(len(vectors))
    known = (ids > 0) & (ids <= run.dataset.n_items) & vectors.any(axis=1) & (words > 0).any(axis=1)
    held = np.asarray(held_out(jnp.asarray(ids), config.held))
    parts = np.flatnonzero(known & held)
    parts = {"validation": parts[::2], "test": parts[1::2]}
    similarities = jax.jit(model.similarities)
    texts = item_vectors(WordVectors("{title}"), run.dataset.catalog).vectors
    texts = np.pad(texts, [(0, len(ids) - len(texts)), (0, 0)])
    own = np.flatnonzero(known & ~held)
    ridge = {}
    for penalty in (0.1, 1.0, 10.0):
        mean, a = texts[own].mean(axis=0), vectors[own]
        weights = np.linalg.solve(a.T @ a + penalty * np.eye(a.shape[1]), a.T @ (texts[own] - mean))
        for name, rows in parts.items():
            one, other = vectors[rows] @ weights, texts[rows] - mean
            one, other = (x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-9) for x in (one, other))
            ridge[name, penalty] = hits(one @ other.T)
    best = max((0.1, 1.0, 10.0), key=lambda penalty: ridge["validation", penalty])
    for name, rows in parts.items():
        found = hits(np.asarray(similarities(run.params, model.inputs(run.items, rows))))
        print(
            f"{name}: {len(rows)} held-out items, own title first of {min(AMONG, len(rows))}: {found[0]:.4f} "
            f"± {1.96 * found[1]:.4f}; ridge {ridge[name, best][0]:.4f} ± {1.96 * ridge[name, best][1]:.4f}; "
            f"chance {1 / min(AMONG, len(rows)):.4f}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="run folder of an ILMAlignment")
    main(parser.parse_args().run)
