"""Models that compute the same are the same to what is compiled for them."""

from dataclasses import replace
from functools import partial

import jax
import numpy as np

from recjax.evaluate.ranking import SameModel
from recjax.models.model import ItemStats
from recjax.models.next_item import NextItem
from recjax.models.parts.dot_product import DotProductModel
from recjax.nn.identity import identity_of
from recjax.track.metrics import read_metrics

SMALL = NextItem(width=8, layers=1, heads=2, max_length=4)


def stats(items: int = 5, often: int = 1) -> ItemStats:
    return ItemStats(items=items, counts=np.full(items + 1, often))


def other_class(model: DotProductModel) -> DotProductModel:
    """Of a subclass that changes nothing."""
    return type("Other", (type(model),), {})(model.module, model.objective, model.stats)


def test_models_built_twice_are_one_and_any_difference_counts():
    model = SMALL.build(stats())
    assert SameModel(model) == SameModel(SMALL.build(stats()))
    assert hash(SameModel(model)) == hash(SameModel(SMALL.build(stats())))
    others = [SMALL.build(stats(often=2)), SMALL.build(stats(6)), replace(SMALL, layers=2).build(stats())]
    others += [replace(SMALL, dropout=0.3).build(stats()), other_class(model)]
    assert all(SameModel(other) != SameModel(model) for other in others)


def test_content_counts_and_what_is_unknown_is_itself_alone():
    assert identity_of(np.arange(3, dtype=np.int32)) == identity_of(jax.numpy.arange(3, dtype=np.int32))
    assert (
        identity_of(np.arange(3))
        != identity_of(np.arange(3).astype(np.int8))
        != identity_of(np.arange(4, dtype=np.int8))
    )
    assert identity_of({"a": [1, (2.0,)]}) == identity_of({"a": [1, (2.0,)]}) != identity_of({"a": [1, (2,)]})
    assert identity_of(partial(read_metrics, 1)) == identity_of(partial(read_metrics, 1)) != identity_of(read_metrics)
    one, other = {1, 2}, {1, 2}  # sets cannot be hashed
    assert identity_of(one) != identity_of(other)
