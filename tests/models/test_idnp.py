"""IDNP: a function of time inferred from a set of windows, and what is left without it."""

from typing import Any

import jax
import numpy as np
import optax
import pytest

from recjax.data.batches.histories import Histories
from recjax.data.batches.loader import Loader
from recjax.data.batches.views import Shifted
from recjax.data.items import bare_items
from recjax.models.idnp import IDNP
from recjax.models.model import ItemStats
from recjax.models.parts.neural_process import DAY, Process
from recjax.settings import SettingError

ITEMS, ROWS, LENGTH, KINDS = 12, 64, 5, 4
STATS, KNOWN = ItemStats(ITEMS, np.ones(ITEMS + 1, np.int64)), bare_items(ITEMS)
SMALL: dict[str, Any] = dict(width=8, heads=2, dropout=0.0, window=2, dilations=(1,))
OPTIONS: dict[str, Any] = dict(heads=2, dropout=0.0, window=1, stride=1, dilations=(1,), process=True, latent=True)


def planted(seed: int) -> Any:
    """A batch in which the first item of a history says which its last one is; those between are drawn."""
    items = np.random.default_rng(seed).integers(2 * KINDS + 1, ITEMS + 1, (ROWS, LENGTH + 1)).astype(np.int32)
    items[:, 0] = np.arange(ROWS) % KINDS + 1
    items[:, -1] = items[:, 0] + KINDS
    lengths, days = np.full(ROWS, LENGTH + 1), np.arange(items.size)
    histories = Histories.concatenated(lengths, items.ravel(), DAY * days, np.arange(ROWS))
    view = Shifted(LENGTH, align="left", targets=1, times=True)
    return Loader(histories, view, ROWS, None, 0, ITEMS, packed=False).host_batch(0)


def learned(process: bool) -> float:
    """Probability of the last items of other histories, as a geometric mean, after training."""
    model, optimiser = IDNP(**SMALL, process=process).build(STATS), optax.adam(0.02)
    batch, others = planted(0), planted(1)

    @jax.jit
    def trained(params):
        def step(carried, key):
            params, state = carried
            updates, state = optimiser.update(jax.grad(lambda p: model.loss(p, batch, KNOWN, key)[0])(params), state)
            return (optax.apply_updates(params, updates), state), None

        params = jax.lax.scan(step, (params, optimiser.init(params)), jax.random.split(jax.random.key(1), 80))[0][0]
        return model.loss(params, others, KNOWN, None)[1]["objective"]

    total, weight = trained(jax.jit(model.init)(jax.random.key(0), batch, KNOWN))
    return float(np.exp(-total / weight))


def test_what_is_far_back_is_inferred_by_the_process_alone():
    """The item that decides is out of the last window's sight."""
    assert learned(True) > 0.6 > 0.4 > learned(False)


@pytest.mark.parametrize("distance", ["kl", "w2"])
def test_the_context_is_a_set_of_pairs_of_a_time_and_a_window(distance):
    module = Process(**OPTIONS, distance=distance)
    x = np.random.default_rng(0).normal(size=(1, 6, 8)).astype(np.float32)
    times, there = DAY * np.array([[0, 2, 3, 7, 8, 20]], np.int32), np.ones((1, 6), bool)
    cut, asked, order = np.array([3]), np.array([[3, 5]]), np.array([2, 0, 1, 3, 4, 5])
    params = jax.jit(module.init)(jax.random.key(1), x, there, times, cut, asked)
    compiled = jax.jit(lambda *given: module.apply(params, given[0], there, *given[1:], asked))
    run = lambda *given: jax.device_get(compiled(*given))  # noqa: E731
    states, apart = run(x, times, cut)
    for same in (run(x[:, order], times[:, order], cut), run(x, times + 5 * DAY, cut)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), same, (states, apart))
    assert abs(run(x[:, order], times, cut)[0] - states).max() > 1e-3
    assert abs(states[0, 0] - states[0, 1]).max() > 1e-3  # another time to ask
    assert apart[0] > 0 and run(x, times, cut + 2)[1][0] < 1e-9  # nothing is left to learn from
    later = x.copy()
    later[:, 4:] = 0.0
    np.testing.assert_array_equal(run(later, times, cut)[0], states)


def test_settings_that_cannot_be():
    for wrong in ({"heads": 3}, {"dilations": ()}, {"dilations": (0,)}, {"divergence": -1.0}):
        with pytest.raises(SettingError):
            IDNP(**{"width": 8, **wrong})
