"""Datasets and raw logs behind a URL; the store is fsspec's own in memory, under the name of S3."""

import sys

import pytest
from etils import epath
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from recjax import cli
from recjax.data.importers import open_table, read, tables
from recjax.data.importers.logs import Options
from recjax.data.prepare.build import build
from recjax.data.prepare.preparation import Preparation
from recjax.data.store import locate, remote
from recjax.data.store.prepared import find, load, save
from recjax.typing import InputError
from tests.data.samples import random_logs


class Bucket(MemoryFileSystem):
    """A store in memory that counts what is read."""

    protocol = "s3"
    store = {}  # noqa: RUF012 (as its base has it)
    pseudo_dirs = [""]  # noqa: RUF012
    opened: list[str] = []  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("s3://", "memory://", 1))

    def ukey(self, path):
        return str(self.info(path)["created"])

    def _open(self, path, mode="rb", **named):
        if "r" in mode:
            self.opened.append(path.rpartition("/")[2])
        return super()._open(path, mode, **named)


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """An empty bucket s3://b, a local cache and no $RECJAX_DATA."""
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RECJAX_DATA", raising=False)
    Bucket.store, Bucket.pseudo_dirs, Bucket.opened = {}, [""], []
    monkeypatch.setitem(_registry, "s3", Bucket)
    backend.fsspec_backend._get_filesystem.cache_clear()
    yield epath.Path("s3://b")
    backend.fsspec_backend._get_filesystem.cache_clear()


def put(folder: epath.Path, seed: int) -> None:
    """A raw log in the uniform form."""
    raw = random_logs(seed)
    (folder / "interactions.csv").write_text(raw.interactions.write_csv())
    (folder / "items.csv").write_text(raw.catalog.write_csv())


def test_datasets_of_a_bucket_are_found_by_name_and_fetched_once(bucket, tmp_path, monkeypatch):
    put(bucket / "data" / "small", 0)
    save(build(random_logs(1), Preparation(k_core=3)), bucket / "data" / "ready")
    monkeypatch.setenv("RECJAX_DATA", f"{tmp_path}:s3://b/data")
    Bucket.opened.clear()
    assert find("small").fingerprint == build(random_logs(0)).fingerprint
    assert find("s3://b/data/small").name == "small"
    assert find("ready").fingerprint == build(random_logs(1), Preparation(k_core=3)).fingerprint
    assert len(Bucket.opened) == len(set(Bucket.opened)) == 2 + 6
    put(bucket / "data" / "small", 2)
    assert find("small").fingerprint == build(random_logs(2)).fingerprint
    with pytest.raises(InputError, match="looked in s3://b/data, which has: ready, small"):
        find("smal")


def test_the_command_reads_and_writes_a_bucket(bucket, capsys: pytest.CaptureFixture[str]):
    put(bucket / "raw", 0)
    assert cli.main(["prepare", "x", "--raw", "s3://b/raw", "--out", "s3://b/out/x"]) == 0
    assert "written to s3://b/out/x" in capsys.readouterr().out
    assert load(bucket / "out" / "x").fingerprint == build(random_logs(0)).fingerprint
    assert cli.main(["prepare", "x", "--raw", "s3://b/raw", "--out", "s3://b/raw"]) == 2
    assert "not a prepared dataset: it will not be overwritten" in capsys.readouterr().err
    assert cli.main(["prepare", "x", "--raw", "s3://b/absent"]) == 2
    assert "there is no file or folder s3://b/absent" in capsys.readouterr().err


def test_a_dataset_is_replaced_and_a_failed_one_leaves_nothing(bucket, monkeypatch):
    save(build(random_logs(0)), bucket / "x")
    save(build(random_logs(1)), bucket / "x")
    assert load(bucket / "x").fingerprint == build(random_logs(1)).fingerprint
    monkeypatch.setattr(
        "recjax.data.store.prepared.write_header", lambda *_: (_ for _ in ()).throw(OSError("no quota"))
    )
    with pytest.raises(OSError, match="no quota"):
        save(build(random_logs(0)), bucket / "y")
    assert not (bucket / "y").exists()


def test_a_worker_fetches_the_file_it_reads_and_no_other(bucket, tmp_path):
    for part in range(3):
        text = "user_id,item_id,timestamp\n" + "".join(f"u{part},i{row},{row}\n" for row in range(20))
        (bucket / "log" / f"interactions-{part}.csv").write_text(text)
        (tmp_path / f"interactions-{part}.csv").write_text(text)
    log = open_table(bucket / "log")
    assert log is not None
    here = tables.open_log(sorted(tmp_path.glob("*.csv")), Options())
    assert dict(log.notes) == dict(here.notes)
    Bucket.opened.clear()
    events, notes = tables.read_part(log, 1)
    assert set(Bucket.opened) == {"interactions-1.csv"}
    assert (events.rows(), notes) == (tables.read_part(here, 1)[0].rows(), tables.read_part(here, 1)[1])
    (bucket / "log" / "interactions-1.csv").write_text("user_id,item_id,timestamp\nu,i,yesterday\n")
    with pytest.raises(InputError, match=r"^s3://b/log/interactions-1\.csv: 1 of 1 rows cannot be used"):
        tables.read_part(log, 1)
    assert read(tmp_path).interactions.height == 60


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gs://bucket/x", r"gs://bucket/x needs a package that is not installed: pip install gcsfs.*recjax\[cloud\]"),
        ("ftp://host/x", r"ftp://host/x: paths are local or begin with one of gs://, s3://"),
    ],
)
def test_what_a_url_needs_is_said(name, message, monkeypatch):
    if name.startswith("gs"):
        monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(InputError, match=message):
        remote.place(name)
    with pytest.raises(InputError, match=message):
        find(name)


def test_runs_and_the_cache_are_local(monkeypatch, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        cli.main(["train", "quickstart", "--run", "gs://b/run"])
    assert "mount the bucket as a folder" in capsys.readouterr().err
    monkeypatch.setenv("RECJAX_CACHE", "gs://b/cache")
    with pytest.raises(InputError, match="RECJAX_CACHE is gs://b/cache, expected a local folder"):
        locate.cache_folder()
