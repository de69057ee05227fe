"""Single flipped bits in every kind of file that recjax keeps: refused, made again, harmless, or used silently.

    python experiments/benchmarks/attack_flips.py
    python experiments/benchmarks/attack_flips.py --flips 4 --files config.json,tokenizer.safetensors

A small run of RecGPT with item features is trained, then one bit at a time is flipped, at places drawn by a fixed seed,
in each file of its folder, of the caches of vectors and features, and of its prepared dataset; each time whatever reads
the file is called. A flip is `refused` (one message), `passed over` (another checkpoint is used, and said), `remade` or
`harmless` (the same arrays come out), or a fault: `silent` (other arrays and no word) or `traceback`. The exit status
is 1 where there are faults. States of users have a test of their own (`tests/evaluate/test_stream_files.py`).
"""

import argparse
import hashlib
import logging
import os
import random
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

OUTCOMES = ("refused", "passed over", "remade", "harmless", "silent", "traceback")
Reader = Callable[[], bytes]


def digest(tree: Any) -> bytes:
    """SHA-256 of arrays, types and shapes."""
    import jax
    import numpy as np

    content = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(tree):
        array = np.asarray(leaf)
        content.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode() + array.tobytes())
    return content.digest()


def trained(folder: Path) -> dict[Path, Reader]:
    """Trains the run; each file with what reads it and gives the digest of all that came out."""
    from recjax.config import RunConfig
    from recjax.data.batches.loader import Data
    from recjax.data.batches.views import Shifted
    from recjax.data.embedded.synthetic import synthetic
    from recjax.data.features.columns import Attribute
    from recjax.data.features.relations import Neighbours
    from recjax.data.store.prepared import find, save
    from recjax.evaluate.protocol import Evaluate
    from recjax.evaluate.report import Report
    from recjax.models.recgpt import RecGPT
    from recjax.parallel.mesh import MeshShape
    from recjax.text.hashed import Hashed
    from recjax.tokenizers.fsq import FSQ
    from recjax.track.metrics import MetricLog
    from recjax.train.loop import Train, fit
    from recjax.train.optimiser import Adam
    from recjax.train.run import load_alone, load_run

    raw, run = folder / "data" / "shop", folder / "run"
    raw.mkdir(parents=True)
    logs = synthetic(users=60, items=100)
    logs.interactions.write_csv(raw / "interactions.csv")
    logs.catalog.with_columns(brand=logs.catalog["title"].str.slice(0, 1)).write_csv(raw / "items.csv")
    os.environ.update(RECJAX_DATA=str(folder / "data"), RECJAX_CACHE=str(folder / "cache"))
    config = RunConfig(
        name="attacked",
        data=Data("shop", Shifted(max_length=8), rows=4),
        model=RecGPT(width=8, layers=1, heads=2),
        optim=Adam(),
        mesh=MeshShape(),
        train=Train(steps=2, evaluate_every=1, validation_users=10),
        evaluate=Evaluate(bootstrap=0),
        text=Hashed(16),
        tokenizer=FSQ(slots=2, levels=(4, 4), steps=2, batch=16, layers=1, heads=1),
        items={"brand": Attribute("brand"), "near": Neighbours(count=3)},
    )
    fit(config, run)

    def whole_run() -> bytes:
        found = load_run(run)
        for note in found.notes:  # a damaged checkpoint was passed over, which the commands print
            logging.getLogger("recjax").warning(note)
        return digest((found.params, found.items)) + repr(found.config).encode()

    def alone() -> bytes:
        found = load_alone(run)
        for note in found.notes:
            logging.getLogger("recjax").warning(note)
        return digest((found.params, found.items, found.popularity)) + repr(found.dataset.catalog.rows()).encode()

    prepared = folder / "prepared"
    save(find("shop"), prepared)

    def events() -> bytes:
        found = find(str(prepared), resident=False)
        histories = config.data.split.split(found).train.take(range(5))
        return digest((histories.items, histories.timestamps)) + found.fingerprint.encode()

    def report() -> bytes:
        found = Report.load(run / "evaluation.json")
        assert found.users is not None
        return repr((found.metrics, found.floors, found.interval)).encode() + found.users.write_csv().encode()

    def log() -> bytes:
        with MetricLog(run, 2):  # a log has no digest: it opens, whatever stands in it
            return b""

    _evaluated(run)
    readers: dict[Path, Reader] = {}
    for path in sorted(file for file in folder.rglob("*") if file.is_file() and file.stat().st_size):
        inside = path.relative_to(folder).parts
        if inside[:3] == ("run", "items", "catalog"):
            readers[path] = alone
        elif inside[0] == "run" and inside[1] in ("config.json", "checkpoints", "codes", "items"):
            readers[path] = whole_run
        elif inside[0] == "run" and inside[1].startswith("evaluation."):
            readers[path] = report
        elif inside[:2] == ("run", "metrics.jsonl"):
            readers[path] = log
        elif inside[0] == "cache" and inside[1] in ("vectors", "features"):
            readers[path] = whole_run
        elif inside[0] == "prepared":
            readers[path] = events
    return readers


def _evaluated(run: Path) -> None:
    from recjax import cli

    sys.stdout.flush()
    assert cli.main(["evaluate", str(run)]) == 0


def outcome(read: Reader, expected: bytes, warned: list[str]) -> str:
    """Outcome of one flip."""
    from recjax.typing import InputError

    warned.clear()
    try:
        found = read()
    except InputError as error:
        return "refused" if "\n" not in str(error) else "traceback"
    except Exception as error:
        traceback.print_exception(error, limit=-4)
        return "traceback"
    if found != expected:
        return "passed over" if warned else "silent"
    return "remade" if warned else "harmless"


class _Heard(logging.Handler):
    def __init__(self, said: list[str]):
        super().__init__(logging.WARNING)
        self.said = said

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def attacked(readers: dict[Path, Reader], flips: int, only: set[str]) -> Iterator[tuple[str, str, str]]:
    """(file, outcome, which bit) of each flip; files are put back as they were."""
    warned: list[str] = []
    logging.getLogger("recjax").addHandler(_Heard(warned))
    logging.getLogger("recjax").propagate = False
    draw = random.Random(0)
    reference: dict[Reader, bytes] = {}
    for path, read in readers.items():
        name = "a checkpoint's files" if "checkpoints" in path.parts else path.name.partition("-")[0]
        if only and name not in only:
            continue
        if read not in reference:
            reference[read] = read()
        content = path.read_bytes()
        for _ in range(flips):
            place, bit = draw.randrange(len(content)), draw.randrange(8)
            path.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
            yield name, outcome(read, reference[read], warned), f"bit {bit} of byte {place} of {path.name}"
        path.write_bytes(content)


def main() -> int:
    from recjax import faults

    faults.without_echoes()
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--flips", type=int, default=12, help="bits flipped in each file")
    options.add_argument("--files", default="", help="names of files, separated by commas; all by default")
    chosen = options.parse_args()
    counts: Counter[tuple[str, str]] = Counter()
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        only = {name for name in chosen.files.split(",") if name}
        for name, found, which in attacked(trained(Path(folder)), chosen.flips, only):
            counts[name, found] += 1
            if found in ("silent", "traceback"):
                wrong.append(f"{found}: {which}")
    print(f"{'file':<28}" + "".join(f"{found:>13}" for found in OUTCOMES))
    for name in dict.fromkeys(name for name, _ in counts):
        print(f"{name:<28}" + "".join(f"{counts[name, found]:>13}" for found in OUTCOMES))
    for fault in wrong:
        print(fault)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
