"""The benchmarks of decoding and generation at a tiny size: the walker walks, methods run. Nothing is timed."""

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.decode.reference import best, competing, raw_scores

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "benchmarks"


@pytest.fixture(autouse=True, scope="module")
def scripts():
    """Makes the benchmarks importable, as they are to each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(FOLDER), *sys.path])
        yield


def test_the_walker_finds_the_exact_list_where_it_can_try_all_codes():
    import decoding

    rng = np.random.default_rng(0)
    tuples = np.array([[a, b, a ^ b, (a + b) % 5] for a in range(4) for b in range(5)])
    codes = np.concatenate([np.zeros((1, 4), int), rng.permutation(tuples)])
    logits = rng.normal(size=(6, 4, 16)).astype(np.float32)
    root = decoding.nested(codes)
    exact = best(competing(raw_scores(logits.swapaxes(0, 1), codes), [[0]] * 6), 10)[0]
    np.testing.assert_array_equal([decoding.walk(row, root) for row in logits], exact)


def test_every_method_is_measured():
    import decoding

    options = argparse.Namespace(size=40, beams=[30], users=4, walker=1_000, seconds=0.01, seed=0)
    records = decoding.measure(200, options)
    assert [found["method"] for found in records] == ["exact", "beam 30", "dict walker"]
    for found in records:
        assert found["users_per_second"] > 0 and found["p99_ms"] >= found["p50_ms"] > 0
    assert records[0]["overlap"] == records[0]["top1"] == 1 and 0 < records[1]["overlap"] <= 1


def test_systems_are_measured_from_histories_to_lists(monkeypatch):
    """One of them, for the others compile long; each has tests of its own."""
    import generation

    options = argparse.Namespace(width=8, layers=1, beams=[3], users=2, seconds=0.01, seed=0)
    every = generation.systems(options)
    beam = "its decoder, beam 3"
    assert list(every) == ["TIGER, beam 3", beam, "SETRec", "SASRec", "Lite-LLM4Rec"]
    monkeypatch.setattr(generation, "systems", lambda _: {beam: every[beam]})
    (found,) = generation.measure(30, options)
    assert found["items"] == 30 and found["users_per_processor_second"] > 0 and found["p50_ms"] > 0
    random = np.random.default_rng(0)
    items, queries = generation.made_up(30, random), generation.questions(30, 2, random)
    lists = np.asarray(generation.ready(every[beam], items, queries)(queries))
    assert lists.shape == (2, 10) and not (lists[:, :, None] == queries.seen[:, None]).any()
