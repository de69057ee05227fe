"""The best tuples of codes whether an item has them or not: decoding without a trie, to see what the trie is worth.

Of codes that are predicted independently, the best `width` tuples begin with one of the best `width` prefixes and go on
with one of the best `width` codes of the next slot, so a search slot by slot finds exactly the best of all tuples there
are. Most of them are no item; what is left after these are dropped is a list that may be short, or empty.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from recjax.decode.exact import Logits
from recjax.typing import Array, Float, InputError, Int


@partial(jax.jit, static_argnames=("width",))
def best_tuples(logits: Logits, width: int) -> tuple[Int[Array, "q w slots"], Float[Array, "q w"]]:
    """The best tuples of each query by the sum of their logits, best first.

    Args:
        logits: logits of each slot: float32 [q, slots, size], or one [q, size] a slot.
        width: tuples wanted; fewer come where there are fewer.
    """
    parts = [logits[:, slot] for slot in range(logits.shape[1])] if isinstance(logits, Array) else list(logits)
    scores = jnp.zeros((parts[0].shape[0], 1))
    tuples = jnp.zeros((*scores.shape, 0), jnp.int32)
    for part in parts:
        best, codes = jax.lax.top_k(part, min(width, part.shape[1]))
        sums = (scores[:, :, None] + best[:, None, :]).reshape(len(best), -1)
        scores, place = jax.lax.top_k(sums, min(width, sums.shape[1]))
        prefix = jnp.take_along_axis(tuples, (place // best.shape[1])[..., None], axis=1)
        last = jnp.take_along_axis(codes, place % best.shape[1], axis=1)
        tuples = jnp.concatenate([prefix, last[..., None]], axis=-1)
    return tuples, scores


def items_of(tuples: np.ndarray | Array, codes: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    """The item that has each tuple, the smallest id where several do and 0 where none does: int32 [...].

    Args:
        tuples: int [..., slots].
        codes: int [items + 1, slots], row 0 padding.
        sizes: codes there are in each slot.

    Raises:
        InputError: there are more tuples than an int64 can number.
    """
    if np.prod([float(size) for size in sizes]) >= 2.0**63:
        raise InputError(f"slots of sizes {sizes} make more tuples than can be numbered")
    place = np.cumprod([1, *sizes[:-1]], dtype=np.int64)
    keys, wanted = codes[1:].astype(np.int64) @ place, np.asarray(tuples).astype(np.int64) @ place
    order = np.argsort(keys, kind="stable")
    found = np.minimum(np.searchsorted(keys[order], wanted), len(order) - 1)
    item = order[found]
    return np.where(keys[item] == wanted, item + 1, 0).astype(np.int32)
