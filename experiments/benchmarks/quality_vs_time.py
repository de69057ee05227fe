"""Quality against wall time: NDCG@10 of the test split while training, beside RecTools, in one run.

    RECJAX_DATA=... RECJAX_PEERS=... python experiments/benchmarks/quality_vs_time.py --minutes 12 --plot curves.png

The sides take turns: each trains a block of wall time, then hands its ten items a user to one scorer (recjax's metrics,
the whole catalog, history masked), whose time does not count. Training is on all events but the last, which tests; no
side is tuned or stopped by it. The clock of a side is its training time plus, in the column "from the start", all that
happened before its first block: imports, data, compilation, warm-up.
"""

from pathlib import Path
from typing import Any

import contest
import numpy as np

from recjax.evaluate.metrics import MISS, mean_metrics

METRIC = "ndcg@10"


def score(lists: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Metrics of lists of ten: the place of the target, or a miss."""
    hits = lists == targets[:, None]
    ranks = np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, MISS)
    return mean_metrics(ranks)


def measure(options: Any) -> dict[str, Any]:
    with contest.scratch() as folder:
        data = contest.prepare(options.data, folder)
        settings = {
            "events": str(data.events),
            "items": data.items,
            "length": options.length,
            "loss": options.loss,
            "threads": options.threads,
            "heads": options.heads,
            "seed": options.seed,
            "learning_rate": options.learning_rate,
        }
        ours = {"norm": options.norm, "learning_rate": options.ours_learning_rate or options.learning_rate}
        curves: dict[str, list[dict[str, Any]]] = {}
        with contest.sides(options.sides.split(","), settings, folder, options.peers, ours) as sides:
            rounds = max(1, round(options.minutes * 60 / options.seconds))
            for _, side in contest.by_turns(sides, rounds):
                curve = curves.setdefault(side.name, [])
                if curve and curve[-1]["trained"] >= options.minutes * 60:
                    continue
                lists = folder / f"{side.name}.npy"
                block = side.train(options.seconds)
                asked = side.recommend(lists)
                before = curve[-1] if curve else {"trained": 0.0, "targets": 0}
                point = {
                    "trained": before["trained"] + block["seconds"],
                    "targets": before["targets"] + block["targets"],
                    "load": contest.load(),
                    "recommend_seconds": asked["seconds"],
                    **score(np.load(lists, allow_pickle=False), data.targets),
                }
                curve.append(point)
                epochs = point["targets"] / np.minimum(data.lengths - 1, options.length).sum()
                contest.CONSOLE.print(
                    f"{side.name:>14}  {point['trained']:7.1f} s  {epochs:6.2f} epochs  {METRIC} {point[METRIC]:.4f}  "
                    f"load {point['load']:.1f}"
                )
            facts = {side.name: side.facts for side in sides}
            contest.print_machine(contest.machine(), sides)
    return {
        "settings": {key: value for key, value in settings.items() if key != "events"},
        "ours": ours,
        "dataset": {"name": data.name, "fingerprint": data.fingerprint, "users": len(data.targets)},
        "machine": contest.machine(),
        "facts": facts,
        "curves": curves,
    }


def reached(curve: list[dict[str, Any]], goal: float) -> float | None:
    """Seconds of training at which the metric first reaches the goal, between the points around it."""
    before = {"trained": 0.0, METRIC: 0.0}
    for point in curve:
        if point[METRIC] >= goal:
            share = (goal - before[METRIC]) / (point[METRIC] - before[METRIC])
            return before["trained"] + share * (point["trained"] - before["trained"])
        before = point
    return None


def show(record: dict[str, Any], goal: float) -> None:
    curves = record["curves"]
    s, data = record["settings"], record["dataset"]
    title = f"{METRIC} {goal}: {data['name']}, length {s['length']}, loss {s['loss']}, {s['threads']} threads"
    columns = ("side", "trained to it", "recjax x", "from the start", "recjax x", "last", "best", "trained in all")
    shown = contest.table(title, columns)
    times = {side: reached(curve, goal) for side, curve in curves.items()}
    whole = {side: None if t is None else t + record["facts"][side]["ready"] for side, t in times.items()}

    def seconds(value: float | None) -> str:
        return "not reached" if value is None else f"{value:.0f} s"

    def times_faster(of: dict[str, float | None], side: str) -> str:
        ours, theirs = of.get("recjax"), of[side]
        return "" if side == "recjax" or not ours or not theirs else f"{theirs / ours:.2f}"

    for side, curve in curves.items():
        shown.add_row(
            side,
            seconds(times[side]),
            times_faster(times, side),
            seconds(whole[side]),
            times_faster(whole, side),
            f"{curve[-1][METRIC]:.4f}",
            f"{max(point[METRIC] for point in curve):.4f}",
            seconds(curve[-1]["trained"]),
        )
    contest.CONSOLE.print(shown)


def plot(record: dict[str, Any], goal: float, path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for side, curve in record["curves"].items():
        axes.plot([p["trained"] / 60 for p in curve], [p[METRIC] for p in curve], marker=".", label=side)
    axes.axhline(goal, color="grey", linewidth=0.8, linestyle=":")
    axes.set_xlabel("minutes of training")
    axes.set_ylabel(f"{METRIC}, test, full ranking")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = contest.arguments(__doc__ or "", ("recjax", "rectools"))
    parser.add_argument("--data", default="ml-1m")
    parser.add_argument("--length", type=int, default=50)
    parser.add_argument("--loss", default="full", choices=["full", "sampled", "bce"])
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--ours-learning-rate", type=float, help="of recjax alone; default that of all")
    parser.add_argument("--minutes", type=float, default=12.0, help="of training of each side (%(default)s)")
    parser.add_argument("--seconds", type=float, default=30.0, help="of a turn (%(default)s)")
    parser.add_argument("--goal", type=float, default=0.14, help=f"{METRIC} to reach (%(default)s)")
    parser.add_argument("--plot", type=Path, help="draw the curves into this file")
    options = parser.parse_args()
    record = measure(options)
    show(record, options.goal)
    contest.save(options.out, {"benchmark": "quality_vs_time", "records": [record]})
    if options.plot:
        plot(record, options.goal, options.plot)


if __name__ == "__main__":
    main()
