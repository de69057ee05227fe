"""Training speed of three systems beside their authors' own code, same sizes and interactions, by turns in one run.

    RECJAX_DATA=... RECJAX_PEERS=... python experiments/benchmarks/official_speed.py --case icsrec

The authors' code is PyTorch: their model, loss, data set, collation and optimiser, by their own epoch where they have
one. None of it is in this repository. Lay it into $RECJAX_PEERS/official, at the commits of `CODE`, as

    icsrec  github.com/QinHsiu/ICSRec    sracl  github.com/ziqiangcui/SRA-CL    letter  github.com/HonghuiBao2000/LETTER

and make its environment with `peers/setup.sh FOLDER authors`. A target is one item to predict: the authors make a row
of each prefix of a history, with one target. recjax does so too ("prefixes": the same samples), and where the system
allows it takes all targets of a history in one row ("histories"). Ratios are taken round by round, then their median.
What is prepared before an epoch, such as clusters and neighbours, is in no side's time.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import contest
import numpy as np

from recjax.data.store.prepared import find

CODE = {
    "icsrec": "3c8958fa76aa57278778f8e82e8c7f983a4a1346",
    "sracl": "301353d9f72e1ec232e64af28a68ac289d86daae",
    "letter": "8d0154e28de37dbb6e24871c508ad8ddb1921cda",
}
"""Commits of the authors' code."""

GOAL = 3.0
"""Ratio to reach, by processor time."""


@dataclass(frozen=True)
class Case:
    """Two sides, the sizes that they share, and recjax's forms.

    Attributes:
        peer: the authors' side.
        recipe: of recjax.
        data: dataset.
        sizes: that both sides have, and what the authors' side is told besides.
        forms: recjax's sides: view and settings by name; {rows} stands for the rows with the samples of a batch.
        set: settings of the recipe for all forms.
    """

    peer: str
    recipe: str
    data: str
    sizes: dict[str, Any]
    forms: dict[str, dict[str, Any]]
    set: dict[str, str]


ENCODER = {"width": 64, "layers": 2, "heads": 2, "dropout": 0.5, "batch": 256, "learning_rate": 1e-3}
T5 = {"width": 128, "layers": 4, "heads": 6, "channels": 64, "inner": 1024, "dropout": 0.1, "learning_rate": 5e-4}
SMALL = {"width": 64, "layers": 2, "heads": 4, "channels": 16, "inner": 256}
TIGER_FORMS = {
    "prefixes": {"view": "prefixes", "set": {"model.causal": "false", "data.pack": "false"}},
    "histories": {"view": "histories", "set": {"model.causal": "true", "data.pack": "true", "data.rows": "{rows}"}},
}
CODES = {"tokenizer.steps": "20"}
ICSREC_FORMS = {
    "prefixes": {"view": "icsrec prefixes", "set": {}},
    "histories": {"view": "icsrec histories", "set": {}},
}
CASES = {
    "icsrec": Case(
        "icsrec",
        "icsrec_beauty",
        "amazon-beauty-2014",
        {**ENCODER, "length": 20, "clusters": 256},
        ICSREC_FORMS,
        {"model.clusters": "256"},
    ),
    "sracl": Case(
        "sracl",
        "sracl_toys",
        "amazon-toys-2014",
        {**ENCODER, "length": 20, "neighbours": 10},
        {"prefixes": {"view": "sracl prefixes", "set": {}}},
        {"text.channels.0.encoder.width": "1024", "model.neighbours": "10"},
    ),
    "tiger": Case(
        "letter", "tiger_beauty", "amazon-beauty-2014", {**T5, **SMALL, "length": 10, "batch": 256}, TIGER_FORMS, CODES
    ),
    "tiger-published": Case(
        "letter", "tiger_beauty", "amazon-beauty-2014", {**T5, "length": 20, "batch": 256}, TIGER_FORMS, CODES
    ),
}


def written(name: str, folder: Path) -> dict[str, Any]:
    """Facts of a dataset, and a csv of all events for the authors' side; all sides leave out a user's last two."""
    dataset = find(name)
    lengths = np.diff(dataset.offsets)
    if lengths.min() < 4:
        raise SystemExit(f"{name} has users with fewer than 4 events, which the authors' code does not expect")
    rows = np.arange(dataset.n_interactions)
    columns = np.stack([np.repeat(np.arange(len(lengths)), lengths), dataset.items, rows], axis=1)
    np.savetxt(folder / "events.csv", columns, fmt="%d", delimiter=",", header="user,item,timestamp", comments="")
    return {
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "items": dataset.n_items,
        "users": len(lengths),
    }


def measure(name: str, options: Any) -> dict[str, Any]:
    """Blocks of every side, round by round."""
    case = CASES[name]
    sizes = {**case.sizes, **{key: getattr(options, key) for key in ("length", "batch") if getattr(options, key)}}
    with contest.scratch() as folder:
        facts = written(options.data or case.data, folder)
        settings = {
            **sizes,
            "events": str(folder / "events.csv"),
            "items": facts["items"],
            "code": str(options.peers / "official"),
            "recipe": case.recipe,
            "data": facts["name"],
            "forms": forms(case, sizes),
            "threads": options.threads,
            "seed": options.seed,
            "warmup": options.warmup,
        }
        names = [f"recjax-{form}" for form in case.forms] + [case.peer]
        chosen = [side for side in names if options.sides in ("", "all") or side in options.sides.split(",")]
        blocks: dict[str, list[dict[str, Any]]] = {}
        loads = []
        with contest.sides(chosen, settings, folder, options.peers, system="official") as sides:
            for _, side in contest.by_turns(sides, options.rounds):
                loads.append(contest.load())
                blocks.setdefault(side.name, []).append(side.train(options.seconds))
            found = {side.name: side.facts for side in sides}
            contest.print_machine(contest.machine(), sides)
    return {
        "case": name,
        "peer": case.peer,
        "code": CODE[case.peer],
        "settings": {key: value for key, value in settings.items() if key not in ("events", "code")},
        "dataset": facts,
        "machine": contest.machine(),
        "load": [min(loads), max(loads)],
        "facts": found,
        "blocks": blocks,
    }


def forms(case: Case, sizes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """recjax's forms at these sizes."""
    own = ("width", "layers", "heads", "channels", "inner", "dropout")
    shared = {f"model.{key}": str(sizes[key]) for key in own if key in sizes}
    if case.peer != "letter":  # TIGER has relative positions
        shared["model.max_length"] = str(sizes["length"])
    shared |= {"optim.learning_rate": str(sizes["learning_rate"]), "data.rows": str(sizes["batch"]), **case.set}
    rows = str(max(1, round(sizes["batch"] / sizes["length"])))  # packed rows are nearly full
    return {
        name: {
            "view": form["view"],
            "set": {**shared, **{k: v.replace("{rows}", rows) for k, v in form["set"].items()}},
        }
        for name, form in case.forms.items()
    }


def show(record: dict[str, Any]) -> None:
    s, blocks, peer = record["settings"], record["blocks"], record["peer"]
    title = (
        f"{record['case']}: {record['dataset']['name']}, {s['items']:,} items, width {s['width']}, "
        f"{s['layers']} layers, length {s['length']}, batch {s['batch']}, {s['threads']} threads, "
        f"load {record['load'][0]:.1f}-{record['load'][1]:.1f}"
    )
    columns = (
        "side",
        "targets/CPU-s",
        "recjax is x times",
        "goal",
        "by the clock",
        "targets/s",
        "a step",
        "waited",
        "peak",
    )
    shown = contest.table(title, columns)
    for side, of in blocks.items():
        ours = side != peer and peer in blocks
        steps, seconds = sum(b["steps"] for b in of), sum(b["seconds"] for b in of)
        shown.add_row(
            side,
            contest.median([b["targets"] / max(b["cpu_seconds"], 1e-9) for b in of]),
            contest.median(speedups(of, blocks[peer], "cpu_seconds"), ".2f") if ours else "",
            f"{GOAL:g}" if ours else "",
            contest.median(speedups(of, blocks[peer], "seconds"), ".2f") if ours else "",
            contest.median([b["targets"] / b["seconds"] for b in of]),
            f"{sum(b['targets'] for b in of) / max(steps, 1):,.0f} targets",
            f"{sum(b['waited'] for b in of) / seconds:.1%}",
            contest.gigabytes(max(b["peak_bytes"] for b in of)),
        )
    contest.CONSOLE.print(shown)


def speedups(ours: list[dict[str, Any]], theirs: list[dict[str, Any]], clock: str) -> list[float]:
    """Round by round, how many times as many targets a second recjax trains."""
    rates = [[b["targets"] / max(b[clock], 1e-9) for b in of] for of in (ours, theirs)]
    return [a / b for a, b in zip(*rates, strict=True)]


def main() -> None:
    parser = contest.arguments(__doc__ or "", ())
    parser.add_argument("--case", default="all", choices=[*CASES, "all"])
    parser.add_argument("--data", help="another dataset")
    parser.add_argument("--length", type=int, help="instead of the case's own")
    parser.add_argument("--batch", type=int, help="instead of the case's own")
    parser.add_argument("--warmup", type=int, default=3, help="steps before the first turn (%(default)s)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of a turn, at least one step (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side (%(default)s)")
    options = parser.parse_args()
    records = []
    for name in CASES if options.case == "all" else (options.case,):
        records.append(measure(name, options))
        show(records[-1])
        contest.save(options.out, {"benchmark": "official_speed", "records": records})


if __name__ == "__main__":
    main()
