"""The T5-shaped encoder-decoder: parity with Hugging Face's, steps as all at once, and padding without effect."""

import re
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from safetensors.numpy import load_file

from recjax.decode.stepwise import stepwise_topk
from recjax.decode.trie import build_trie
from recjax.models.parts.t5 import T5, T5Config
from recjax.typing import InputError
from tests.decode.reference import catalog

TWIN = Path(__file__).parent / "fixtures" / "t5.safetensors"
SMALL = T5Config(13, width=8, heads=2, channels=3, inner=12, layers=2, decoder_layers=2, buckets=8, max_distance=20)
VARIANTS = {"plain": SMALL, "gated": replace(SMALL, feed_forward="gated-gelu", tied=False)}
TARGETS = 14
NAMES = [
    (r"shared/embedding", "tokens"),
    (r"(encoder|decoder)/block/0/layer/0/SelfAttention/relative_attention_bias/embedding", r"\1_bias/table"),
    (r"(encoder|decoder)/final_layer_norm/weight", r"\1_norm/scale"),
    (r"(encoder|decoder)/block/(\d)/layer/\d/", r"\1_\2/"),
    (r"SelfAttention/", "own/"),
    (r"EncDecAttention/", "cross/"),
    (r"DenseReluDense/wi(_0)?/", "feed_forward/up/"),
    (r"DenseReluDense/wi_1/", "feed_forward/linear/"),
    (r"DenseReluDense/wo/", "feed_forward/down/"),
    *((f"/{name[0]}/kernel", f"/{name}/kernel") for name in ("query", "key", "value")),
    (r"/o/kernel", "/output/kernel"),
]


def twin(variant: str):
    """Parameters of a variant under our names, and the arrays of the fixture."""
    arrays, params = load_file(TWIN), {}
    for path, array in arrays.items():
        name = path.removeprefix(f"{variant}/")
        if name in (path, "logits"):
            continue
        if (norm := re.fullmatch(r"(encoder|decoder)/block/(\d)/layer/(\d)/layer_norm/weight", name)) is not None:
            parts = ["own", "feed_forward"] if norm[1] == "encoder" else ["own", "cross", "feed_forward"]
            name = f"{norm[1]}_{norm[2]}/{parts[int(norm[3])]}_norm/scale"
        elif name == "lm_head/kernel":
            name, array = "head", array.T
        for pattern, ours in NAMES:
            name = re.sub(pattern, ours, name)
        params[tuple(name.split("/"))] = array
    return unflatten_dict(params), arrays


@cache
def compiled(variant: str):
    """The full pass of a variant."""
    return jax.jit(T5(VARIANTS[variant]).apply)


def full(variant: str, params, tokens, mask, targets) -> np.ndarray:
    """Logits of targets [rows, n]; they are filled up, so that one program serves all, and none looks ahead."""
    targets = np.asarray(targets)
    filled = np.pad(targets, [(0, 0), (0, TARGETS - targets.shape[1])])
    return np.asarray(compiled(variant)(params, tokens, mask, filled))[:, : targets.shape[1]]


@pytest.mark.parametrize("variant", VARIANTS)
def test_parity_with_hugging_face(variant):
    params, arrays = twin(variant)
    module, inputs = T5(VARIANTS[variant]), (arrays["tokens"], arrays["mask"] > 0, arrays["targets"])
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes)
    assert arrays["targets"].shape[1] == TARGETS
    logits = full(variant, {"params": params}, *inputs)
    np.testing.assert_allclose(logits, arrays[f"{variant}/logits"], atol=2e-5)


def case(variant: str):
    """A module, its parameters, tokens, a mask and targets."""
    params, arrays = twin(variant)
    return T5(VARIANTS[variant]), {"params": params}, arrays["tokens"], arrays["mask"] > 0, arrays["targets"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_steps_equal_the_full_pass_with_continuations_that_change_places(variant):
    module, params, tokens, mask, targets = case(variant)
    rng, continuations = np.random.default_rng(0), 3
    chosen = rng.integers(1, 13, (2, continuations, 5)).astype(np.int32)
    chosen[:, :, :2] = targets[:, None, :2]  # one continuation until then

    @jax.jit
    def stepwise(params):
        call = partial(module.apply, params)
        states = call(call(tokens, method=T5.embed), mask, method=T5.encode)
        cache, found = call(states, mask, method=T5.begin), []
        for place in range(5):
            own = chosen[:, :1, place] if place < 2 else chosen[:, :, place]
            hidden, cache = call(cache, call(own, method=T5.embed), method=T5.step)
            found.append(jnp.broadcast_to(call(hidden, method=T5.logits), (2, continuations, 13)))
        return jnp.stack(found, axis=2)

    expected = [full(variant, params, tokens, mask, chosen[:, place]) for place in range(continuations)]
    np.testing.assert_allclose(stepwise(params), np.stack(expected, axis=1), atol=1e-5)


def test_padding_on_either_side_and_what_it_holds_change_nothing():
    module, params, tokens, mask, targets = case("plain")
    call = partial(full, "plain")
    expected = call(params, tokens, mask, targets)
    np.testing.assert_array_equal(call(params, np.where(mask, tokens, 5), mask, targets), expected)
    left = [np.stack([np.roll(row, 30 - n) for row, n in zip(x, mask.sum(1), strict=True)]) for x in (tokens, mask)]
    np.testing.assert_allclose(call(params, *left, targets), expected, atol=1e-5)
    later = targets.copy()
    later[:, 9:] = 1
    found = call(params, tokens, mask, later)
    np.testing.assert_array_equal(found[:, :9], expected[:, :9])
    assert not np.allclose(found[:, 9:], expected[:, 9:])
    assert np.isfinite(call(params, tokens, np.zeros_like(mask), targets)).all()
    # Inputs that share a position are a set.
    order, shared = np.array([1, 0, 3, 2, *range(4, 30)]), np.tile(np.arange(30) // 2, (2, 1))

    @jax.jit
    def encoded(params, tokens):
        return module.apply(params, module.apply(params, tokens, method=T5.embed), mask, shared, method=T5.encode)

    found = np.asarray(encoded(params, tokens))
    np.testing.assert_allclose(encoded(params, tokens[:, order]), found[:, order], atol=1e-5)


def test_bfloat16_computes_nearly_the_same_and_returns_float32_logits():
    module, params, tokens, mask, targets = case("plain")
    half = T5(replace(module.config, dtype="bfloat16"))
    found, exact = jax.jit(half.apply)(params, tokens, mask, targets), full("plain", params, tokens, mask, targets)
    assert found.dtype == jnp.float32 and not np.array_equal(found, exact)
    assert np.corrcoef(np.ravel(found), np.ravel(exact))[0, 1] > 0.99

    def remembered(params):
        states = half.apply(params, half.apply(params, tokens, method=T5.embed), mask, method=T5.encode)
        return states, half.apply(params, states, mask, method=T5.begin)

    states, cache = jax.eval_shape(remembered, params)
    assert {leaf.dtype for leaf in jax.tree.leaves((states, cache.cross, cache.own))} == {jnp.dtype("bfloat16")}


def test_dropout_needs_its_random_stream_and_logits_can_be_those_of_one_slot():
    module, params, tokens, mask, targets = case("gated")
    expected = full("gated", params, tokens, mask, targets)
    dropped = compiled("gated")(params, tokens, mask, targets, rngs={"dropout": jax.random.key(0)})
    assert not np.allclose(dropped, expected, atol=1e-3)
    logits = jax.jit(partial(module.apply, method=T5.logits), static_argnums=(2, 3))
    hidden = np.ones((2, 3, 8), np.float32)
    np.testing.assert_allclose(logits(params, hidden, 4, 9), np.asarray(logits(params, hidden))[..., 4:9], rtol=1e-6)


def test_a_beam_over_the_decoder_gives_paths_their_teacher_forced_scores():
    module, params, tokens, mask, _ = case("plain")
    sizes, offsets = (4, 4, 4), (1, 5, 9)  # token 0 starts
    codes = catalog(np.random.default_rng(1), 40, sizes)
    trie = build_trie(codes, sizes)

    @jax.jit
    def search(params, tokens, mask):
        call = partial(module.apply, params)

        def begin(queries):
            tokens, mask = queries
            return call(call(call(tokens, method=T5.embed), mask, method=T5.encode), mask, method=T5.begin)

        def step(cache, codes):
            slot = cache.own[0][0].shape[2]
            inputs = codes + offsets[slot - 1] if slot else codes + 1
            hidden, cache = call(cache, call(inputs, method=T5.embed), method=T5.step)
            return call(hidden, offsets[slot], offsets[slot] + sizes[slot], method=T5.logits), cache

        return stepwise_topk(begin, step, (tokens, mask), trie, 6, beam=6)

    items, scores = map(np.asarray, search(params, tokens, mask))
    for place in range(6):
        own = codes[items[:, place]]
        targets = np.concatenate([np.zeros((2, 1), np.int32), own[:, :2] + np.array(offsets[:2])], axis=1)
        logits = full("plain", params, tokens, mask, targets).astype(np.float64)
        expected = np.zeros(2)
        for slot, (offset, size) in enumerate(zip(offsets, sizes, strict=True)):
            own_logits = logits[:, slot, offset : offset + size]
            expected += own_logits[np.arange(2), own[:, slot]] - np.logaddexp.reduce(own_logits, axis=1)
        np.testing.assert_allclose(scores[:, place], expected, atol=1e-5)


def test_bad_sizes_are_refused():
    with pytest.raises(InputError, match="heads is 0"):
        replace(SMALL, heads=0)
    with pytest.raises(InputError, match="'swiglu', expected one of 'relu', 'gated-gelu'"):
        replace(SMALL, feed_forward="swiglu")
    with pytest.raises(InputError, match="buckets is 7"):
        replace(SMALL, buckets=7)
