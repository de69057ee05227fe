"""Chunked losses equal their dense definitions, in value and gradient."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.ops.items import sampled_losses, softmax


def _problem(tokens=37, rows=256, width=8, items=250, dtype=jnp.float32, bias=True):
    rng = np.random.default_rng(0)
    weights = rng.random(tokens).astype(np.float32) * (rng.random(tokens) < 0.6)
    return dict(
        hidden=rng.normal(size=(tokens, width)).astype(dtype),
        table=rng.normal(size=(rows, width)).astype(np.float32),
        bias=rng.normal(size=rows).astype(np.float32) if bias else None,
        targets=np.where(weights > 0, rng.integers(1, items + 1, tokens), 0).astype(np.int32),
        weights=weights,
        items=items,
    )


@partial(jax.jit, static_argnums=(0, 3))
def _graded(function, parts, fixed, options):
    return jax.value_and_grad(lambda parts: function(**parts, **fixed, **dict(options)))(parts)


def _value_and_grad(function, problem, **extra):
    """Loss and gradients by hidden, table and (if any) bias."""
    names = [n for n in ("hidden", "table", "bias") if problem[n] is not None]
    fixed = {n: v for n, v in problem.items() if n not in names and n != "items"}
    options = (("items", problem["items"]), *extra.items())
    return jax.device_get(_graded(function, {n: problem[n] for n in names}, fixed, options))


@pytest.mark.parametrize("chunk_elements", [2**22, 2**15, 128 * 8, 1])
@pytest.mark.parametrize("bias", [True, False])
def test_chunked_equals_dense(chunk_elements, bias):
    problem = _problem(bias=bias)
    value, grads = _value_and_grad(softmax.full_softmax, problem, chunk_elements=chunk_elements)
    dense, dense_grads = _value_and_grad(softmax.full_softmax_dense, problem)
    np.testing.assert_allclose(value, dense, rtol=1e-6)
    for name in grads:
        np.testing.assert_allclose(grads[name], dense_grads[name], rtol=1e-5, atol=2e-6, err_msg=name)


def test_item_chunks_that_do_not_divide_the_table():
    problem = _problem(rows=333, items=330)  # chunks of 128 rows: the last overlaps its neighbour
    value, grads = _value_and_grad(softmax.full_softmax, problem, chunk_elements=128 * 8)
    dense, dense_grads = _value_and_grad(softmax.full_softmax_dense, problem)
    np.testing.assert_allclose(value, dense, rtol=1e-6)
    np.testing.assert_allclose(grads["table"], dense_grads["table"], rtol=1e-5, atol=2e-6)


def test_matches_float64_reference():
    problem = _problem()
    logits = np.asarray(problem["hidden"], np.float64) @ np.asarray(problem["table"], np.float64).T
    logits = (logits + np.asarray(problem["bias"], np.float64))[:, 1 : problem["items"] + 1]
    log_total = np.log(np.exp(logits).sum(-1))
    targets, weights = np.asarray(problem["targets"]), np.asarray(problem["weights"], np.float64)
    rows = zip(weights, log_total, logits, targets, strict=True)
    expected = sum(w * (total - row[y - 1]) for w, total, row, y in rows if w > 0)
    np.testing.assert_allclose(_value_and_grad(softmax.full_softmax, problem)[0], expected, rtol=1e-6)


def test_padding_and_special_rows_never_compete():
    problem = _problem()
    value, grads = _value_and_grad(softmax.full_softmax, problem)
    problem["table"][0], problem["table"][251:] = 1e3, -1e3
    changed, changed_grads = _value_and_grad(softmax.full_softmax, problem)
    assert value == changed
    assert not np.any(np.asarray(changed_grads["table"])[[0, 251, 255]])
    np.testing.assert_array_equal(grads["hidden"], changed_grads["hidden"])


def test_tokens_of_weight_zero_get_no_gradient():
    problem = _problem()
    _, grads = _value_and_grad(softmax.full_softmax, problem, chunk_elements=2**12)
    idle = np.asarray(problem["weights"]) == 0
    assert idle.any() and not np.any(np.asarray(grads["hidden"])[idle])
    assert np.all(np.any(np.asarray(grads["hidden"])[~idle] != 0, axis=-1))


def test_no_active_token_gives_zero():
    problem = _problem()
    problem["weights"] *= 0
    value, grads = _value_and_grad(softmax.full_softmax, problem)
    assert value == 0
    assert not np.any(np.asarray(grads["hidden"]))


def test_bfloat16_products_keep_float32_sums():
    problem = _problem(dtype=jnp.bfloat16)
    value, grads = _value_and_grad(softmax.full_softmax, problem)
    assert value.dtype == jnp.float32 and grads["hidden"].dtype == jnp.bfloat16 and grads["table"].dtype == jnp.float32
    exact, _ = _value_and_grad(softmax.full_softmax, _problem())
    np.testing.assert_allclose(value, exact, rtol=2e-2)


def test_memory_stays_below_the_dense_loss():
    tokens, rows, width = 2048, 65536, 16
    shapes = dict(
        hidden=jax.ShapeDtypeStruct((tokens, width), jnp.float32),
        table=jax.ShapeDtypeStruct((rows, width), jnp.float32),
        targets=jax.ShapeDtypeStruct((tokens,), jnp.int32),
        weights=jax.ShapeDtypeStruct((tokens,), jnp.float32),
    )

    def temporary(function, **extra):
        def loss(hidden, table, targets, weights):
            return function(hidden, table, None, targets, weights, items=rows - 1, **extra)

        compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*shapes.values()).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(softmax.full_softmax, chunk_elements=2**20) < 0.1 * temporary(softmax.full_softmax_dense)


def _scores(count=5):
    rng = np.random.default_rng(1)
    positive = rng.normal(size=(2, 3)).astype(np.float32)
    negative = rng.normal(size=(2, 3, count)).astype(np.float32)
    allowed = rng.random((2, 3, count)) < 0.7
    return positive, negative, allowed


def test_sampled_softmax_by_hand():
    positive, negative, allowed = _scores()
    total = np.exp(positive) + (np.exp(negative) * allowed).sum(-1)
    np.testing.assert_allclose(
        sampled_losses.sampled_softmax(positive, negative, allowed), -np.log(np.exp(positive) / total), rtol=1e-5
    )


def test_gbce_equals_the_papers_logit_transform_in_float64():
    positive, negative, allowed = _scores()
    items, count = 101, negative.shape[-1]
    alpha = count / (items - 1)
    beta = alpha * (0.75 * (1 - 1 / alpha) + 1 / alpha)
    assert np.isclose(beta, sampled_losses.gbce_beta(items, count, 0.75))
    probability = 1 / (1 + np.exp(-positive.astype(np.float64)))
    against = np.log(1 - 1 / (1 + np.exp(-negative.astype(np.float64))))
    expected = -(np.log(probability**beta) + (against * allowed).sum(-1)) / (count + 1)
    np.testing.assert_allclose(sampled_losses.gbce(positive, negative, allowed, beta), expected, rtol=1e-5)


def test_gbce_is_finite_for_extreme_scores():
    positive = np.full((1, 1), -1e4, np.float32)
    negative = np.full((1, 1, 1), 1e4, np.float32)
    value = sampled_losses.gbce(positive, negative, np.ones((1, 1, 1), bool), 0.01)
    assert np.isfinite(value).all() and value > 4e3


@pytest.mark.parametrize(("t", "expected"), [(0.0, 1.0), (1.0, 256 / 3415)])
def test_gbce_beta_ends(t, expected):
    assert np.isclose(sampled_losses.gbce_beta(3416, 256, t), expected)


def test_bpr_by_hand():
    positive, negative, allowed = _scores()
    terms = np.log1p(np.exp(negative - positive[..., None])) * allowed
    np.testing.assert_allclose(
        sampled_losses.bpr(positive, negative, allowed), terms.sum(-1) / np.maximum(allowed.sum(-1), 1), rtol=1e-5
    )
