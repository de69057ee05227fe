"""Preparing by Apache Beam: the same bytes as the local path, from the same files, and the same messages."""

import importlib.util
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import recjax.data
from recjax import cli
from recjax.data.features.evidence import Following
from recjax.data.importers import read
from recjax.data.prepare.build import build
from recjax.data.prepare.preparation import Preparation
from recjax.data.store.prepared import load, save
from recjax.typing import InputError

needs_beam = pytest.mark.skipif(
    importlib.util.find_spec("apache_beam") is None,
    reason="Apache Beam, whose requirements cannot stand beside ours, is tested by `make beam`",
)


def made_up(folder: Path, seed: int = 0) -> Path:
    """A log in three files, in no order, with ties across files, repeats, unrated events, and rows without a user."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    for part in range(3):
        rows = ["user_id,item_id,timestamp,rating"]
        for _ in range(400):
            user, item, time = rng.integers(0, 60), int(rng.zipf(1.5)) % 40, rng.integers(0, 25)
            rating = rng.choice(["1", "2.5", "4", "5", ""])
            rows.append(f"ü{user},i{item},{1_400_000_000 + time},{rating}")
        rows.append(f",i1,{1_400_000_000},3")
        (folder / f"interactions-{part}.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    items = ["item_id,title", *(f"i{item},The {item}." for item in range(3, 50))]
    (folder / "items.csv").write_text("\n".join(items) + "\n")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def same_bytes(one: Path, other: Path) -> None:
    found, expected = contents(one), contents(other)
    assert list(found) == list(expected)
    assert [name for name in found if found[name] != expected[name]] == []


@needs_beam
def test_same_bytes_with_ties_repeats_a_core_and_many_shards(tmp_path, monkeypatch):
    from tensorflow_datasets.core.utils.shard_utils import ShardConfig

    from recjax.data.prepare import pipeline

    monkeypatch.setattr(ShardConfig, "min_shard_size", 1_000)
    monkeypatch.setattr(pipeline, "_RANGE", 16)
    monkeypatch.setattr(pipeline, "ROUNDS", 1)  # so that the k-core takes several pipelines
    options = Preparation(k_core=5, min_length=6, duplicates="consecutive", min_rating=2.0)
    log = made_up(tmp_path / "log")
    expected = build(read(log, name="made up"), options)
    save(expected, tmp_path / "local")
    assert len(list((tmp_path / "local").glob("*array_record*"))) > 2
    counts = [step["interactions"] for step in expected.description["steps"]]
    assert counts == sorted(set(counts), reverse=True) and len(counts) == 4, "each step must drop something"
    pipeline.prepare(log, tmp_path / "beam", options, pipeline.Runner("DirectRunner"), name="made up")
    same_bytes(tmp_path / "beam", tmp_path / "local")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["beam", "local", "log"]


@needs_beam
def test_the_command_on_a_real_dataset(tmp_path, uniform_data, capsys: pytest.CaptureFixture[str]):
    source = uniform_data / "amazon-giftcards-2018"
    command = ["prepare", "gift", "--raw", str(source), "--out"]
    assert cli.main([*command, str(tmp_path / "local")]) == 0
    local = capsys.readouterr().out
    assert cli.main([*command, str(tmp_path / "beam"), "--beam", "DirectRunner"]) == 0
    assert capsys.readouterr().out.replace("/beam", "/local") == local
    same_bytes(tmp_path / "beam", tmp_path / "local")
    assert load(tmp_path / "beam").n_interactions == 2_972


@needs_beam
def test_a_format_of_a_publisher_is_read_here_and_prepared_there(tmp_path):
    from recjax.data.prepare import pipeline

    (tmp_path / "words.txt").write_text("11 1 2 1\n12 2\n13 3 1 3 2\n")
    options = Preparation(duplicates="pair")
    save(build(read(tmp_path / "words.txt", name="words"), options), tmp_path / "local")
    pipeline.prepare(tmp_path / "words.txt", tmp_path / "beam", options, pipeline.Runner("DirectRunner"), name="words")
    same_bytes(tmp_path / "beam", tmp_path / "local")


@needs_beam
def test_the_messages_are_those_of_the_local_path(tmp_path):
    from recjax.data.prepare import pipeline

    def both(log: Path, options: Preparation) -> str:
        with pytest.raises(InputError) as local:
            build(read(log, name="x"), options)
        with pytest.raises(InputError) as beam:
            pipeline.prepare(log, tmp_path / "beam", options, pipeline.Runner("DirectRunner"), name="x")
        assert str(beam.value) == str(local.value)
        return str(beam.value)

    log = made_up(tmp_path / "log")
    assert "no interaction is left after min_rating" in both(log, Preparation(min_rating=9))
    (log / "interactions-1.csv").write_text("user_id,item_id,timestamp,rating\nu,i,yesterday,1\n")
    assert "interactions-1.csv: 1 of 1 rows cannot be used" in both(log, Preparation())
    with pytest.raises(InputError, match=r"--beam Oven: Beam has no such runner .*DirectRunner"):
        pipeline.prepare(log, tmp_path / "beam", Preparation(), pipeline.Runner("Oven"), name="x")
    with pytest.raises(InputError, match=r"--beam-options .*: No closing quotation"):
        pipeline.prepare(log, tmp_path / "beam", Preparation(), pipeline.Runner("DirectRunner", "--a='"), name="x")
    assert [entry.name for entry in tmp_path.iterdir()] == ["log"]


def test_without_beam_the_message_says_what_to_install(tmp_path, monkeypatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    monkeypatch.delitem(sys.modules, "recjax.data.prepare.pipeline", raising=False)
    monkeypatch.delattr(recjax.data, "pipeline", raising=False)
    log = made_up(tmp_path / "log")
    assert cli.main(["prepare", "x", "--raw", str(log), "--out", str(tmp_path / "x"), "--beam", "DirectRunner"]) == 2
    assert "pip install 'recjax[beam]'" in capsys.readouterr().err
    assert cli.main(["prepare", "x", "--raw", str(log), "--beam-options=--a=b"]) == 2
    assert "--beam-options goes with --beam RUNNER" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["log"]


@needs_beam
@pytest.mark.parametrize("training", [False, True])
def test_evidence_counted_by_beam_is_that_counted_here(tmp_path, monkeypatch, training):
    """Links, counts and totals, but for the order of links of equal strength; and `pretrained` finds them."""
    from recjax.data.features import beam_evidence
    from recjax.train.pretrained import load_pretrained

    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(beam_evidence, "BLOCK", 16)
    save(build(read(made_up(tmp_path / "log"), name="made up"), Preparation()), tmp_path / "shop")
    shop = str(tmp_path / "shop")
    here = load_pretrained(shop, all_events=not training).items
    shutil.rmtree(tmp_path / "cache")
    assert cli.main(["count", shop, *(["--training"] if training else [])]) == 0
    monkeypatch.setattr(Following, "make", None)  # what is counted already is not counted again
    there = load_pretrained(shop, all_events=not training).items
    np.testing.assert_allclose(there.columns["totals"], here.columns["totals"], rtol=1e-6)
    for name in ("following", "preceding", "together"):
        found, expected = there.relation(name), here.relation(name)
        np.testing.assert_allclose(np.sort(found.values), np.sort(expected.values), rtol=1e-6)
        for row in range(len(found.ids)):
            assert set(found.ids[row].tolist()) == set(expected.ids[row].tolist())
    assert sorted(entry.name for entry in (tmp_path / "cache").iterdir()) == ["features"]
