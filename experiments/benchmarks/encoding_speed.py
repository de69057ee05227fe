"""Titles to vectors with MiniLM: recjax beside sentence-transformers and ONNX Runtime, same weights, by turns.

    RECJAX_PEERS=... RECJAX_ENCODERS=... python experiments/benchmarks/encoding_speed.py

Titles of a real catalog, tokenizing included, every side sorted by length. "agrees" is the least cosine of a text's
vector with that of sentence-transformers, "neighbours" the share of a text's ten nearest that stay, over all texts.
bfloat16 of recjax and int8 of ONNX Runtime say what lower precision gives and loses.
"""

import json
from typing import Any

import contest
import numpy as np

from recjax.data.store.prepared import find
from recjax.text.hub import find_folder

SIDES = ("recjax", "sentence_transformers", "onnx", "recjax-bfloat16", "onnx-int8")
AIM = 1.5


def titles(name: str, most: int) -> list[str]:
    """Distinct titles of a dataset, evenly spread over its catalog."""
    found = find(name).catalog["title"].drop_nulls().unique(maintain_order=True).to_list()
    return found[:: max(1, len(found) // most)][:most]


def nearest(vectors: np.ndarray, k: int = 10) -> np.ndarray:
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -2)
    return np.argpartition(-scores, k, axis=1)[:, :k]


def measure(options: Any) -> dict[str, Any]:
    names = options.sides.split(",")
    texts = titles(options.data, options.texts)
    passes: dict[str, list[dict[str, Any]]] = {}
    with contest.scratch() as folder:
        (folder / "texts.json").write_text(json.dumps(texts))
        settings = {
            "texts": str(folder / "texts.json"),
            "folder": str(find_folder(options.encoder)),
            "threads": options.threads,
            "max_tokens": 256,
        }
        with contest.sides(names, settings, folder, options.peers, system="encoding") as sides:
            for side in sides:
                side.recommend(folder / f"{side.name}.npy")
            vectors = {side.name: np.load(folder / f"{side.name}.npy", allow_pickle=False) for side in sides}
            for _, side in contest.by_turns(sides, options.rounds):
                passes.setdefault(side.name, []).append(side.recommend())
            contest.print_machine(contest.machine(), sides)
    judge = vectors.get("sentence_transformers", vectors[names[0]])
    neighbours = nearest(judge)
    quality = {}
    for name, own in vectors.items():
        shared = [len(np.intersect1d(a, b)) / len(a) for a, b in zip(nearest(own), neighbours, strict=True)]
        quality[name] = {"cosine": float((own * judge).sum(1).min()), "neighbours": float(np.mean(shared))}
    return {"texts": len(texts), "threads": options.threads, "passes": passes, "quality": quality}


def show(record: dict[str, Any]) -> None:
    columns = ("side", "texts/CPU-s", "recjax is x times (CPU)", "by the clock", "agrees", "neighbours", "peak memory")
    shown = contest.table(
        f"{record['texts']:,} titles, {record['threads']} threads, load {contest.load():.1f}", columns
    )
    ours = record["passes"].get("recjax")
    for name, theirs in record["passes"].items():
        clocks = ("cpu_seconds", "seconds") if ours and name != "recjax" else ()
        cells = [contest.median(contest.ratios(ours, theirs, clock), ".2f") for clock in clocks] or ["", ""]
        shown.add_row(
            name,
            contest.median([p["users"] / p["cpu_seconds"] for p in theirs]),
            *cells,
            f"{record['quality'][name]['cosine']:.6f}",
            f"{record['quality'][name]['neighbours']:.4f}",
            contest.gigabytes(max(p["peak_bytes"] for p in theirs)),
        )
    contest.CONSOLE.print(shown)


def main() -> None:
    parser = contest.arguments(__doc__ or "", SIDES)
    parser.add_argument("--data", default="amazon-beauty-2014")
    parser.add_argument("--encoder", default="all-MiniLM-L6-v2")
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3, help="passes of each side (%(default)s)")
    options = parser.parse_args()
    record = measure(options)
    show(record)
    facts = {"benchmark": "encoding_speed", "machine": contest.machine(), "aim": AIM}
    contest.save(options.out, {**facts, "records": [record]})


if __name__ == "__main__":
    main()
