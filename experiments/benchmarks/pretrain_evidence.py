"""Learns the weights of the evidence model that come with recjax, on catalogs that no report is about.

    RECJAX_DATA=FOLDER python experiments/benchmarks/pretrain_evidence.py
    RECJAX_DATA=FOLDER python experiments/benchmarks/pretrain_evidence.py --shuffled --out shuffled

Each training catalog is seen at several stages: with the logs of all, a third, a tenth and a hundredth of its users,
and with half of its texts. How far the weights may move from the untrained ones, if at all, is chosen on the validation
part of three other catalogs. Written are the weights, and beside them how they came to be.
"""

import argparse
import hashlib
import json
import subprocess
import time
from pathlib import Path

import numpy as np

from recjax import array_files
from recjax.data.batches.loader import open_data
from recjax.models.evidence import DEPENDS, FEATURES
from recjax.train.evidence import Questions, counted, learn, questions, selected
from recjax.train.pretrained import WEIGHTS, evidence_config, untrained

TRAIN = (
    "amazon-health-2014",
    "amazon-books-2014",
    "amazon-clothing-2014",
    "amazon-electronics-2014",
    "amazon-kitchen-cdsr",
    "amazon-grocery-cdsr",
    "amazon-movies-cdsr",
    "amazon-phones-2014",
    "ml-1m",
    "lastfm",
    "online-retail",
    "complete-journey",
)
SELECT = ("amazon-toys-2014", "amazon-office-cdsr", "movietweetings-100k")
STAGES = ((1.0, 0.0), (1.0, 0.5), (0.3, 0.0), (0.1, 0.0), (0.01, 0.0))
"""Share of the users whose logs are counted, and of the items without texts."""

SELECT_STAGES = ((1.0, 0.0), (0.1, 0.0))
STRENGTHS = (1e-4, 1e-3, 1e-2)
"""Of the pull to the untrained weights."""


def asked(name: str, users: int, shuffled: bool) -> list[Questions]:
    """A training catalog at all stages."""
    config = evidence_config(name)
    dataset, split = open_data(config.data)
    found = []
    for share, textless in STAGES:
        stage = counted(config, dataset, split, split.test, share=share, textless=textless, users=users)
        found.append(questions(stage, shuffled=shuffled))
        kept = len(found[-1].weight)
        print(f"{name}, logs of {share:.0%}, {textless:.0%} without texts: {kept:,} targets linked", flush=True)
    return found


def commit() -> str:
    """The repository's, marked where files differ from it."""
    found = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=1000, help="examples of a catalog at a stage (default 1000)")
    parser.add_argument("--select-users", type=int, default=3000, help="of a catalog to select on (default 3000)")
    parser.add_argument("--shuffled", action="store_true", help="shuffle the targets: nothing must be learned")
    parser.add_argument("--out", type=Path, default=WEIGHTS.parent, help="folder to write to (default the package's)")
    options = parser.parse_args()
    begun = time.perf_counter()

    parts = [part for name in TRAIN for part in asked(name, options.users, options.shuffled)]
    tried = {l2: learn(parts, untrained(), l2) for l2 in STRENGTHS}
    stages = []
    for name in SELECT:
        config = evidence_config(name)
        dataset, split = open_data(config.data)
        for share, textless in SELECT_STAGES:
            stages.append(
                counted(
                    config, dataset, split, split.validation, share=share, textless=textless, users=options.select_users
                )
            )
    (l2, weights), table = selected(tried, untrained(), stages)
    for name, (gain, error) in table.items():
        print(f"l2 {name:g}: ndcg@10 {gain:+.4f} ± {error:.4f} over the untrained weights")

    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / WEIGHTS.name
    gate = np.asarray(weights["gate"], np.float32)
    array_files.write(path, {"gate": gate})
    record = {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "command": "python experiments/benchmarks/pretrain_evidence.py",
        "commit": commit(),
        "options": {key: value for key, value in vars(options).items() if key != "out"},
        "trained_on": TRAIN,
        "selected_on": [f"validation of {name}" for name in SELECT],
        "l2": l2,
        "gain_where_selected": {
            f"{name:g}": {"ndcg@10": gain, "error": error} for name, (gain, error) in table.items()
        },
        "weights": {
            depends: dict(zip(FEATURES, row.round(4).tolist(), strict=True))
            for depends, row in zip(DEPENDS, gate, strict=True)
        },
        "seconds": round(time.perf_counter() - begun),
    }
    path.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
    print(f"{path}: sha256 {record['sha256']}, l2 {l2}")


if __name__ == "__main__":
    main()
