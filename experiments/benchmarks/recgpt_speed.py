"""Training speed of RecGPT's published network: packed rows in recjax, padded ones in plain PyTorch, by turns.

    RECJAX_DATA=... RECJAX_PEERS=... python experiments/benchmarks/recgpt_speed.py --width 192 --batch 4

Both sides: three GPT-2 blocks over four code tokens an item and 256 items a row, 15,361 tokens, full cross-entropy,
dropout 0.1, AdamW, as many rows a step. The published training pads every history to a row of its own; recjax packs
several into one. An interaction is a position with a next item to predict. Codes and vectors are random: what they say
costs nothing. The published width is 768; the one given is that of both sides.
"""

from typing import Any

import contest
import numpy as np

SLOTS, VOCABULARY, LENGTH = 4, 15_361, 256
GOAL = 10.0
"""Ratio to reach."""


def measure(options: Any) -> dict[str, Any]:
    """Blocks of both sides, round by round."""
    with contest.scratch() as folder:
        data = contest.prepare(options.data, folder)
        random = np.random.default_rng(options.seed)
        codes = random.integers(0, VOCABULARY - 1, (data.items + 1, SLOTS)).astype(np.int32)
        vectors = random.standard_normal((data.items + 1, options.vectors), np.float32)
        np.savez(folder / "table.npz", codes=codes, vectors=vectors)
        settings = {
            "events": str(data.events),
            "table": str(folder / "table.npz"),
            "items": data.items,
            "length": LENGTH,
            "vocabulary": VOCABULARY,
            "width": options.width,
            "layers": 3,
            "heads": options.heads,
            "dropout": 0.1,
            "learning_rate": 1e-4,
            "batch": options.batch,
            "threads": options.threads,
            "seed": options.seed,
            "warmup": 2,
        }
        blocks: dict[str, list[dict[str, Any]]] = {}
        loads = []
        with contest.sides(options.sides.split(","), settings, folder, options.peers, system="recgpt") as sides:
            for _, side in contest.by_turns(sides, options.rounds):
                loads.append(contest.load())
                blocks.setdefault(side.name, []).append(side.train(options.seconds))
            facts = {side.name: side.facts for side in sides}
            contest.print_machine(contest.machine(), sides)
    shown = {key: value for key, value in settings.items() if key not in ("events", "table")}
    return {
        "benchmark": "recgpt_speed",
        "settings": shown,
        "dataset": {"name": data.name, "fingerprint": data.fingerprint, "users": len(data.targets)},
        "machine": contest.machine(),
        "load": [min(loads), max(loads)],
        "facts": facts,
        "blocks": blocks,
    }


def show(record: dict[str, Any]) -> None:
    s, blocks = record["settings"], record["blocks"]
    title = (
        f"RecGPT as published, {record['dataset']['name']}, width {s['width']}, {s['batch']} rows of {s['length']} x "
        f"{SLOTS} tokens, {s['threads']} threads, load {record['load'][0]:.1f}-{record['load'][1]:.1f}"
    )
    columns = ("side", "interactions/s", "recjax is x times", "goal", "interactions/CPU-s", "padding", "peak memory")
    rates = {name: [b["targets"] / b["seconds"] for b in of] for name, of in blocks.items()}
    ours, shown = rates.get("recjax"), contest.table(title, columns)
    for side, of in blocks.items():
        ratios = [a / b for a, b in zip(ours, rates[side], strict=True)] if ours and side != "recjax" else []
        shown.add_row(
            side,
            contest.median(rates[side], ",.1f"),
            contest.median(ratios, ".1f") if ratios else "",
            f"{GOAL:g}" if ratios else "",
            contest.median([b["targets"] / max(b["cpu_seconds"], 1e-9) for b in of], ",.1f"),
            f"{1 - sum(b['targets'] for b in of) / sum(b['positions'] for b in of):.1%}",
            contest.gigabytes(max(b["peak_bytes"] for b in of)),
        )
    contest.CONSOLE.print(shown)


def main() -> None:
    parser = contest.arguments(__doc__ or "", ("recjax", "torch"))
    parser.set_defaults(heads=12)
    parser.add_argument("--data", default="amazon-beauty-2014")
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--vectors", type=int, default=768, help="coordinates of a text vector (%(default)s)")
    parser.add_argument("--batch", type=int, default=40, help="rows of a step (%(default)s)")
    parser.add_argument("--seconds", type=float, default=15.0, help="of a turn, at least one step (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side (%(default)s)")
    options = parser.parse_args()
    record = measure(options)
    show(record)
    contest.save(options.out, record)


if __name__ == "__main__":
    main()
