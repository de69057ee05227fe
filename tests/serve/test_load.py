"""The load test of experiments/benchmarks, with a few requests; nothing is timed."""

import asyncio
import importlib.util
import sys
from types import ModuleType

import numpy as np
import pytest

from recjax.serve.limits import Limits
from tests.serve.site import DATA, running, served
from tests.test_readme import ROOT


@pytest.fixture(scope="module")
def load() -> ModuleType:
    path = ROOT / "experiments" / "benchmarks" / "serving.py"
    spec = importlib.util.spec_from_file_location("recjax_serving_load", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_requests_are_counted_and_failures_named(load: ModuleType):
    with running(served(), Limits(k=20, users=2)) as site:
        ids = load.catalog(site.port)
        assert set(ids) <= set(DATA.item_ids[1:]) and len(ids) > 10
        good = load.requests(ids, 30, 2, seed=0)
        before = load.figures(site.port)
        steady = asyncio.run(load.at_rate(site.port, good, rate=1_000)).row()
        looks: list[int] = []

        async def look(number: int) -> None:
            looks.append(number)

        bad = load.requests(["nowhere"], 2, 2, seed=0)
        many = asyncio.run(load.at_once(site.port, [*good, *bad], 4, look))
        after = load.figures(site.port)
    assert (steady["requests"], steady["errors"]) == (30, 0) and 0 < steady["p50"] <= steady["p99"] <= steady["max"]
    assert sorted(looks) == list(range(32)) and len(many.errors) == 2 and "422" in many.errors[0]
    assert after["recjax_batch_queries_sum"] - before["recjax_batch_queries_sum"] == 60
    assert all(np.isfinite(value) and value > 0 for value in load._ranking(before, after).values())
