"""Quality of the evidence model as a catalog's logs grow, beside what it is made of.

    RECJAX_DATA=FOLDER python experiments/benchmarks/evidence_curve.py --out docs/evidence
    RECJAX_DATA=FOLDER python experiments/benchmarks/evidence_curve.py --datasets amazon-toys-2014 --shares 1 --time
    RECJAX_DATA=FOLDER python experiments/benchmarks/evidence_curve.py --shares 0 --encoder all-MiniLM-L6-v2

Rows: `pretrained`, the shipped weights; `hand`, the same model untrained: the posterior with k = 32, the same texts and
counts; and the floors text_transition (the formula, by words alone), transition (counts) and text_knn. Full ranking,
histories masked, one target a user, counts of training events alone, of a share of the users. ndcg@10, and paired
differences with their standard error over users. `--encoder` adds `encoder`, the same model with texts read by that
sentence encoder, and `encoder_knn`, neighbours in its whitened vectors of "title. categories". Written are OUT.json, a
table OUT.md and, where there are several shares, the curves OUT.png.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from text_floor import text_vectors

from recjax.data.batches.loader import open_data
from recjax.data.dataset import Dataset
from recjax.data.splits import GlobalTime
from recjax.evaluate.evaluator import sampled
from recjax.evaluate.floors import rank_floors
from recjax.evaluate.host_ranking import Rules
from recjax.evaluate.metrics import user_metrics
from recjax.train.evidence import METRIC, at_share, counted
from recjax.train.pretrained import evidence_config, untrained, weights

REPORT = ("amazon-beauty-2014", "amazon-toys-2014", "amazon-arts-cdsr", "microlens-50k")
SYSTEMS = ("pretrained", "hand", "text_transition", "transition", "text_knn")
LARGER = ("encoder", "encoder_knn")
RIVALS = ("hand", "text_transition", "encoder_knn")
CURVES = {
    "pretrained": ("pretrained", "C3o-"),
    "hand": ("pretrained, untrained", "C1s--"),
    "text_transition": ("formula set by hand", "C0^--"),
    "transition": ("counts", "C2v:"),
    "text_knn": ("text", "C7d:"),
}
"""Label and style of each system's curve."""

Row = dict[str, Any]


def without_order_of_a_day(dataset: Dataset) -> Dataset:
    """The dataset with the events of each user's days in a random order: what a log of days can be trusted with."""
    users = np.repeat(np.arange(dataset.n_users), np.diff(dataset.offsets))
    days = np.asarray(dataset.timestamps) // 86_400
    order = np.lexsort((np.random.default_rng(0).random(len(users)), days, users))
    fingerprint = f"{dataset.fingerprint} days shuffled"
    return replace(dataset, items=np.asarray(dataset.items)[order], fingerprint=fingerprint)


def measured(
    name: str, share: float, users: int | None, by_time: bool, encoder: str | None = None, shuffled: bool = False
) -> Row:
    """Figures of one catalog at one share of its users."""
    config = evidence_config(name)
    data = replace(config.data, split=GlobalTime()) if by_time else config.data
    dataset, split = open_data(data)
    if shuffled:
        dataset = without_order_of_a_day(dataset)
        split = data.split.split(dataset)
    asked = sampled(split.test, users)
    catalog = counted(config, dataset, split, asked, share=share)
    values = {"pretrained": catalog.ndcg(weights()), "hand": catalog.ndcg(untrained())}
    few = at_share(split, share)
    floors = rank_floors(dataset, few, "test", asked, Rules(k=0), only=("text_transition", "transition", "text_knn"))
    if encoder is not None:
        larger = replace(evidence_config(name, encoder), data=data)
        values["encoder"] = counted(larger, dataset, split, asked, share=share).ndcg(weights())
        vectors = text_vectors(encoder, dataset)
        found = rank_floors(dataset, few, "test", asked, Rules(k=0), vectors=vectors, only=("text_knn",))
        floors["encoder_knn"] = found["text_knn"]
    for floor, ranked in floors.items():
        values[floor] = np.zeros(len(asked)) if ranked is None else user_metrics(ranked.ranks)[METRIC]
    gain = {system: values["pretrained"] - found for system, found in values.items() if system != "pretrained"}
    return {
        "dataset": name,
        "split": split.name + (", days shuffled" if shuffled else ""),
        "share": share,
        "users": len(asked),
        METRIC: {system: float(found.mean()) for system, found in values.items()},
        "error": float(values["pretrained"].std() / np.sqrt(len(asked))),
        "gain": {system: (float(x.mean()), float(x.std() / np.sqrt(len(x)))) for system, x in gain.items()},
    }


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    systems = [*SYSTEMS, *(system for system in LARGER if system in rows[0][METRIC])]
    rivals = [rival for rival in RIVALS if rival in systems]
    lines = [
        f"| catalog | users in context | asked | {' | '.join(systems)} | over {' | over '.join(rivals)} |",
        "|---|---|---|" + "---|" * (len(systems) + len(rivals)),
    ]
    for row in rows:
        figures = " | ".join(f"{row[METRIC][system]:.4f}".lstrip("0") for system in systems)
        gains = " | ".join("{:+.4f} ± {:.4f}".format(*row["gain"][rival]) for rival in rivals)
        where = f"{row['dataset']}{', in time' if row['split'].startswith('global') else ''}"
        where += ", days shuffled" if row["split"].endswith("shuffled") else ""
        lines.append(f"| {where} | {row['share']:.0%} | {row['users']:,} | {figures} | {gains} |")
    return "\n".join(lines) + "\n"


def draw(rows: list[Row], path: Path) -> None:
    """A picture of the curves, a panel a catalog; the share 0 stands apart at the left."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["dataset"] for row in rows))
    figure = Figure(figsize=(4.2 * len(names), 3.6), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(names)))
    for axis, name in zip(axes, names, strict=True):
        own = sorted((row for row in rows if row["dataset"] == name), key=lambda row: row["share"])
        places = range(len(own))
        for system, (label, style) in CURVES.items():
            axis.plot(places, [row[METRIC][system] for row in own], style, label=label, markersize=4)
        axis.set_xticks(list(places), [f"{row['share']:.0%}" for row in own])
        axis.set(title=name, xlabel="users whose logs are in context", ylim=(0, None))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("ndcg@10, leave-one-out, full ranking")
    axes[0].legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", default=REPORT)
    parser.add_argument("--shares", nargs="+", type=float, default=(0.0, 0.01, 0.03, 0.1, 0.3, 1.0))
    parser.add_argument("--users", type=int, help="ask so many, a fixed sample (default all)")
    parser.add_argument("--time", action="store_true", help="split at a time, the same for all users")
    parser.add_argument("--shuffle-days", action="store_true", help="put the events of a user's day in a random order")
    parser.add_argument("--encoder", help="folder or name of a sentence encoder, for its two rows")
    parser.add_argument("--out", type=Path, required=True, help="path of the files, without an ending")
    options = parser.parse_args()
    rows = []
    for name in options.datasets:
        for share in options.shares:
            given = (options.users, options.time, options.encoder, options.shuffle_days)
            rows.append(measured(name, share, *given))
            print(table(rows[-1:]).splitlines()[-1], flush=True)
    options.out.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    options.out.with_suffix(".md").write_text(table(rows))
    if len(options.shares) > 1:
        draw(rows, options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
