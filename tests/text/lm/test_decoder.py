"""Decoders equal PyTorch's logits and texts, alone, packed, cached, over a mesh, and in half precision."""

from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from recjax.parallel.mesh import MeshShape
from recjax.parallel.sharding import ShardingRules
from recjax.text.lm.decoder import SHARDING_RULES, Decoder
from recjax.text.lm.folder import LanguageModel, read_language_model
from recjax.text.lm.generate import Sampling, chosen, generate, log_likelihoods
from recjax.text.rows import TokenRows, padded

TWINS = Path(__file__).parent / "twins"
FAMILIES = ("llama", "smollm2", "qwen2", "qwen3")
GENERATED = ("qwen3",)
"""Families whose texts are compared too; the cache is the same for all."""


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    return load_file(TWINS / "expected.safetensors")


@pytest.fixture(scope="module")
def read():
    """Reader of a twin, or of its first layers, once each."""
    return cache(lambda family, layers=None: read_language_model(TWINS / family, layers=layers))


@partial(jax.jit, static_argnums=0)
def _logits(decoder: Decoder, params, rows: TokenRows, vectors):
    return decoder.apply({"params": params}, rows, vectors)


def logits(model: LanguageModel, rows: TokenRows, vectors=None) -> np.ndarray:
    return np.asarray(_logits(model.decoder, model.params, rows, vectors))


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_texts_are_those_of_pytorch(read, expected, family):
    model, rows = read(family), padded(expected["tokens"])
    np.testing.assert_allclose(logits(model, rows), expected[f"{family}/logits"], atol=1e-4)
    if family not in GENERATED:
        return
    found = generate(model.decoder, model.params, padded(expected["tokens"][:, :10]), new=12, stop=model.stop)
    length = expected[f"{family}/generated"].shape[1]
    made = np.where(expected[f"{family}/generated"] == 2, 0, expected[f"{family}/generated"])
    np.testing.assert_array_equal(found.tokens[:, :length], made)
    assert not found.tokens[:, length:].any()


def test_likelihoods_are_those_of_the_logits(read, expected, monkeypatch):
    model, tokens = read("qwen3"), expected["tokens"]
    monkeypatch.setattr("recjax.text.lm.generate.CHUNK", 2 * 40 * 7)  # 29 targets in chunks of 7
    found = log_likelihoods(model.decoder, model.params, padded(tokens))
    whole = expected["qwen3/logits"] - np.logaddexp.reduce(expected["qwen3/logits"], axis=-1, keepdims=True)
    picked = np.take_along_axis(whole[:, :-1], tokens[:, 1:, None], axis=-1)[..., 0]
    np.testing.assert_allclose(found[:, 1:], picked, atol=1e-4)
    assert not found[:, 0].any()


def test_texts_of_a_packed_row_do_not_see_each_other(read, expected):
    model, tokens = read("qwen3"), expected["tokens"]
    segments = np.repeat([[1, 2, 0]], [11, 13, 6], axis=1).astype(np.int32)
    packed = TokenRows(tokens, np.tile(segments, (2, 1)))
    apart = logits(model, padded([tokens[0, :11], tokens[0, 11:24]], 30))
    found = logits(model, packed)[0]
    np.testing.assert_allclose(found[:11], apart[0, :11], atol=1e-4)
    np.testing.assert_allclose(found[11:24], apart[1, :13], atol=1e-4)
    each = np.asarray(log_likelihoods(model.decoder, model.params, packed))[0]
    assert not each[[0, 11, *range(24, 30)]].any() and (each[1:11] < 0).all()


def test_a_prompt_does_not_depend_on_its_batch(read, expected):
    model = read("llama", 1)
    prompts = [expected["tokens"][0, :4], expected["tokens"][1, :9], expected["tokens"][0, :1]]
    run = partial(generate, model.decoder, model.params, new=6)
    together = np.asarray(run(padded(prompts)).tokens)
    np.testing.assert_array_equal(run(padded([prompts[1], prompts[0], prompts[0]])).tokens[1], together[0])
    # What was generated is the likeliest token at each position of the whole.
    texts = [[*prompt, *new] for prompt, new in zip(prompts, together, strict=True)]
    best = logits(model, padded(texts[:2], 30)).argmax(-1)
    np.testing.assert_array_equal(best[0, 3:9], together[0])
    np.testing.assert_array_equal(best[1, 8:14], together[1])
    ended = run(padded(prompts), stop=(int(together[0, 2]),))
    first = list(together[0]).index(together[0, 2])
    np.testing.assert_array_equal(ended.tokens[0], [*together[0, :first], *[0] * (6 - first)])
    assert ended.lengths[0] == first


def test_samples_follow_the_probabilities(expected):
    one = expected["qwen2/logits"][0, 3]

    @jax.jit
    def drawn(logits, key):
        ways = (Sampling(3.0), Sampling(3.0, most=3), Sampling(3.0, share=0.5))
        return [chosen(logits, key, way) for way in ways], chosen(logits)

    (free, few, likely), best = jax.device_get(drawn(np.tile(one, (4000, 1)), jax.random.key(0)))
    exact = np.exp(one / 3.0 - np.logaddexp.reduce(one / 3.0))
    assert np.abs(np.bincount(free, minlength=40) / 4000 - exact).sum() < 0.1
    order = np.argsort(-exact)
    assert set(np.unique(few)) == set(order[:3])
    assert set(np.unique(likely)) == set(order[: np.searchsorted(np.cumsum(exact[order]), 0.5) + 1])
    assert set(np.unique(best)) == {order[0]}


def test_vectors_stand_in_place_of_tokens(read, expected):
    model, tokens = read("qwen2"), expected["tokens"].copy()
    vectors = np.asarray(model.params["tokens"])[tokens[:, [4, 2]]]
    slots = np.full(tokens.shape, -1, np.int32)
    slots[:, 4], slots[:, 2] = 0, 1
    spoilt = tokens.copy()
    spoilt[:, [2, 4]] = 0
    rows = padded(spoilt)
    rows = TokenRows(rows.tokens, rows.segments, slots=slots)
    np.testing.assert_allclose(logits(model, rows, vectors), logits(model, padded(tokens)), atol=1e-5)


def test_over_a_mesh(read, expected):
    model = read("llama", 1)
    rows = padded(np.tile(expected["tokens"][:, :8], (2, 1)))
    run = partial(generate, new=3)
    plain, texts = logits(model, rows), run(model.decoder, model.params, rows).tokens
    mesh = MeshShape(data=2, model=4).build()
    with jax.set_mesh(mesh):
        layout = ShardingRules(tuple(SHARDING_RULES)).shard(model.params, mesh)
        assert len({str(leaf.spec) for leaf in jax.tree.leaves(layout)}) == 4
        params = jax.device_put(model.params, layout)
        np.testing.assert_allclose(_logits(model.decoder, params, rows, None), plain, atol=1e-4)
        np.testing.assert_array_equal(run(model.decoder, params, rows).tokens, texts)


def test_half_precision_and_remat(read, expected):
    model, rows = read("smollm2", 1), padded(expected["tokens"])
    half = read_language_model(TWINS / "smollm2", layers=1, dtype="bfloat16", weights="bfloat16", remat=True)
    assert {leaf.dtype for leaf in jax.tree.leaves(half.params)} == {jnp.dtype("bfloat16")}
    plain, close = logits(model, rows), logits(half, rows)
    assert close.dtype == np.float32 and 0 < np.abs(close - plain).max() < 0.1 * np.abs(plain).max()

    @partial(jax.jit, static_argnums=0)
    @partial(jax.grad, argnums=1)
    def gradient(decoder: Decoder, params):
        return -log_likelihoods(decoder, params, rows).sum()

    again = Decoder(replace(model.decoder.config, remat=True))
    pair = (gradient(decoder, model.params) for decoder in (model.decoder, again))
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-3, rtol=1e-4), *pair)


def test_the_first_blocks_of_a_folder(read, expected):
    model = read("smollm2")
    short = read("smollm2", 1)
    rows = padded(expected["tokens"])

    def states(decoder: Decoder, params):
        inputs = decoder.apply({"params": params}, rows, method="embed")
        return decoder.apply({"params": params}, inputs, rows, method="all_states")

    both = jax.jit(lambda *params: [states(each.decoder, p) for each, p in zip((model, short), params, strict=True)])
    whole, part = both(model.params, short.params)
    assert len(whole) == 3 and len(part) == 2
    for a, b in zip(part, whole, strict=False):
        np.testing.assert_array_equal(a, b)
