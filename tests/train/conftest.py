from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import pytest


@pytest.fixture(scope="package", autouse=True)
def compilation_cache(tmp_path_factory):
    """The tests of a room train the same toy many times; it is compiled once."""
    with compiled_once(tmp_path_factory.mktemp("compiled")):
        yield


@contextmanager
def compiled_once(folder: Path) -> Iterator[None]:
    """While entered, what is compiled is kept in a folder and found there."""
    before = {
        name: getattr(jax.config, name)
        for name in ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    }
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
