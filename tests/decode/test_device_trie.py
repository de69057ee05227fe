"""The trie that is made on the device is the one that the host makes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.decode.trie import build_trie, device_trie
from recjax.typing import InputError
from tests.decode.reference import catalog


@pytest.mark.parametrize("sizes", [(5, 4, 3), (300, 300, 2), (20,)])
def test_it_is_that_of_the_host_for_one_of_several_catalogs(sizes):
    before, rows = 5, 50
    made = jax.jit(lambda codes, start, size: device_trie(codes, sizes, start, size))
    for items in (40, 1, 0):
        codes = catalog(np.random.default_rng(items), items, sizes)
        joined = np.ones((rows, len(sizes)), np.int32)
        joined[0], joined[before + 1 : before + 1 + items] = 0, codes[1:]
        expected = build_trie(codes, sizes, capacity=rows - 1)
        jax.tree.map(np.testing.assert_array_equal, made(joined, before, items), expected)


def test_codes_of_other_slots_are_refused():
    with pytest.raises(InputError, match="one column a slot"):
        device_trie(jnp.zeros((4, 2), int), (3,))
