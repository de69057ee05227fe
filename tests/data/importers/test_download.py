"""Downloading, from a server on this machine."""

import gzip
import hashlib
import http.server
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from recjax.data.importers import SOURCES, download, read
from recjax.data.importers.download import RECORD, RemoteFile
from recjax.typing import InputError


def archive() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as opened:
        opened.writestr("ml-tiny/u.data", "1\t10\t5\t881250949\n2\t11\t4\t881250950\n")
        opened.writestr("ml-tiny/u.item", "|".join(["10", "Toy Story", "", "", "", *["0"] * 19]) + "\n")
        opened.writestr("../escape.txt", "stays inside")
    return content.getvalue()


REVIEW = {"reviewerID": "U", "asin": "B", "overall": 5.0, "unixReviewTime": 1_400_000_000}
FILES = {
    "/ml-tiny.zip": archive(),
    "/broken.zip": archive()[:200],
    "/reviews_X_5.json.gz": gzip.compress(json.dumps(REVIEW).encode() + b"\n"),
    "/meta_X.json.gz": gzip.compress(b'{"asin": "B", "title": "A thing"}\n'),
    "/cut.json.gz": gzip.compress(b'{"a": 1}\n' * 1000)[:-9],
}


class Handler(http.server.BaseHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012 (shared on purpose)

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path == "/short.zip":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 100)
            return
        if self.path not in FILES:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(FILES[self.path])))
        self.end_headers()
        self.wfile.write(FILES[self.path])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Handler.asked.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


def test_an_archive_with_a_checksum(server: str, tmp_path: Path) -> None:
    checksum = "md5:" + hashlib.md5(FILES["/ml-tiny.zip"]).hexdigest()
    sources = {"ml-tiny": (RemoteFile(f"{server}/ml-tiny.zip", checksum),)}
    folder = download("ml-tiny", tmp_path / "raw", sources)
    assert folder == tmp_path / "raw" / "ml-tiny"
    assert sorted(path.name for path in folder.iterdir()) == [RECORD, "escape.txt", "u.data", "u.item"]
    assert not (tmp_path / "escape.txt").exists() and not (tmp_path / "raw" / "escape.txt").exists()
    record = json.loads((folder / RECORD).read_text())["sources"][0]
    assert record["checksum"] == checksum.replace(":", " ")
    assert record["bytes"] == len(FILES["/ml-tiny.zip"])
    logs = read(folder)
    assert logs.name == "ml-tiny" and logs.interactions.height == 2
    # What is there and complete is not fetched again.
    download("ml-tiny", tmp_path / "raw", sources)
    assert Handler.asked == ["/ml-tiny.zip"]
    assert sorted(path.name for path in (tmp_path / "raw").iterdir()) == ["ml-tiny"]


def test_a_wrong_checksum_keeps_nothing(server: str, tmp_path: Path) -> None:
    sources = {"ml-tiny": (RemoteFile(f"{server}/ml-tiny.zip", "md5:" + "0" * 32),)}
    with pytest.raises(InputError, match=r"ml-tiny\.zip: md5 is [0-9a-f]{32}, expected 0{32}; the file is damaged"):
        download("ml-tiny", tmp_path, sources)
    assert list(tmp_path.iterdir()) == []


def test_files_without_a_checksum_are_recorded(server: str, tmp_path: Path) -> None:
    sources = {"x": (RemoteFile(f"{server}/reviews_X_5.json.gz"), RemoteFile(f"{server}/meta_X.json.gz"))}
    folder = download("x", tmp_path, sources)
    record = json.loads((folder / RECORD).read_text())["sources"]
    assert record[0]["sha256"] == hashlib.sha256(FILES["/reviews_X_5.json.gz"]).hexdigest()
    assert "none is published" in record[0]["checksum"]
    logs = read(folder)
    assert logs.catalog.select("item_id", "title").rows() == [("B", "A thing")]


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("broken.zip", "the archive is damaged"),
        ("cut.json.gz", "the file is damaged"),
        ("short.zip", r"the connection broke after 100 of 1,000 bytes|could not be reached"),
        ("nothing.zip", r"does not have http://.*nothing\.zip \(HTTP 404"),
    ],
)
def test_damaged_and_missing_files_keep_nothing(server: str, tmp_path: Path, file: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        download("x", tmp_path, {"x": (RemoteFile(f"{server}/{file}"),)})
    assert list(tmp_path.iterdir()) == []


def test_unreachable_says_so_and_what_to_do(tmp_path: Path) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as closed:
        port = closed.server_address[1]
    sources = {"ml-1m": (RemoteFile(f"http://127.0.0.1:{port}/ml-1m.zip"),)}
    with pytest.raises(InputError) as caught:
        download("ml-1m", tmp_path, sources)
    assert "the publisher of ml-1m could not be reached: http://127.0.0.1" in str(caught.value)
    assert "recjax prepare ml-1m --raw FOLDER" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_download_is_left_alone(server: str, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match="exists and is not a complete download"):
        download("x", tmp_path, {"x": (RemoteFile(f"{server}/meta_X.json.gz"),)})
    assert (tmp_path / "x" / "mine.txt").read_text() == "precious"


def test_unknown_names() -> None:
    with pytest.raises(InputError, match=r"'ml-1n' cannot be downloaded; did you mean 'ml-1[m0]"):
        download("ml-1n", Path("nowhere"))


def test_sources_are_publishers_and_checked_where_they_print_a_checksum() -> None:
    hosts = {file.url.split("/")[2] for files in SOURCES.values() for file in files}
    assert hosts == {"files.grouplens.org", "snap.stanford.edu", "mcauleylab.ucsd.edu"}
    assert all(file.url.startswith("https://") for files in SOURCES.values() for file in files)
    for name in ("ml-100k", "ml-1m", "ml-latest-small"):
        (file,) = SOURCES[name]
        kind, _, digest = (file.checksum or "").partition(":")
        assert len(digest) == {"md5": 32, "sha256": 64}[kind]
    assert len(SOURCES["amazon-beauty-2014"]) == 2
