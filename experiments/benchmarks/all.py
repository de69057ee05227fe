"""The benchmarks that have a rival and an aim, one after another, and one table: ratio, aim, verdict.

    RECJAX_PEERS=... RECJAX_DATA=... RECJAX_ENCODERS=... python experiments/benchmarks/all.py --out results

Each writes its measurements to a file of `--out`; what has been measured is not measured again, so that a run that was
cut off goes on, and `--again` measures anew. A rival whose environment is not there is left out, and the table says so.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import contest

SCRIPTS = Path(__file__).resolve().parent
ENCODING = ["--sides", "recjax,sentence_transformers,onnx,recjax-bfloat16,onnx-int8"]


class Job(NamedTuple):
    """A benchmark to run.

    Attributes:
        script: its file.
        arguments: of its command line.
        aims: rival -> how many times as fast recjax is to be.
    """

    script: str
    arguments: list[str]
    aims: dict[str, float]


JOBS = {
    "search": Job("search_speed", [], {"faiss": 1.2}),
    "encoding": Job("encoding_speed", ENCODING, {"sentence_transformers": 1.5, "onnx": 1.5}),
    "training-ml-1m": Job("training_speed", ["--setting", "ml-1m", "--sides", "recjax,torch"], {"torch": 4.5}),
    "training-bce": Job("training_speed", ["--setting", "bce", "--sides", "recjax,torch"], {"torch": 4.5}),
    "training-beauty": Job("training_speed", ["--setting", "beauty", "--sides", "recjax,torch"], {"torch": 8.0}),
    "icsrec": Job("official_speed", ["--case", "icsrec"], {"icsrec": 3.0}),
    "sracl": Job("official_speed", ["--case", "sracl"], {"sracl": 3.0}),
    "tiger": Job("official_speed", ["--case", "tiger"], {"letter": 3.0}),
    "evaluation": Job("evaluation_speed", [], {"torch": 2.5, "rectools": 4.0, "replay": 4.0}),
}


def rows(name: str, record: dict[str, Any], aims: dict[str, float]) -> Iterator[tuple[str, str, list[float], float]]:
    """(what, rival, how many times as fast recjax is round by round by processor time, aim)."""
    turns = record.get("passes") or record["blocks"]
    what = " ".join(str(record[key]) for key in ("items", "what") if key in record)
    ours = ["recjax"] if "recjax" in turns else [side for side in turns if side.startswith("recjax-")]
    for rival, own in ((rival, own) for rival in aims if rival in turns for own in ours):
        work = "targets" if "targets" in turns[rival][0] else "users"
        rates = [[turn[work] / max(turn["cpu_seconds"], 1e-9) for turn in turns[side]] for side in (own, rival)]
        words = (name, what, own.partition("-")[2])
        yield " ".join(filter(None, words)), rival, [a / b for a, b in zip(*rates, strict=True)], aims[rival]


def run(job: Job, out: Path, rest: list[str]) -> str:
    """Runs a benchmark; the last line of what went wrong, or nothing."""
    command = [sys.executable, str(SCRIPTS / f"{job.script}.py"), *job.arguments, *rest, "--out", str(out)]
    done = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["failed"])[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--only", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--again", action="store_true", help="measure what has been measured")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    columns = ("work", "rival", "recjax is x times, by processor time", "aim", "verdict")
    shown = contest.table("recjax beside its rivals", columns)
    for name in options.only:
        job, path = JOBS[name], options.out / f"{name}.json"
        if options.again or not path.exists():
            failure = run(job, path, ["--rounds", str(options.rounds)])
            if failure:
                shown.add_row(name, ", ".join(job.aims), "", "", f"not measured: {failure}")
                continue
        for record in json.loads(path.read_text())["records"]:
            for what, rival, ratios, aim in rows(name, record, job.aims):
                reached = statistics.median(ratios) >= aim
                verdict = "reached" if reached else "missed"
                shown.add_row(what, rival, contest.median(ratios, ".2f"), str(aim), verdict)
    contest.print_machine(contest.machine())
    contest.CONSOLE.print(shown)


if __name__ == "__main__":
    main()
