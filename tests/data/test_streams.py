"""Batches that must stay the same bit for bit, as digests: a run resumed with a newer recjax sees the same stream."""

import hashlib

import numpy as np
import pytest

from recjax.data.batches.denoising import Corrupted
from recjax.data.batches.hash_random import draw
from recjax.data.batches.loader import Loader
from recjax.data.batches.mixture import MixedLoader
from recjax.data.batches.views import Batch, Cloze, Shifted
from tests.data.handmade import histories

LENGTHS = (draw(7, np.arange(300)) % np.uint64(40)).astype(np.int64) + 1
FIELDS = ("items", "segments", "positions", "targets", "weights", "timestamps")


def digest(batches: list[Batch]) -> str:
    """The first 16 hex digits of the SHA-256 of all arrays of the batches."""
    total = hashlib.sha256()
    for batch in batches:
        for name in FIELDS:
            if (array := getattr(batch, name)) is not None:
                total.update(name.encode() + np.ascontiguousarray(array).tobytes())
    return total.hexdigest()[:16]


@pytest.mark.parametrize(
    ("view", "settings", "expected"),
    [
        (Shifted(20), {}, "cadb117a6ee143f8"),
        (Shifted(20, align="left", times=True, targets=2), {"row_length": 30, "seed": 5}, "d95c41f6b227f11f"),
        (Shifted(20), {"packed": False}, "295b77d0428d114e"),
        (Cloze(20), {}, "044cc1bcab5ae089"),
        (Cloze(16, mask_prob=0.4, last_copy=False, times=True), {"row_length": 40, "seed": 3}, "5eb8bc84febdd784"),
        (Corrupted(Shifted(20), 0.3), {}, "c663f76a1d22c49f"),
        (Corrupted(Shifted(12, align="left", times=True)), {"row_length": 30, "seed": 9}, "6dfc7b4dc2d8e8d6"),
    ],
)
def test_a_stream_is_what_it_was(view, settings, expected):
    settings = {"row_length": None, "seed": 0} | settings
    loader = Loader(histories(LENGTHS), view, 8, n_items=int(LENGTHS.sum()), **settings)
    assert digest([loader.host_batch(step) for step in (0, 1, 7, 50)]) == expected


def test_the_stream_of_a_mixture_is_what_it_was():
    loaders = [
        Loader(histories(LENGTHS[part::3]), Shifted(10), 4, None, part, int(LENGTHS[part::3].sum()))
        for part in range(3)
    ]
    mixed = MixedLoader(loaders, [5.0, 3.0, 2.0])
    assert digest([mixed.batch(step) for step in range(12)]) == "853e09f4561ecbe3"
