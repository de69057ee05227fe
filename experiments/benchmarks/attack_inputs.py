"""Damaged and hostile inputs by the thousand: what is accepted, what is refused in one line, and what goes wrong.

    python experiments/benchmarks/attack_inputs.py
    python experiments/benchmarks/attack_inputs.py --short
    python experiments/benchmarks/attack_inputs.py --kinds encoder,checkpoint --cases 2000 --seed 7

Small valid files of each kind are damaged at random, with fixed seeds: bytes flipped, cut, doubled; other encodings;
fields that are huge or of another type; columns renamed; JSON values replaced; archives packed anew. A case may be
accepted (what is left still reads) or refused by one message of one line. Everything else is a fault: a message of
several lines or with a library's expressions (untidy), any other exception (traceback), more than 30 seconds (hang),
the end of the process (crash). Cases run one after another in a process with little memory; after a hang or a crash
another one goes on with the next case. The exit status is 1 where there are faults.
"""

import argparse
import gzip
import io
import json
import multiprocessing
import os
import re
import resource
import shutil
import sys
import tempfile
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

TESTS = Path(__file__).resolve().parents[2] / "tests"
PATIENCE = 30.0  # seconds
MEMORY = 3 << 30  # bytes beyond what the imports take
OUTCOMES = ("accepted", "refused", "untidy", "traceback", "hang", "crash")
Files = dict[str, bytes]

NASTY = (
    *("", " ", "NaN", "-1", "0", "1e400", "null", r"\N", "NA", "9" * 400, "20209999", "2020-13-45", "0x10", "27.0"),
    *("[" * 2000, "{}", '"', "'", "../x", "\0", "\ufeff", "\u202e", "x" * 200_000, "1,2", "a\tb", "::", "|", "\ud800"),
)
VALUES = (
    *(0, -1, 1, 10**9, 10**30, 0.5, float("inf"), True, None, "", "x", "../x", "/", [], {}, [[]], [1], {"x": 1}),
    *("9" * 10_000, ["a"] * 1000),
)


def events() -> list[tuple[str, str, int, int]]:
    """Forty users with six events each over twenty items."""
    return [
        (f"{user}", f"{(user * 3 + event * 7) % 20}", 1_400_000_000 + user * 1000 + event, 1 + event % 5)
        for user in range(1, 41)
        for event in range(6)
    ]


def lines(rows: list[Any], separator: str, header: str | None = None) -> bytes:
    text = "".join(separator.join(map(str, row)) + "\n" for row in rows)
    return ((header + "\n" if header else "") + text).encode()


def frame(content: bytes) -> bytes:
    """A csv as parquet."""
    import polars as pl

    out = io.BytesIO()
    pl.read_csv(io.BytesIO(content)).write_parquet(out)
    return out.getvalue()


@cache
def valid(kind: str) -> Files:
    """The files of a kind, by name."""
    log, items = events(), [(f"{number}", f"Film {number}, The", "a|b") for number in range(20)]
    titles = [(item, f'"{title}"', genres) for item, title, genres in items]
    csv = {
        "interactions.csv": lines(log, ",", "user_id,item_id,timestamp,rating"),
        "items.csv": lines(titles, ",", "item_id,title,categories"),
    }
    reviews = [{"reviewerID": u, "asin": i, "unixReviewTime": t, "overall": float(r)} for u, i, t, r in log]
    meta = [{"asin": i, "title": t, "categories": [["Toys", "Games"]], "price": 3.5} for i, t, _ in items]
    lists = [(user, item, 1 / (1 + place)) for user, item, place, _ in [(u, i, t % 7, r) for u, i, t, r in log]]
    if kind == "table csv":
        return csv
    if kind == "table gz":
        return {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in csv.items()}
    if kind == "table parts":
        half = csv["interactions.csv"].splitlines(keepends=True)
        parts = {"interactions-0.csv": half[:100], "interactions-1.csv": [half[0], *half[100:]]}
        return {name: b"".join(part) for name, part in parts.items()}
    if kind == "table parquet":
        return {name.replace("csv", "parquet"): frame(content) for name, content in csv.items()}
    if kind == "movielens":
        flags = "|".join("01"[number % 2] for number in range(19))
        return {
            "u.data": lines([(u, i, r, t) for u, i, t, r in log], "\t"),
            "u.item": lines([(i, f"Caf\u00e9 {t}", "01-Jan-1995", "", "", flags) for i, t, _ in items], "|"),
        }
    if kind == "movielens 1m":
        return {"ratings.dat": lines([(u, i, r, t) for u, i, t, r in log], "::"), "movies.dat": lines(items, "::")}
    if kind == "recbole":
        return {
            "x.inter": lines(log, "\t", "user_id:token\titem_id:token\ttimestamp:float\trating:float"),
            "x.item": lines(items, "\t", "item_id:token\ttitle:token_seq\tclass:token_seq"),
        }
    if kind == "amazon":
        return {
            "reviews_Toys_5.json": lines([[json.dumps(review)] for review in reviews], ""),
            "meta_Toys.json": lines([[repr(item)] for item in meta], ""),
        }
    if kind == "sequences":
        histories = [(u, *(i for v, i, _, _ in log if v == u)) for u in dict.fromkeys(u for u, *_ in log)]
        attributes = {i: [1, 2] for i, _, _ in items}
        return {"toys.txt": lines(histories, " "), "toys_item2attributes.json": json.dumps(attributes).encode()}
    if kind == "predictions csv":
        return {"lists.csv": lines(lists, ",", "user_id,item_id,score")}
    if kind == "predictions parquet":
        return {"lists.parquet": frame(lines(lists, ",", "user_id,item_id,score"))}
    if kind in ("encoder bert", "encoder mpnet"):
        folder = TESTS / "text" / "twins" / kind.split()[1]
        return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*.*"))}
    return {name: (TESTS / "models" / "fixtures" / name).read_bytes() for name in ("model.pt", "tokenizer.pt")}


def place(rng: np.random.Generator, content: bytes) -> int:
    return int(rng.integers(0, max(len(content), 1)))


def flipped(rng: np.random.Generator, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 9))):
        if changed:
            changed[place(rng, content)] = int(rng.integers(256))
    return bytes(changed)


def cut(rng: np.random.Generator, content: bytes) -> bytes:
    start = place(rng, content)
    return content[:start] if rng.random() < 0.5 else content[:start] + content[start + int(rng.integers(1, 400)) :]


def doubled(rng: np.random.Generator, content: bytes) -> bytes:
    start = place(rng, content)
    return content[:start] + content[start // 2 : start] * int(rng.integers(1, 4)) + content[start:]


def recoded(rng: np.random.Generator, content: bytes) -> bytes:
    text = content.decode("utf-8", "replace")
    encoding = ("utf-16", "utf-16-le", "utf-32", "latin-1", "utf-8-sig", "cp037")[int(rng.integers(6))]
    return ("\u00e9" + text if rng.random() < 0.3 else text).encode(encoding, "replace")


def packed(rng: np.random.Generator, content: bytes) -> bytes:
    whole = gzip.compress(content, mtime=0)
    return whole if rng.random() < 0.3 else flipped(rng, whole) if rng.random() < 0.5 else cut(rng, whole)


def rewritten(rng: np.random.Generator, content: bytes) -> bytes:
    """Text in which single fields or lines are others."""
    text = content.decode("utf-8", "replace")
    rows = text.splitlines(keepends=True) or [""]
    for _ in range(int(rng.integers(1, 6))):
        row = int(rng.integers(len(rows))) if rng.random() < 0.8 else 0
        token = NASTY[int(rng.integers(len(NASTY)))]
        fields = re.split(r"([,\t|: ]+)", rows[row])
        fields[int(rng.integers(len(fields)))] = token
        rows[row] = "".join(fields) if rng.random() < 0.8 else token + "\n"
    if rng.random() < 0.1:
        rows = [*rows, *rows[:3]]
    return "".join(rows).encode("utf-8", "surrogatepass")


def revalued(rng: np.random.Generator, content: bytes) -> bytes:
    """JSON with another value somewhere; at the end of a random path."""
    try:
        tree = json.loads(content)
    except ValueError:
        return rewritten(rng, content)
    node: Any = tree
    while isinstance(node, dict | list) and node:
        key = list(node)[int(rng.integers(len(node)))] if isinstance(node, dict) else int(rng.integers(len(node)))
        child = node[key]
        if not isinstance(child, dict | list) or not child or rng.random() < 0.3:
            node[key] = VALUES[int(rng.integers(len(VALUES)))]
            break
        node = child
    return json.dumps(tree).encode()


def retyped(rng: np.random.Generator, content: bytes) -> bytes:
    """A parquet file with a column of another type, or of another name."""
    import polars as pl

    table = pl.read_parquet(io.BytesIO(content))
    name = table.columns[int(rng.integers(table.width))]
    column, height = table[name], table.height
    others = [
        *(column.cast(pl.String), column.cast(pl.String).cast(pl.Categorical), column.cast(pl.String).cast(pl.Binary)),
        *(pl.Series([[1.5, None]] * height), pl.Series([["a", None]] * height), pl.Series([[b"\xff"]] * height)),
        *(pl.Series([{"x": 1}] * height), pl.Series([[{"x": [1]}]] * height), pl.Series([b"\xff"] * height)),
        *(pl.Series([None] * height), pl.Series([True, None] * (height // 2)), pl.Series([1e300] * height)),
        *(pl.Series(range(height)).cast(kind) for kind in (pl.Duration("us"), pl.Time, pl.Date, pl.Datetime("ns"))),
        *(pl.Series(range(height)).cast(kind) for kind in (pl.Decimal(20, 3), pl.Float32, pl.UInt64, pl.Int128)),
        pl.Series([["a", "b"]] * height, dtype=pl.Array(pl.String, 2)),
    ]
    other = others[int(rng.integers(len(others)))].alias(name)
    table = table.with_columns(other) if rng.random() < 0.9 else table.rename({name: name.upper() + " "})
    out = io.BytesIO()
    (table if rng.random() < 0.95 else table.clear()).write_parquet(out)
    return out.getvalue()


def repacked(rng: np.random.Generator, content: bytes) -> bytes:
    """An archive whose files are damaged, compressed, doubled or gone."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        names = old.namelist()
        chosen = next(name for name in names if name.endswith("data.pkl"))
        chosen = chosen if rng.random() < 0.7 else names[int(rng.integers(len(names)))]
        for name in names:
            data = old.read(name)
            if name == chosen and (how := rng.random()) < 0.9:
                data = (flipped, cut, doubled)[int(how * 3.3) % 3](rng, data)
            elif name == chosen:
                continue
            packing = zipfile.ZIP_DEFLATED if rng.random() < 0.02 else zipfile.ZIP_STORED
            new.writestr(name, data, packing)
    return out.getvalue()


def reheaded(rng: np.random.Generator, content: bytes) -> bytes:
    """Safetensors with another header."""
    size = int.from_bytes(content[:8], "little")
    head = revalued(rng, content[8 : 8 + size]) if rng.random() < 0.8 else flipped(rng, content[8 : 8 + size])
    size = len(head) if rng.random() < 0.9 else int(rng.integers(0, 2**62))
    return size.to_bytes(8, "little") + head + content[8 + len(head) :]


Damage = Callable[[np.random.Generator, bytes], bytes]
ANY: tuple[Damage, ...] = (flipped, cut, doubled)
BY_SUFFIX: dict[str, tuple[Damage, ...]] = {
    ".parquet": (*ANY, *[retyped] * 6),
    ".pt": (*ANY, *[repacked] * 6),
    ".safetensors": (*ANY, *[reheaded] * 3),
    ".gz": ANY,
    ".json": (*ANY, recoded, rewritten, *[revalued] * 6),
}
TEXT: tuple[Damage, ...] = (*ANY, recoded, packed, *[rewritten] * 5)


def damaged(rng: np.random.Generator, files: Files) -> tuple[Files, str]:
    """Files of which one is damaged, and how."""
    name = list(files)[int(rng.integers(len(files)))]
    if rng.random() < 0.03:
        return {other: content for other, content in files.items() if other != name}, f"{name} gone"
    ways = BY_SUFFIX.get(Path(name).suffix, TEXT)
    way = ways[int(rng.integers(len(ways)))]
    return files | {name: way(rng, files[name])}, f"{name} {way.__name__}"


@cache
def dataset() -> Any:
    import polars as pl

    from recjax.data.importers import RawLogs
    from recjax.data.prepare.build import build

    log = pl.DataFrame(events(), schema=["user_id", "item_id", "timestamp", "rating"], orient="row")
    return build(RawLogs("small", log, pl.DataFrame({"item_id": [str(number) for number in range(20)]}), {}))


def use(kind: str, folder: Path) -> None:
    """Reads the files of a kind as a user of recjax does."""
    from recjax.commands.prepare import _account
    from recjax.data.importers import read
    from recjax.data.prepare.build import build
    from recjax.data.splits import LeaveOneOut
    from recjax.evaluate.predictions import evaluate_predictions
    from recjax.evaluate.protocol import Evaluate
    from recjax.models.parts.published_checkpoint import import_recgpt
    from recjax.text.encoder import SentenceEncoder

    if kind.startswith("predictions"):
        split = LeaveOneOut().split(dataset())
        file = folder / ("lists.csv" if kind.endswith("csv") else "lists.parquet")
        evaluate_predictions(file, dataset(), split, Evaluate(bootstrap=0), floors=False)
    elif kind.startswith("encoder"):
        SentenceEncoder(str(folder)).encode(["A film about a caf\u00e9", "", "x " * 500])
    elif kind == "checkpoint":
        import_recgpt(folder / "model.pt", folder / "tokenizer.pt", heads=2, levels=(7, 7))
    else:
        _account(build(read(folder)))


KINDS = (
    *("table csv", "table gz", "table parts", "table parquet", "movielens", "movielens 1m", "recbole", "amazon"),
    *("sequences", "predictions csv", "predictions parquet", "encoder bert", "encoder mpnet", "checkpoint"),
)


def one(kind: str, number: int, seed: int, folder: Path) -> tuple[str, str]:
    """The outcome of a case, and what to say of it."""
    from recjax.typing import InputError

    rng = np.random.default_rng([seed, KINDS.index(kind), number])
    files, how = damaged(rng, valid(kind))
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    try:
        use(kind, folder)
    except InputError as error:
        message = str(error)
        tidy = "\n" not in message and not re.search(r"\bcol\(|\.cast\(|panicked|pyo3", message)
        return ("refused" if tidy else "untidy"), f"{how}: {message[:300]}"
    except BaseException as error:  # a panic of a library is none of Exception
        last = traceback.extract_tb(error.__traceback__)[-1]
        return "traceback", f"{how}: {type(error).__name__} in {last.filename}:{last.lineno}: {str(error)[:300]}"
    return "accepted", how


def work(cases: list[tuple[str, int]], seed: int, pipe: Connection) -> None:
    """Runs cases one after another, in a process of its own; sends the outcome of each."""
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # panics print their own traces
    import recjax.models.parts.published_checkpoint  # noqa: F401  (before memory is counted)

    held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, resource.RLIM_INFINITY))
    for kind, number in cases:
        folder = Path(tempfile.mkdtemp(prefix="attack-"))
        pipe.send(("begins", str(folder)))
        pipe.send(one(kind, number, seed, folder))
        shutil.rmtree(folder, ignore_errors=True)


def outcomes(cases: list[tuple[str, int]], seed: int) -> Iterator[tuple[str, str]]:
    """The outcome of every case, in order."""
    context = multiprocessing.get_context("spawn")
    done = 0
    while done < len(cases):
        ours, theirs = context.Pipe()
        worker = context.Process(target=work, args=(cases[done:], seed, theirs), daemon=True)
        worker.start()
        theirs.close()
        folder, patience = "", 10 * PATIENCE  # the first case waits for the imports
        while done < len(cases):
            found: tuple[str, str] = ("hang", "")
            try:
                if ours.poll(patience):
                    found = ours.recv()
            except EOFError:
                found = ("crash", f"exit status {worker.exitcode}")
            if found[0] == "begins":
                folder, patience = found[1], PATIENCE
                continue
            done += 1
            yield found
            if found[0] in ("hang", "crash"):
                break
        worker.kill()
        worker.join()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kinds", help="only kinds that begin with one of these, with commas between")
    options.add_argument("--cases", type=int, help="of each kind (default 500; 12 with --short)")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--short", action="store_true", help="a few cases of each kind")
    options.add_argument("--verbose", action="store_true", help="print every case")
    chosen = options.parse_args()
    wanted = tuple(chosen.kinds.split(",")) if chosen.kinds else ("",)
    kinds = [kind for kind in KINDS if kind.startswith(wanted)]
    cases = [(kind, number) for kind in kinds for number in range(chosen.cases or (12 if chosen.short else 500))]
    counts: Counter[tuple[str, str]] = Counter()
    faults = []
    for (kind, number), (outcome, said) in zip(cases, outcomes(cases, chosen.seed), strict=True):
        counts[kind, outcome] += 1
        if chosen.verbose:
            print(f"{kind} {number}: {outcome}: {said}")
        if outcome not in ("accepted", "refused"):
            faults.append(f"{kind}, case {number}, seed {chosen.seed}: {outcome}: {said}")
    print(f"{'kind':<20}" + "".join(f"{outcome:>10}" for outcome in OUTCOMES))
    for kind in kinds:
        print(f"{kind:<20}" + "".join(f"{counts[kind, outcome]:>10}" for outcome in OUTCOMES))
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
