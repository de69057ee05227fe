import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.models.model import ItemStats
from recjax.models.sasrec import SASRec
from recjax.train.optimiser import Adam, AdamW
from recjax.typing import InputError
from tests.train.toy import NO_COLUMNS, ToyLoader


@pytest.mark.parametrize(
    ("config", "rates"),
    [
        (Adam(0.1), {0: 0.1, 50: 0.1, 99: 0.1}),
        (Adam(0.1, schedule="linear"), {0: 0.1, 50: 0.05, 100: 0.0}),
        (Adam(0.1, schedule="cosine", final_share=0.1), {0: 0.1, 50: 0.055, 100: 0.01}),
        (Adam(0.1, warmup_steps=10), {0: 0.01, 5: 0.055, 10: 0.1, 99: 0.1}),
        (Adam(0.1, schedule="linear", hold=0.5), {0: 0.1, 50: 0.1, 75: 0.05, 100: 0.0}),
        (Adam(0.1, warmup_steps=20, schedule="linear", hold=0.6), {20: 0.1, 60: 0.1, 80: 0.05, 100: 0.0}),
        (Adam(0.1, warmup_steps=20, schedule="linear"), {20: 0.1, 60: 0.05, 100: 0.0}),
    ],
)
def test_rates(config, rates):
    for step, rate in rates.items():
        np.testing.assert_allclose(config.rate(100)(step), rate, rtol=1e-5, atol=1e-9)


def test_clipping_is_by_global_norm():
    params = {"a": jnp.zeros(3), "b": jnp.zeros(4)}
    grads = {"a": jnp.full(3, 0.03), "b": jnp.full(4, 0.04)}
    sizes = []
    for clip in (None, 1e-3):
        optimiser = Adam(1.0, b1=0.0, b2=0.0, eps=1.0, clip=clip).build(10)  # with so large an eps a step is grad / eps
        updates, _ = optimiser.update(grads, optimiser.init(params), params)
        sizes.append(float(jnp.sqrt(sum(jnp.vdot(u, u) for u in jax.tree.leaves(updates)))))
    assert sizes[1] == pytest.approx(1e-3, rel=1e-2)
    assert sizes[0] > 0.05


def test_decay_leaves_out_biases_norms_and_embeddings():
    model = SASRec(width=8, layers=1, max_length=6).build(ItemStats(31, np.ones(32)))
    params = jax.eval_shape(model.init, jax.random.key(0), ToyLoader().batch(0), NO_COLUMNS)
    decayed = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, decays in jax.tree.leaves_with_path(AdamW(weight_decay=0.1).decayed(params))
        if decays
    }
    assert decayed and all(path.endswith("kernel") for path in decayed)
    every = AdamW(weight_decay=0.1, no_decay=()).decayed(params)
    assert all(jax.tree.leaves(every))


def test_decay_shrinks_only_what_decays():
    params = {"dense": {"kernel": jnp.ones(2), "bias": jnp.ones(2)}, "items": jnp.ones(2)}
    optimiser = AdamW(0.1, weight_decay=0.5).build(10)
    updates, _ = optimiser.update(jax.tree.map(jnp.zeros_like, params), optimiser.init(params), params)
    np.testing.assert_allclose(updates["dense"]["kernel"], -0.05, rtol=1e-6)
    assert not np.any(updates["dense"]["bias"]) and not np.any(updates["items"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Adam(learning_rate=0.0), "Adam.learning_rate is 0.0, expected a number above 0"),
        (lambda: Adam(clip=-1.0), "Adam.clip is -1.0, expected a number above 0, or none"),
        (lambda: Adam(warmup_steps=-1), "Adam.warmup_steps is -1, expected 0 or more"),
        (lambda: Adam(warmup_steps=10).build(10), "only 10 steps"),
        (lambda: AdamW(no_decay=("(",)), "regular expression"),
    ],
)
def test_settings_that_cannot_be(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_state_space_parameters_have_a_rate_of_their_own_and_do_not_decay():
    params = {"mixer": {"ssm": {"decay": jnp.ones(3)}, "out": {"kernel": jnp.ones((2, 2))}}}
    grads = jax.tree.map(jnp.ones_like, params)
    whole = AdamW(0.1, weight_decay=0.5)
    slow = AdamW(0.1, weight_decay=0.5, ssm_rate=0.25)
    assert not whole.decayed(params)["mixer"]["ssm"]["decay"] and whole.decayed(params)["mixer"]["out"]["kernel"]
    (one, _), (other, _) = (o.build(5).update(grads, o.build(5).init(params), params) for o in (whole, slow))
    np.testing.assert_allclose(other["mixer"]["ssm"]["decay"], 0.25 * one["mixer"]["ssm"]["decay"], rtol=1e-6)
    np.testing.assert_allclose(other["mixer"]["out"]["kernel"], one["mixer"]["out"]["kernel"], rtol=1e-6)
