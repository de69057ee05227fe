"""Training speed: real targets a second, beside peers, same network, loss and interactions, by turns in one run.

    RECJAX_DATA=... RECJAX_PEERS=... python experiments/benchmarks/training_speed.py --setting ml-1m

Width 64, two blocks, batches of 128 users (ours: packed rows with as many events), dropout 0.2, Adam. A target is a
position with an item to predict; padding does not count. Ratios are taken round by round, then their median.
"""

from typing import Any

import contest

SETTINGS: dict[str, dict[str, Any]] = {
    "ml-1m": {"data": "ml-1m", "length": 200, "loss": "full"},
    "beauty": {"data": "amazon-beauty-2014", "length": 50, "loss": "full"},
    "bce": {"data": "ml-1m", "length": 200, "loss": "bce"},
    "ml-1m-50": {"data": "ml-1m", "length": 50, "loss": "full"},
    "beauty-sampled": {"data": "amazon-beauty-2014", "length": 50, "loss": "sampled"},
}
GOALS = {
    ("ml-1m", "rectools"): 4.0,
    ("ml-1m", "torch"): 2.0,
    ("beauty", "torch"): 5.0,
    ("bce", "torch"): 1.2,
}
"""Ratios to reach."""


def measure(name: str, options: Any) -> dict[str, Any]:
    """Blocks of every side, round by round."""
    chosen = dict(SETTINGS[name])
    if options.data:
        chosen["data"] = options.data
    with contest.scratch() as folder:
        data = contest.prepare(chosen.pop("data"), folder)
        settings = {
            "events": str(data.events),
            "items": data.items,
            "threads": options.threads,
            "heads": options.heads,
            "norm": options.norm,
            "seed": options.seed,
            "batch": options.batch,
            **chosen,
        }
        blocks: dict[str, list[dict[str, Any]]] = {}
        loads = []
        with contest.sides(options.sides.split(","), settings, folder, options.peers) as sides:
            for side in sides:  # once for nothing: caches, and the processor's clock
                side.train(min(options.seconds, 2.0))
            for _, side in contest.by_turns(sides, options.rounds):
                loads.append(contest.load())
                blocks.setdefault(side.name, []).append(side.train(options.seconds))
            facts = {side.name: side.facts for side in sides}
            contest.print_machine(contest.machine(), sides)
    return {
        "setting": name,
        "settings": {key: value for key, value in settings.items() if key != "events"},
        "dataset": {"name": data.name, "fingerprint": data.fingerprint, "users": len(data.targets)},
        "machine": contest.machine(),
        "load": [min(loads), max(loads)],
        "facts": facts,
        "blocks": blocks,
    }


def show(record: dict[str, Any]) -> None:
    s, blocks, name = record["settings"], record["blocks"], record["setting"]
    title = (
        f"{name}: {record['dataset']['name']}, {s['items']:,} items, length {s['length']}, loss {s['loss']}, "
        f"batch {s['batch']}, {s['threads']} threads, load {record['load'][0]:.1f}-{record['load'][1]:.1f}"
    )
    columns = ("side", "targets/s", "recjax is x times", "goal", "targets/CPU-s", "padding", "peak memory", "ready")
    rates = {n: [b["targets"] / b["seconds"] for b in of] for n, of in blocks.items()}
    ours = rates.get("recjax")
    shown = contest.table(title, columns)
    for side, of in blocks.items():
        ratios = [a / b for a, b in zip(ours, rates[side], strict=True)] if ours and side != "recjax" else []
        goal = GOALS.get((name, side))
        shown.add_row(
            side,
            contest.median(rates[side]),
            contest.median(ratios, ".2f") if ratios else "",
            f"{goal}" if goal else "",
            contest.median([b["targets"] / max(b["cpu_seconds"], 1e-9) for b in of]),
            f"{1 - sum(b['targets'] for b in of) / sum(b['positions'] for b in of):.1%}",
            contest.gigabytes(max(b["peak_bytes"] for b in of)),
            f"{record['facts'][side]['ready']:.1f} s",
        )
    contest.CONSOLE.print(shown)
    if ours:
        waited, whole = (sum(b[key] for b in blocks["recjax"]) for key in ("waited", "seconds"))
        compiled = record["facts"]["recjax"]["compile_seconds"]
        line = f"recjax: compiled the step in {compiled:.1f} s; waited for data {waited / whole:.2%} of the time"
        contest.CONSOLE.print(line)


def main() -> None:
    parser = contest.arguments(__doc__ or "", ("recjax", "torch", "torch-compact", "rectools", "replay"))
    parser.add_argument("--setting", default="ml-1m", choices=[*SETTINGS, "all"])
    parser.add_argument("--data", help="another dataset under the same setting")
    parser.add_argument("--batch", type=int, default=128, help="users of a padded batch (%(default)s)")
    parser.add_argument("--seconds", type=float, default=15.0, help="of a turn (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side (%(default)s)")
    options = parser.parse_args()
    records = []
    for name in ("ml-1m", "beauty", "bce") if options.setting == "all" else (options.setting,):
        records.append(measure(name, options))
        show(records[-1])
        contest.save(options.out, {"benchmark": "training_speed", "records": records})


if __name__ == "__main__":
    main()
