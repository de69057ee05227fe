"""Evaluation end to end: users a second from histories in memory to ten unseen items of the whole catalog each.

    RECJAX_DATA=... RECJAX_PEERS=... python experiments/benchmarks/evaluation_speed.py

Every side encodes all test histories, scores every item, takes out what the user has seen and returns ten items a user,
with its own public entry: RecTools `recommend`, RePlay `predict` with its filter of seen items. recjax ranks the
held-out item besides, as `recjax evaluate` does. Models are trained for a few steps only: the time does not depend on
it. The first pass is discarded (compilation); what it took is shown.
"""

from typing import Any

import contest

GOALS = {"rectools": 2.0, "replay": 2.0}


def measure(options: Any) -> dict[str, Any]:
    with contest.scratch() as folder:
        data = contest.prepare(options.data, folder)
        settings = {
            "events": str(data.events),
            "items": data.items,
            "length": options.length,
            "threads": options.threads,
            "heads": options.heads,
            "norm": options.norm,
            "seed": options.seed,
        }
        passes: dict[str, list[dict[str, Any]]] = {}
        first, loads = {}, []
        with contest.sides(options.sides.split(","), settings, folder, options.peers) as sides:
            for side in sides:
                first[side.name] = side.recommend()
            for _, side in contest.by_turns(sides, options.rounds):
                loads.append(contest.load())
                passes.setdefault(side.name, []).append(side.recommend())
            contest.print_machine(contest.machine(), sides)
    return {
        "settings": {key: value for key, value in settings.items() if key != "events"},
        "dataset": {"name": data.name, "fingerprint": data.fingerprint, "users": len(data.targets)},
        "machine": contest.machine(),
        "load": [min(loads), max(loads)],
        "first": first,
        "passes": passes,
    }


def show(record: dict[str, Any]) -> None:
    s, passes, data = record["settings"], record["passes"], record["dataset"]
    title = (
        f"{data['name']}, {data['users']:,} users, {s['items']:,} items, length {s['length']}, {s['threads']} threads, "
        f"load {record['load'][0]:.1f}-{record['load'][1]:.1f}"
    )
    columns = ("side", "users/s", "recjax is x times", "goal", "users/CPU-s", "first pass", "peak memory")
    rates = {side: [p["users"] / p["seconds"] for p in of] for side, of in passes.items()}
    ours = rates.get("recjax")
    shown = contest.table(title, columns)
    for side, of in passes.items():
        ratios = [a / b for a, b in zip(ours, rates[side], strict=True)] if ours and side != "recjax" else []
        shown.add_row(
            side,
            contest.median(rates[side]),
            contest.median(ratios, ".2f") if ratios else "",
            str(GOALS.get(side, "")),
            contest.median([p["users"] / max(p["cpu_seconds"], 1e-9) for p in of]),
            f"{record['first'][side]['seconds']:.1f} s",
            contest.gigabytes(max(p["peak_bytes"] for p in of)),
        )
    contest.CONSOLE.print(shown)


def main() -> None:
    parser = contest.arguments(__doc__ or "", ("recjax", "torch", "rectools", "replay"))
    parser.add_argument("--data", default="ml-1m")
    parser.add_argument("--length", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5, help="passes of each side (%(default)s)")
    options = parser.parse_args()
    record = measure(options)
    show(record)
    contest.save(options.out, {"benchmark": "evaluation_speed", "records": [record]})


if __name__ == "__main__":
    main()
