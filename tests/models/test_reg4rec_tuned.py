"""REG4Rec's tuning: probabilities of samples add up, rewards are as by hand, targets grow likelier."""

from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from recjax.data.batches.views import Batch
from recjax.data.items import CODES, bare_items
from recjax.models.model import ItemStats
from recjax.models.parts.tuned import REFERENCE
from recjax.models.reg4rec_tuned import REG4RecTuned
from recjax.nn.groups import FROZEN

ITEMS, SIZES, TARGETS = 12, (4, 3), (6, 2)
TUPLES = np.stack(np.unravel_index(np.arange(-1, ITEMS) % ITEMS, SIZES), axis=1).astype(np.int32)
CATALOG = bare_items(ITEMS, {CODES: jnp.asarray(TUPLES)})
STATS = ItemStats(ITEMS, np.ones(ITEMS + 1), {CODES: (2,)}, SIZES)
CONFIG = REG4RecTuned(width=8, layers=1, heads=2, channels=4, inner=16, dropout=0.0, codes=4, beam=None)
MODEL = CONFIG.build(STATS)
ROWS = np.tile([[1, 2, 3, 5]], (8, 1)).astype(np.int32)
ASKED = np.arange(4) >= 2  # the third event's next item, and the one after
BATCH = Batch(ROWS, ROWS * 0 + 1, ROWS * 0, np.tile([[0, 0, *TARGETS]], (8, 1)), (ROWS * 0 + ASKED).astype(np.float32))  # pyright: ignore[reportArgumentType]


@cache
def params() -> Any:
    return jax.jit(MODEL.init)(jax.random.key(0), BATCH, CATALOG)


def history_of(batch: Batch) -> Any:
    return jnp.asarray(TUPLES)[batch.items], jnp.broadcast_to(jnp.arange(4) < 3, batch.items.shape)


def test_samples_are_items_drawn_by_their_probabilities():
    many = replace(MODEL, config=replace(CONFIG, samples=300))

    @jax.jit
    def run(params: Any) -> Any:
        paths = many.drawn(params, history_of(BATCH), CATALOG, jax.random.key(1))
        return paths, many.likelihood(params, history_of(BATCH), paths)

    paths, found = run(params())
    codes, found = np.asarray(paths.codes).reshape(-1, 2), np.exp(np.asarray(found)).reshape(-1)
    number = codes[:, 0] * SIZES[1] + codes[:, 1]
    assert set(number.tolist()) <= set(range(ITEMS))  # of 12 of 16 tuples that the heads could write
    chance = np.array([found[number == item][0] if (number == item).any() else 0.0 for item in range(ITEMS)])
    np.testing.assert_allclose(found, chance[number], rtol=1e-4)  # all histories are alike
    np.testing.assert_allclose(np.bincount(number, minlength=ITEMS) / len(number), chance, atol=0.03)
    assert chance.sum() > 0.99
    # The first slot is that of the surest code.
    asked = jax.jit(
        lambda params: MODEL.module.apply(
            {"params": params},
            method=lambda t5: t5.asked(
                t5.histories(*history_of(BATCH)), history_of(BATCH)[1], paths.codes[:, :1], paths.codes[:, :1] < 0
            ),
        )
    )(params())
    assert (np.asarray(paths.slot[:, :, 0]) == np.argmax(jax.nn.log_softmax(asked[0, 0]).max(axis=-1))).all()


def test_rewards_of_the_next_item_and_of_those_after_it():
    codes = jnp.array([[[1, 1], [1, 2], [2, 2], [3, 0]]])
    targets, ahead = jnp.array([[[0, 0], [1, 1], [2, 1]]]), jnp.array([[0.0, 1.0, 0.5]])
    expected = np.array([1.5 + 0.5 * 0.25, 0.25, 0.5 * 0.25, 0.0]) / 1.5
    np.testing.assert_allclose(MODEL.rewards(codes, targets, ahead)[0], expected, rtol=1e-6)


def test_what_comes_after_the_first_target_is_not_read():
    loss = jax.jit(lambda params, batch: MODEL.loss(params, batch, CATALOG, jax.random.key(2))[1])
    other = replace(BATCH, items=np.where(ASKED & (np.arange(4) > 2), 9, BATCH.items))
    jax.tree.map(np.testing.assert_array_equal, loss(params(), BATCH), loss(params(), other))


def test_tuning_makes_the_targets_likelier_and_leaves_the_reference():
    optimiser = optax.adam(0.02)

    @jax.jit
    def tuned(params: Any) -> Any:
        own = {name: each for name, each in params.items() if name != FROZEN}

        def step(state: Any, number: Any) -> Any:
            own, moments = state
            key = jax.random.fold_in(jax.random.key(3), number)
            grads, sums = jax.grad(lambda own: MODEL.loss({**params, **own}, BATCH, CATALOG, key), has_aux=True)(own)
            updates, moments = optimiser.update(grads, moments)
            return (optax.apply_updates(own, updates), moments), [
                sums[name][0] / sums[name][1] for name in ("reward", "hits", "kl")
            ]

        return jax.lax.scan(step, (own, optimiser.init(own)), jnp.arange(60))[1]

    reward, hits, divergence = map(np.asarray, tuned(params()))
    assert reward[-10:].mean() > reward[:10].mean() + 0.2 and hits[-10:].mean() > hits[:10].mean()
    assert divergence[0] == 0 and divergence[-1] > 0 and REFERENCE in params()[FROZEN]
