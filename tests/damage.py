"""Damage for tests: files with one bit flipped, all over, drawn by a fixed seed; and a disk that is full."""

import random
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def flipped(path: Path, count: int = 64) -> Iterator[str]:
    """Flips one bit of a file at a time, `count` times, and puts it back afterwards; yields which."""
    content, draw = path.read_bytes(), random.Random(0)
    edge = min(16, len(content))
    places = [*range(edge), *range(len(content) - edge, len(content))]
    places += [draw.randrange(len(content)) for _ in range(count - len(places))]
    try:
        for place in places:
            bit = 1 << draw.randrange(8)
            path.write_bytes(content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :])
            yield f"bit {bit} of byte {place} of {path.name}"
    finally:
        path.write_bytes(content)


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """A disk that is full: no file of this process may grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
