"""MovieLens in its three forms: the real files, and damaged ones."""

from pathlib import Path

import pytest

from recjax.data.importers import read
from recjax.typing import InputError


def test_1m(native_data: Path, uniform_data: Path) -> None:
    logs = read(native_data / "ml-1m")
    events = logs.interactions
    assert (logs.name, logs.notes["format"]) == ("ml-1m", "movielens (ratings.dat)")
    assert (events["user_id"].n_unique(), events["item_id"].n_unique(), events.height) == (6_040, 3_416, 999_611)
    assert events.row(0) == ("1", "1193", 978_300_760, 5.0)
    assert events.row(-1) == ("6040", "1097", 956_715_569, 4.0)
    assert logs.catalog.height == 3_883
    assert "Misérables, Les (1995)" in logs.catalog["title"].to_list()  # Latin-1
    assert logs.notes["rows_refused"]["total"] == 0
    # The uniform set is the same, sorted: the order of ties is that of the file.
    uniform = read(uniform_data / "ml-1m")
    order = events.with_row_index("row").sort(["user_id", "timestamp", "row"], maintain_order=True)
    same = uniform.interactions.with_row_index("row").sort(["user_id", "timestamp", "row"], maintain_order=True)
    assert order.drop("row").equals(same.drop("row"))
    titles = dict(logs.catalog.select("item_id", "title").iter_rows())
    assert all(titles[item] == title for item, title in uniform.catalog.select("item_id", "title").iter_rows())


def test_100k(native_data: Path, uniform_data: Path) -> None:
    logs = read(native_data / "ml-100k")
    events = logs.interactions
    assert (events["user_id"].n_unique(), events["item_id"].n_unique(), events.height) == (943, 1_682, 100_000)
    assert events.row(0) == ("196", "242", 881_250_949, 3.0)
    uniform = read(uniform_data / "ml-100k").catalog.sort("item_id")
    ours = logs.catalog.sort("item_id")
    assert ours["categories"].to_list() == uniform["categories"].to_list()
    assert ours["title"].to_list() == uniform["title"].to_list()


def test_latest(native_data: Path) -> None:
    logs = read(native_data / "ml-latest-small")
    events = logs.interactions
    assert (events["user_id"].n_unique(), events["item_id"].n_unique(), events.height) == (610, 9_724, 100_836)
    assert events.row(0) == ("1", "1", 964_982_703, 4.0)
    assert logs.notes["catalog"]["file"] is None and logs.notes["catalog"]["items_without_row"] == 9_724
    assert not logs.catalog.height


def test_latest_with_movies(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,4.0,964982703\n1,3,4.5,964981247\n")
    movies = 'movieId,title,genres\n1,"Misérables, Les (1995)",Drama|War\n3,Pyaasa (1957),(no genres listed)\n'
    (tmp_path / "movies.csv").write_text(movies, encoding="utf-8")
    for other in ("tags.csv", "links.csv", "README.txt"):
        (tmp_path / other).write_text("userId,movieId,tag,timestamp\n")
    logs = read(tmp_path)
    assert logs.catalog.rows() == [("1", "Misérables, Les (1995)", "Drama|War"), ("3", "Pyaasa (1957)", None)]
    assert logs.interactions["rating"].to_list() == [4.0, 4.5]


def ratings(folder: Path, **replaced: str) -> Path:
    rows = [f"{number % 9}::{number % 7}::{number % 5 + 1}::{978_300_000 + number}" for number in range(1_000)]
    for key, row in replaced.items():
        rows[int(key.removeprefix("line")) - 1] = row
    (folder / "ratings.dat").write_text("\n".join(rows) + "\n")
    return folder


def test_damaged_ratings(tmp_path: Path) -> None:
    bad = {"line2": "1::2::5", "line5": "1::2::5::978300000::extra", "line9": "1::::5::978300000", "line12": "broken"}
    logs = read(ratings(tmp_path, **bad))
    refused = logs.notes["rows_refused"]
    assert logs.interactions.height == 996
    assert refused["reasons"] == {"more than 4 fields": 1, "no timestamp": 1, "no item id": 2}
    assert [row["line"] for row in refused["first"]] == [2, 5, 9, 12]
    rows = {f"line{line}": "1::2::5::then" for line in range(1, 20)}
    with pytest.raises(InputError, match=r"19 of 1,000 rows cannot be used.*line 1: unreadable timestamp"):
        read(ratings(tmp_path, **rows))


def test_movies_in_either_encoding(tmp_path: Path) -> None:
    ratings(tmp_path)
    movies = tmp_path / "movies.dat"
    movies.write_bytes("1::Amélie (2001)::Comedy|Romance\n2::Star Wars: Episode IV (1977)::Sci-Fi\n".encode("latin-1"))
    assert read(tmp_path).catalog["title"].to_list()[:2] == ["Amélie (2001)", "Star Wars: Episode IV (1977)"]
    movies.write_bytes("1::Amélie (2001)::Comedy|Romance\n1::Again::Drama\n".encode())
    logs = read(tmp_path)
    assert logs.catalog["title"][0] == "Amélie (2001)"
    assert (logs.notes["catalog"]["duplicate_ids"], logs.notes["catalog"]["items_without_row"]) == (1, 6)


def test_damaged_movies(tmp_path: Path) -> None:
    ratings(tmp_path)
    movies = tmp_path / "movies.dat"
    movies.write_text("1::Toy Story::Comedy\n2::No genres\n")
    with pytest.raises(InputError, match=r"movies\.dat: 1 of 2 rows .*line 2: 3 fields expected, found '2::No genres'"):
        read(tmp_path)
    movies.write_text("")
    with pytest.raises(InputError, match=r"the catalog .*movies\.dat has no rows"):
        read(tmp_path)


def test_ratings_that_are_not_utf8(tmp_path: Path) -> None:
    folder = ratings(tmp_path)
    content = (folder / "ratings.dat").read_bytes()
    (folder / "ratings.dat").write_bytes(content.replace(b"2::2::3::", b"2::\xe9::3::", 1))
    with pytest.raises(InputError, match="line 3: not UTF-8"):
        read(folder)


def test_empty_ratings(tmp_path: Path) -> None:
    (tmp_path / "u.data").write_text("")
    with pytest.raises(InputError, match="holds no rows"):
        read(tmp_path)
