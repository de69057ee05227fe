"""Small files made for the tests of this folder."""

import gzip
from pathlib import Path

HEADER = "user_id,item_id,timestamp,rating"
GOOD = [f"u{number % 7},i{number % 5},{1_400_000_000 + number},{number % 5 + 1}" for number in range(1_000)]


def table(folder: Path, rows: list[str], header: str = HEADER, name: str = "interactions.csv") -> Path:
    """A csv file with `header` and `rows`; its line n is `rows[n - 2]`."""
    path = folder / name
    content = "\n".join([header, *rows]) + "\n"
    path.write_bytes(gzip.compress(content.encode()) if name.endswith(".gz") else content.encode())
    return path


def with_rows(**replaced: str) -> list[str]:
    """The good rows with some replaced, by line: `with_rows(line3="...")`."""
    rows = list(GOOD)
    for key, row in replaced.items():
        rows[int(key.removeprefix("line")) - 2] = row
    return rows
