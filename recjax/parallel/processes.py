"""Messages and barriers between the processes of a launch.

All of it goes over the coordination service that `jax.distributed` starts on process 0, not over the devices, so that a
process that is late or gone can be named.
"""

import os
import socket
from collections import Counter
from collections.abc import Iterable
from typing import Any

import jax

from recjax.typing import InputError

WAIT = 1800
"""Seconds that processes wait for each other, unless `$RECJAX_WAIT_LIMIT` says otherwise."""

_uses: Counter[str] = Counter()


class LaunchError(RuntimeError):
    """The processes of a launch have lost each other; the command prints the message alone and exits with status 1."""


def seconds(variable: str, default: float) -> float:
    """A time limit from the environment.

    Raises:
        InputError: it is no number above 0.
    """
    text = os.environ.get(variable, "")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise InputError(f"{variable}={text}: expected seconds, a number above 0")
    return value


def client() -> Any:
    """The key-value store that the processes share; None in a process of its own. JAX has no public name for it."""
    from jax._src import distributed

    return distributed.global_state.client


def host_name() -> str:
    """Of this machine, as its neighbours call it."""
    return socket.gethostname()


def barrier(name: str, limit: float | None = None) -> None:
    """Waits until every process has come to the barrier of this name; at once when there is one process.

    Args:
        name: what is waited for, in words that a user understands.
        limit: seconds to wait for the others, by default `$RECJAX_WAIT_LIMIT` or half an hour.

    Raises:
        LaunchError: some have not come; says which.
    """
    if jax.process_count() == 1:
        return
    limit, key = limit or seconds("RECJAX_WAIT_LIMIT", WAIT), _key("barrier", name)
    client().key_value_set(f"{key}/{jax.process_index()}", "here")
    try:
        client().wait_at_barrier(key, round(1000 * limit))
    except jax.errors.JaxRuntimeError as error:
        missing = sorted(set(range(jax.process_count())) - set(_entries(key)))
        if not missing:
            raise LaunchError(f"the processes could not meet at {name!r}: {error}") from error
        raise LaunchError(
            f"waited {limit:g} seconds at {name!r} for {describe(missing)}; the other "
            f"{jax.process_count() - len(missing)} of {jax.process_count()} processes are here. What they printed last "
            "says why; RECJAX_WAIT_LIMIT=SECONDS waits longer"
        ) from None


def share(name: str, text: str = "") -> str:
    """The text that process 0 gives, on every process; the others' is not looked at.

    Raises:
        LaunchError: process 0 has not said it within `$RECJAX_WAIT_LIMIT`.
    """
    if jax.process_count() == 1:
        return text
    key = _key("share", name)
    if jax.process_index() == 0:
        client().key_value_set(key, text)
        return text
    limit = seconds("RECJAX_WAIT_LIMIT", WAIT)
    try:
        return client().blocking_key_value_get(key, round(1000 * limit))
    except jax.errors.JaxRuntimeError as error:
        raise LaunchError(f"waited {limit:g} seconds at {name!r} for {describe([0])}: {error}") from None


def problems(name: str, text: str | None) -> dict[int, str]:
    """Errors by process; every process calls this after the same attempt and gets the same answer.

    Args:
        name: of the attempt.
        text: what went wrong here, or None.
    """
    if jax.process_count() == 1:
        return {} if text is None else {0: text}
    key = _key("problems", name)
    if text is not None:
        client().key_value_set(f"{key}/{jax.process_index()}", text)
    barrier(name)
    return _entries(key)


def announce_host() -> None:
    """Lets the others know where this process runs."""
    client().key_value_set(f"recjax/hosts/{jax.process_index()}", host_name())


def hosts() -> dict[int, str]:
    """Host of each process that has named it."""
    return _entries("recjax/hosts")


def describe(numbers: Iterable[int]) -> str:
    """Processes in words: their numbers and hosts."""
    known = hosts()
    named = [f"{number} on {known[number]}" if number in known else str(number) for number in numbers]
    return f"process{'es' if len(named) > 1 else ''} {', '.join(named)}"


def _key(kind: str, name: str) -> str:
    """A key that is never used twice; the same on every process, for all make the same calls in the same order."""
    _uses[f"{kind}/{name}"] += 1
    return f"recjax/{kind}/{name}/{_uses[f'{kind}/{name}']}"


def _entries(key: str) -> dict[int, str]:
    """Process -> text below a key."""
    found = client().key_value_dir_get(f"{key}/")
    return {int(path.rpartition("/")[2]): text for path, text in found}
