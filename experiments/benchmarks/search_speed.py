"""Exact lists of unseen items, and ranks, given vectors: recjax beside faiss, by turns.

    RECJAX_PEERS=... python experiments/benchmarks/search_speed.py

Normal vectors of width 64, 64 seen items a user, top 20; faiss (`IndexFlatIP`) searches for 84, of which 20 are unseen
whatever a user has seen, and what takes them out is not counted. faiss knows no rank of an item: ours is compared with
its lists. The lists of both sides are compared before anything is timed.
"""

from pathlib import Path
from typing import Any

import contest
import numpy as np

SIZES = {12_101: 4_096, 100_000: 1_024, 1_000_000: 256}
"""Items -> users of a pass."""

WIDTH, SEEN, K, AIM = 64, 64, 20, 1.2


def inputs(items: int, path: Path) -> None:
    rng = np.random.default_rng(0)
    users = SIZES.get(items, 256)
    np.savez(
        path,
        users=rng.standard_normal((users, WIDTH), np.float32),
        items=rng.standard_normal((items, WIDTH), np.float32),
        seen=rng.integers(1, items + 1, (users, SEEN), np.int32),
        targets=rng.integers(1, items + 1, users, np.int32),
    )


def measure(items: int, what: str, options: Any) -> dict[str, Any]:
    with contest.scratch() as folder:
        inputs(items, folder / "arrays.npz")
        settings = {"arrays": str(folder / "arrays.npz"), "k": K, "what": what, "threads": options.threads}
        passes: dict[str, list[dict[str, Any]]] = {}
        with contest.sides(["recjax", "faiss"], settings, folder, options.peers, system="search") as sides:
            for side in sides:
                side.recommend(folder / f"{side.name}.npy")
            ours, theirs = (np.load(folder / f"{side.name}.npy", allow_pickle=False) for side in sides)
            for _, side in contest.by_turns(sides, options.rounds):
                passes.setdefault(side.name, []).append(side.recommend())
            facts = sides[0].facts
    return {
        "items": items,
        "what": what,
        "threads": options.threads,
        "same": float((ours == theirs).mean()) if what == "top 20" else None,
        "temporary_bytes": facts["temporary_bytes"],
        "passes": passes,
        "load": contest.load(),
    }


def show(records: list[dict[str, Any]]) -> None:
    columns = (
        "items",
        "what",
        "recjax users/CPU-s",
        "faiss",
        "x by CPU-s",
        "x by the clock",
        "same",
        "temporary",
        "peak",
    )
    shown = contest.table(f"aim: {AIM} times faiss", columns)
    for record in records:
        ours, theirs = (record["passes"][name] for name in ("recjax", "faiss"))
        rates = [[p["users"] / p["cpu_seconds"] for p in side] for side in (ours, theirs)]
        shown.add_row(
            f"{record['items']:,}",
            record["what"],
            *(contest.median(rate) for rate in rates),
            *(contest.median(contest.ratios(ours, theirs, clock), ".2f") for clock in ("cpu_seconds", "seconds")),
            "" if record["same"] is None else f"{record['same']:.4%}",
            contest.gigabytes(record["temporary_bytes"]),
            contest.gigabytes(max(p["peak_bytes"] for p in ours)),
        )
    contest.CONSOLE.print(shown)


def main() -> None:
    parser = contest.arguments(__doc__ or "", ("recjax", "faiss"))
    parser.add_argument("--items", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=5, help="passes of each side (%(default)s)")
    options = parser.parse_args()
    machine = contest.machine()
    contest.print_machine(machine)
    records = [measure(items, what, options) for items in options.items for what in ("top 20", "rank")]
    show(records)
    contest.save(options.out, {"benchmark": "search_speed", "machine": machine, "aim": AIM, "records": records})


if __name__ == "__main__":
    main()
