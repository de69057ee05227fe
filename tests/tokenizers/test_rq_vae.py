"""RQ-VAE: what each of its ideas does, on planted vectors, and that a key settles everything."""

from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.ops.balanced import balanced_clusters, balancing_prices, squared_distances
from recjax.tokenizers.diagnostics import diagnose
from recjax.tokenizers.preparation import prepared
from recjax.tokenizers.rq_vae import RQVAE
from recjax.tokenizers.rq_vae_model import RQAutoencoder, RQVAEModel, quantised
from recjax.tokenizers.training import VectorBatch
from tests.drawn import drawn_for

ITEMS, WIDTH, TOPICS, TASTES = 400, 12, 8, 8
TINY = RQVAE(
    slots=2, clusters=16, hidden=(24,), width=8, prepare="standardise", steps=150, batch=128, learning_rate=0.003
)
ALIGNED = replace(TINY, collaborative=3.0, diversity=1e-4)


@lru_cache
def planted():
    """Vectors that say an item's topic aloud and its taste quietly, the tastes, and what users do, by taste alone."""
    rng = np.random.default_rng(0)
    topics, tastes = rng.integers(0, TOPICS, ITEMS + 1), rng.integers(0, TASTES, ITEMS + 1)
    vectors = 1.5 * rng.normal(size=(TOPICS, WIDTH))[topics] + rng.normal(size=(TASTES, WIDTH))[tastes]
    vectors += 0.2 * rng.normal(size=(ITEMS + 1, WIDTH))
    behaviour = 2.0 * rng.normal(size=(TASTES, 8))[tastes] + 0.1 * rng.normal(size=(ITEMS + 1, 8))
    vectors[0] = behaviour[0] = 0
    return vectors.astype(np.float32), np.arange(ITEMS + 1) > 0, tastes, behaviour.astype(np.float32)


@lru_cache
def fitted(tokenizer: RQVAE, with_behaviour: bool = False):
    """State and codes."""
    vectors, known, _, behaviour = planted()
    state = tokenizer.fit(vectors, known, jax.random.key(0), behaviour=behaviour if with_behaviour else None)
    return state, tokenizer.encode(state, vectors, known)


@lru_cache
def decoded(tokenizer: RQVAE):
    """Compiled: parameters, latents -> reconstructions."""
    module = tokenizer.model(WIDTH).module
    return jax.jit(lambda params, latents: module.apply({"params": params}, latents, method=RQAutoencoder.decode))


@partial(jax.jit, static_argnums=0)
def latents_and_codes(model: RQVAEModel, params, vectors):
    """Both without prices."""
    latents = model.latents(params, vectors)
    return latents, quantised(latents, params["codebooks"], jnp.zeros(model.module.clusters)).codes


def error(tokenizer: RQVAE, state, codes: np.ndarray) -> float:
    """Mean square of a coordinate that codes leave unexplained, of items."""
    vectors, known, *_ = planted()
    entries = state["params"]["codebooks"][np.arange(codes.shape[1]), codes].sum(axis=1)
    rebuilt = decoded(tokenizer)(state["params"], entries)
    return float(np.mean((np.asarray(rebuilt) - prepared(state["preparation"], vectors, known))[1:] ** 2))


def used(codes: np.ndarray) -> tuple[int, ...]:
    """Entries of each codebook that some item takes."""
    return tuple(len(np.unique(column[1:])) for column in codes.T)


def test_codes_rebuild_vectors_where_random_ones_do_not_and_each_level_adds():
    state, codes = fitted(TINY)
    found = [error(TINY, state, codes[:, :slots]) for slots in (1, 2)]
    shuffled = error(TINY, state, np.random.default_rng(0).permutation(codes))
    assert found[0] > 1.1 * found[1]
    assert found[1] < 0.4 < 1.0 < shuffled


def test_a_start_at_centroids_and_revival_use_more_of_the_codebooks_than_chance():
    many = replace(TINY, clusters=32)
    plain = replace(many, revive=False)
    random, clusters = used(fitted(replace(plain, start="random"))[1]), used(fitted(plain)[1])
    assert sum(clusters) > 1.5 * sum(random)
    revived = used(fitted(replace(many, start="random"))[1])
    assert sum(revived) > 1.5 * sum(random)


def test_balanced_last_codes_are_used_nearly_equally_and_each_item_by_itself():
    vectors, known, *_ = planted()
    plain, balanced = (
        diagnose(fitted(each)[1], TINY.sizes).perplexity for each in (TINY, replace(TINY, sinkhorn=True))
    )
    assert balanced[-1] > 0.97 * 16 > plain[-1]
    state, codes = fitted(replace(TINY, sinkhorn=True))
    np.testing.assert_array_equal(TINY.encode(state, vectors[:20], known[:20]), codes[:20])
    # The greedy definition, in float64.
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), state["params"])
    model = TINY.model(WIDTH)
    ready = prepared(state["preparation"], vectors, known)
    residual = np.asarray(latents_and_codes(model, state["params"], ready)[0], np.float64)
    for slot, codebook in enumerate(params["codebooks"]):
        distances = ((residual[:, None] - codebook) ** 2).sum(-1) - (state["prices"] if slot == 1 else 0.0)
        assert (distances.argmin(1) == codes[:, slot])[1:].mean() > 0.99
        residual = residual - codebook[codes[:, slot]]


def shared(codes: np.ndarray, groups: np.ndarray) -> float:
    """Codes at the start that two items of one group have in common, on average."""
    codes, groups = codes[1:], groups[1:]
    alike = np.cumprod(codes[:, None] == codes[None], axis=-1).sum(-1)
    pairs = (groups[:, None] == groups) & ~np.eye(len(codes), dtype=bool)
    return float(alike[pairs].mean())


def test_what_users_do_alike_gets_alike_codes_under_the_collaborative_loss():
    tastes = planted()[2]
    aligned = fitted(ALIGNED, with_behaviour=True)[1]
    assert shared(aligned, tastes) > 1.5 * shared(fitted(TINY)[1], tastes)


def test_the_diversity_loss_equals_its_definition_where_groups_are_pairs_and_groups_do_not_learn():
    model = replace(TINY, diversity=1.0, groups=4).model(WIDTH)
    batch = VectorBatch(np.arange(64), planted()[0][1:65])  # pyright: ignore[reportArgumentType]
    params = jax.jit(model.init)(jax.random.key(0), batch)
    sizes = np.apply_along_axis(np.bincount, 1, np.asarray(params["groups"], int), minlength=4)
    assert sizes.sum(axis=1).tolist() == [16] * 2 and sizes.min() >= 2 and sizes.max() <= 6
    # With one other entry in each group nothing is drawn.
    params["groups"] = np.tile(np.arange(16, dtype=np.float32) // 2, (2, 1))
    (found, sums), grads = jax.jit(jax.value_and_grad(model.loss, has_aux=True))(params, batch, jax.random.key(3))
    assert not np.asarray(grads["groups"]).any() and np.asarray(grads["codebooks"]).any()
    books = np.asarray(params["codebooks"], np.float64)
    codes = np.asarray(latents_and_codes(model, params, batch.vectors)[1])
    losses = []
    for book, column in zip(books, codes.T, strict=True):
        similar = book @ book.T
        np.fill_diagonal(similar, -np.inf)
        losses.append(np.logaddexp.reduce(similar, axis=1)[column] - similar[column, column ^ 1])
    assert float(sums["diversity"][0]) / 64 == pytest.approx(np.mean(losses), rel=1e-4)
    weighed = {"reconstruction": 1, "codebook": 1, "commitment": 0.25, "diversity": 1}
    total = sum(weight * float(sums[name][0] / sums[name][1]) for name, weight in weighed.items())
    assert float(found) == pytest.approx(total, rel=1e-5)


def gradients(tokenizer: RQVAE, behaviour: int = 0, params: Any = None):
    """Parameters, new ones where none are given, and gradients of the loss by parameter."""
    vectors, known, _, acts = planted()
    columns = [vectors, acts, known[:, None]] if behaviour else [vectors]
    batch: Any = VectorBatch(*map(np.asarray, (range(1, 65), np.concatenate(columns, axis=1, dtype=np.float32)[1:65])))
    model = tokenizer.model(WIDTH, behaviour)
    if params is None:
        params = drawn_for(model.init, jax.random.key(0), batch)
    return jax.device_get((params, jax.jit(jax.grad(lambda p: model.loss(p, batch, jax.random.key(1))[0]))(params)))


def test_each_weight_changes_the_gradients_of_its_own_part():
    # Narrower than behaviour, so the latent is projected.
    base = replace(TINY, slots=1, start="random", collaborative=0.5, width=5)
    params, before = gradients(base, 8)
    for setting, moves in (("commitment", ("encoder",)), ("collaborative", ("encoder", "project"))):
        after = gradients(replace(base, **{setting: 2.0}), 8, params)[1]
        for name, tree in before.items():
            same = all(np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (tree, after[name])), strict=True))
            assert same != name.startswith(moves), name


def test_each_level_has_a_commitment_of_its_own():
    """An entry's gradient is that of its own level alone: 2 (e - r) / coordinates, a mean over vectors."""
    base = replace(TINY, start="random")
    model = base.model(WIDTH)
    params, grads = gradients(base)
    found = quantised(model.latents(params, planted()[0][1:65]), params["codebooks"], jnp.zeros(16))
    expected = np.zeros_like(params["codebooks"])
    pulls = 2 * np.asarray(found.entries - found.residuals) / found.entries.shape[2] / 64
    for slot in range(base.slots):
        np.add.at(expected[slot], np.asarray(found.codes)[:, slot], pulls[:, slot])
    np.testing.assert_allclose(grads["codebooks"], expected, rtol=1e-4, atol=1e-7)


def test_an_entry_that_no_vector_takes_gets_no_gradient():
    random = replace(TINY, start="random")
    params, grads = gradients(random)
    codes = np.asarray(latents_and_codes(random.model(WIDTH), params, planted()[0][1:65])[1])
    touched = grads["codebooks"].any(axis=-1)
    np.testing.assert_array_equal(touched, [[code in codes[:, slot] for code in range(16)] for slot in range(2)])


def test_a_key_settles_everything():
    vectors, known, _, behaviour = planted()
    again = ALIGNED.fit(vectors, known, jax.random.key(0), behaviour=behaviour)
    jax.tree.map(np.testing.assert_array_equal, again, fitted(ALIGNED, with_behaviour=True)[0])


def test_prices_balance_heavy_tails_and_clusters_are_of_one_size():
    rng = np.random.default_rng(0)
    vectors = np.exp(rng.normal(size=(600, 6))).astype(np.float32)
    distances = np.asarray(jax.jit(squared_distances)(vectors, vectors[:24]))
    before = np.bincount(np.argmin(distances, axis=1), minlength=24)
    after = np.bincount(np.argmin(distances - np.asarray(balancing_prices(distances)), axis=1), minlength=24)
    assert before.max() > 2.5 * 25 and after.min() >= 18 and after.max() <= 32
    groups = np.asarray(balanced_clusters(vectors[:90], 9, jax.random.key(0)))
    sizes = np.bincount(groups, minlength=9)
    assert sizes.min() >= 7 and sizes.max() <= 13
