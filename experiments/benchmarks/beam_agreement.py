"""Share of the exact lists that a beam finds, and what is left without a trie, on the logits of a trained model.

    python experiments/benchmarks/beam_agreement.py runs/recgpt_pretrain --data amazon-beauty-2014

Items are ranked by the sum of the logits of their codes alone, as RecGPT's paper decodes (recjax's own RecGPT adds the
similarity of texts, which no beam over codes sees). Columns: share of the exact ten best that a method finds, share of
users whose first item is the same, and hr@10 of the targets. "free" searches all tuples of codes and drops what is no
item; "valid" is the share of its tuples that are items.
"""

import argparse
from pathlib import Path
from typing import Any

import contest
import jax
import numpy as np

from recjax.data.batches.loader import query_batches
from recjax.data.items import CODES
from recjax.data.splits import Examples
from recjax.decode.beam import agreement, beam_topk
from recjax.decode.exact import exact_topk
from recjax.decode.trie import build_trie
from recjax.decode.unconstrained import best_tuples, items_of
from recjax.train.run import load_run

K, USERS = 10, 256
WIDTHS = (20, 50, 200)


def measure(run_dir: Path, data: str | None, users: int) -> tuple[str, dict[str, list[Any]]]:
    """Means over `users` test users of a run, by method."""
    run = load_run(run_dir, data)
    model: Any = run.model
    codes = np.asarray(run.items[CODES])[: run.dataset.n_items + 1]
    sizes = tuple(model.stats.code_sizes)
    trie = build_trie(codes, sizes)
    logits_of = jax.jit(model.logits)
    examples = shuffled(run.split.examples("test"), users)
    sums: dict[str, list[Any]] = {}
    with jax.set_mesh(run.mesh):
        for queries, rows in query_batches(examples, run.config.data.view, model.n_items, USERS, shapes=1):
            real = rows >= 0
            targets = examples.targets[rows[real]]
            found = logits_of(run.params, queries, run.items)
            logits = jax.tree.map(lambda x, real=real: np.asarray(x)[real], found)
            seen = np.asarray(queries.seen)[real]
            exact = np.asarray(exact_topk(logits, codes, seen, K)[0])
            add(sums, "exact", exact, exact, targets)
            for width in WIDTHS:
                add(sums, f"beam {width}", beam_topk(logits, trie, K, beam=width, seen=seen)[0], exact, targets)
                found = items_of(best_tuples(logits, width)[0], codes, sizes)
                add(sums, f"free {width}", without(found, seen), exact, targets, float((found > 0).mean()))
    return f"{run_dir} on {run.dataset.name}, {len(examples):,} users, {model.n_items:,} items", sums


def shuffled(examples: Examples, users: int) -> Examples:
    return examples.take(np.random.default_rng(0).permutation(len(examples))[:users])


def without(found: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """The first `K` items of each list that are items and not seen, 0-padded."""
    keep = (found > 0) & ~(found[:, :, None] == seen[:, None, :]).any(axis=2)
    order = np.argsort(~keep, axis=1, kind="stable")[:, :K]
    return np.where(np.take_along_axis(keep, order, 1), np.take_along_axis(found, order, 1), 0)


def add(sums: dict[str, list[Any]], name: str, lists: Any, exact: np.ndarray, targets: np.ndarray, valid: float = 1.0):
    lists = np.asarray(lists)
    agreed = agreement(lists, exact, K)
    hit = float((lists == targets[:, None]).any(axis=1).mean())
    sums.setdefault(name, []).append((len(targets), agreed.overlap, agreed.top1, hit, valid))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", help="another dataset than the run's")
    parser.add_argument("--users", type=int, default=4096, help="of the test split, drawn at random (%(default)s)")
    options = parser.parse_args()
    title, sums = measure(options.run, options.data, options.users)
    table = contest.table(title, ("method", "overlap@10", "same first", "hr@10", "valid"))
    for name, parts in sums.items():
        rows = np.array(parts)
        overlap, first, hit, valid = np.average(rows[:, 1:], axis=0, weights=rows[:, 0])
        table.add_row(name, f"{overlap:.3f}", f"{first:.3f}", f"{hit:.4f}", f"{valid:.3f}")
    contest.CONSOLE.print(table)


if __name__ == "__main__":
    main()
