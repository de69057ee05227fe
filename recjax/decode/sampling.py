"""Items drawn from a model that predicts codes one after another, and the probabilities that they are drawn by.

Both are among the codes that some item of the trie has after the codes before.
"""

import jax
import jax.numpy as jnp

from recjax.decode.scoring import Stepwise
from recjax.decode.stepwise import children
from recjax.typing import Array, Float, Int


def sampled_codes(search: Stepwise, count: int, key: Array) -> Int[Array, "q n slots"]:
    """Codes of `count` items of each query, each code drawn by its probability."""
    cache, (code, node) = search.begin(search.queries), _start(search, count)
    codes = []
    for slot in range(search.trie.slots):
        logits, cache = search.step(cache, code)
        child = children(search.trie, slot, node)
        allowed = jnp.where(child >= 0, logits, -jnp.inf)
        code = jax.random.categorical(jax.random.fold_in(key, slot), allowed).astype(jnp.int32)
        node = jnp.maximum(jnp.take_along_axis(child, code[..., None], axis=2)[..., 0], 0)
        codes.append(code)
    return jnp.stack(codes, axis=2)


def log_probabilities(search: Stepwise, codes: Int[Array, "q n slots"]) -> Float[Array, "q n"]:
    """Of the codes of items of the trie, in nats."""
    cache, (code, node) = search.begin(search.queries), _start(search, codes.shape[1])
    total = jnp.zeros(codes.shape[:2])
    for slot in range(search.trie.slots):
        logits, cache = search.step(cache, code)
        child, code = children(search.trie, slot, node), codes[..., slot]
        found = jax.nn.log_softmax(logits, where=child >= 0, axis=-1)
        total += jnp.take_along_axis(found, code[..., None], axis=2)[..., 0]
        node = jnp.maximum(jnp.take_along_axis(child, code[..., None], axis=2)[..., 0], 0)
    return total


def _start(search: Stepwise, count: int) -> tuple[Int[Array, "q n"], Int[Array, "q n"]]:
    """The code and the node before the first slot."""
    rows = jax.tree.leaves(search.queries)[0].shape[0]
    return jnp.full((rows, count), -1, jnp.int32), jnp.zeros((rows, count), jnp.int32)
