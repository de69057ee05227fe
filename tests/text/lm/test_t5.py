"""The T5-shaped encoder-decoder: parity with Hugging Face's, steps as all at once, and padding without effect."""

import json
import shutil
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from recjax.decode.stepwise import stepwise_topk
from recjax.decode.trie import build_trie
from recjax.text.lm.encoder import LanguageModelEncoder
from recjax.text.lm.t5 import T5
from recjax.text.lm.t5_folder import EncoderDecoder, read_t5, read_t5_config
from recjax.typing import InputError
from tests.decode.reference import catalog

TWINS = Path(__file__).parent / "twins"
VARIANTS = {"plain": "t5", "gated": "t5-gated"}
TARGETS = 14
SMALL = read_t5_config(json.loads((TWINS / "t5" / "config.json").read_text()))


@cache
def read(variant: str) -> EncoderDecoder:
    return read_t5(TWINS / VARIANTS[variant])


@cache
def arrays() -> dict[str, np.ndarray]:
    return load_file(TWINS / "t5.safetensors")


@cache
def compiled(variant: str):
    """The full pass of a variant."""
    return jax.jit(read(variant).module.apply)


def full(variant: str, params, tokens, mask, targets) -> np.ndarray:
    """Logits of targets [rows, n]; they are filled up, so that one program serves all, and none looks ahead."""
    targets = np.asarray(targets)
    filled = np.pad(targets, [(0, 0), (0, TARGETS - targets.shape[1])])
    return np.asarray(compiled(variant)(params, tokens, mask, filled))[:, : targets.shape[1]]


@pytest.mark.parametrize("variant", VARIANTS)
def test_parity_with_hugging_face(variant):
    inputs = arrays()["tokens"], arrays()["mask"] > 0, arrays()["targets"]
    assert inputs[2].shape[1] == TARGETS
    logits = full(variant, {"params": read(variant).params}, *inputs)
    np.testing.assert_allclose(logits, arrays()[f"{VARIANTS[variant]}/logits"], atol=2e-5)


def case(variant: str):
    """A module, its parameters, tokens, a mask and targets."""
    found = read(variant)
    return found.module, {"params": found.params}, arrays()["tokens"], arrays()["mask"] > 0, arrays()["targets"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_steps_equal_the_full_pass_with_continuations_that_change_places(variant):
    module, params, tokens, mask, targets = case(variant)
    rng, continuations = np.random.default_rng(0), 3
    chosen = rng.integers(1, 40, (2, continuations, 5)).astype(np.int32)
    chosen[:, :, :2] = targets[:, None, :2]  # one continuation until then

    @jax.jit
    def stepwise(params):
        call = partial(module.apply, params)
        states = call(call(tokens, method=T5.embed), mask, method=T5.encode)
        cache, found = call(states, mask, method=T5.begin), []
        for place in range(5):
            own = chosen[:, :1, place] if place < 2 else chosen[:, :, place]
            hidden, cache = call(cache, call(own, method=T5.embed), method=T5.step)
            found.append(jnp.broadcast_to(call(hidden, method=T5.logits), (2, continuations, 40)))
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
    dropping = T5(replace(module.config, dropout=0.1))
    dropped = jax.jit(dropping.apply)(params, tokens, mask, targets, rngs={"dropout": jax.random.key(0)})
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


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_encoder_alone_is_read_and_packed_texts_do_not_see_each_other(variant):
    folder = TWINS / VARIANTS[variant]
    whole, alone = read(variant), read_t5(folder, encoder=True)
    assert not any(name.startswith(("decoder", "head")) for name in alone.params)
    states = jax.jit(
        lambda params: alone.module.apply(
            {"params": params}, method=lambda t5: t5.encode(t5.embed(arrays()["tokens"]), arrays()["mask"] > 0)
        )
    )(alone.params)
    held = arrays()["mask"] > 0
    np.testing.assert_allclose(states[held], arrays()[f"{VARIANTS[variant]}/states"][held], atol=2e-5)

    encoder = LanguageModelEncoder(str(folder), max_tokens=8, batch_tokens=24)
    texts = ["red lamp", "", "the other one, which is cut", "red lamp"]
    found = encoder.encode(texts)
    for vector, tokens in zip(found[2:], whole.tokenise(texts)[2:], strict=True):
        row = jnp.array([tokens[:8]])
        own = whole.module.apply(
            {"params": whole.params}, method=lambda t5, row=row: t5.encode(t5.embed(row), row > -1)
        )
        np.testing.assert_allclose(vector, np.asarray(own)[0].mean(axis=0), atol=2e-5)
    assert not found[1].any() and encoder.width == 8
    np.testing.assert_allclose(found[0], found[3], atol=1e-5)
    first = read_t5(folder, layers=1)
    assert first.module.config.layers == 1 and "encoder_1" not in first.params and "decoder_1" in first.params


def test_folders_that_are_not_supported_say_what_was_expected(tmp_path):
    def refuses(message: str, **values) -> None:
        folder = shutil.copytree(TWINS / "t5", tmp_path / "t5", dirs_exist_ok=True)
        content = json.loads((folder / "config.json").read_text()) | values
        (folder / "config.json").write_text(json.dumps(content))
        with pytest.raises(InputError, match=message):
            read_t5(folder)

    refuses("model_type is 'bart', expected 't5'", model_type="bart")
    refuses("feed_forward_proj is 'gated-silu', expected one of: relu, gated-gelu", feed_forward_proj="gated-silu")
    refuses("quantization_config is there", quantization_config={"bits": 4})
    refuses("has no tensor .*wi_0.weight' and 1 more|has no tensor", feed_forward_proj="gated-gelu")
    refuses("has no tensor 'lm_head.weight'", tie_word_embeddings=False)
    refuses(r"has shape \(8, 12\), but config.json makes it \(8, 13\)", d_ff=13)
    refuses("too few for the 900 layers", num_layers=900)
    with pytest.raises(InputError, match="layers is 3, expected 1 to 2"):
        read_t5(TWINS / "t5", layers=3)
