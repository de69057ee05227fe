"""Ids in their own history, by search and by comparison, against sets."""

import numpy as np
import pytest

from recjax.ops.items import membership
from recjax.ops.items.membership import in_history


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize("length", [1, 7, 33])
def test_equals_sets(platform, length, monkeypatch):
    monkeypatch.setattr(membership, "platform", lambda: platform)
    random = np.random.default_rng(length)
    items = random.integers(1, 12, (5, length)).astype(np.int32)
    items[0], items[1] = 3, np.arange(length) + 1  # one item alone; all different
    cuts = np.sort(random.integers(0, length + 1, (5, 3)), axis=1)
    segments = 1 + (np.arange(length) >= cuts[..., None]).sum(axis=1).astype(np.int32)
    segments[2] = 1
    padding = np.arange(length) >= length - length // 4
    segments[3:, padding], items[3:, padding] = 0, 0  # behind the histories, with a smaller number
    ids = random.integers(1, 14, (5, length, 3)).astype(np.int32)
    found = np.asarray(in_history(ids, items, segments))
    for row in range(5):
        for place in range(length):
            mine = set(items[row][segments[row] == segments[row, place]].tolist())
            assert found[row, place].tolist() == [one in mine for one in ids[row, place].tolist()]
