"""Every process of a launch notices when another one fails or dies, says so and stops, rather than wait for ever."""

import atexit
import contextlib
import os
import sys
import threading
import time

import jax

from recjax.parallel.processes import client, describe, seconds

DEAD_AFTER = 60.0
"""Seconds without a sign of life after which a process counts as dead, unless `$RECJAX_DEAD_AFTER` says otherwise."""

_BROKEN = ("gloo", "nccl", "connection", "unavailable", "deadline_exceeded")
"""Words of errors that a collective operation ends in when another process is gone."""

_END, _ALIVE, _LEFT = "recjax/end", "recjax/alive", "left"


def dead_after() -> float:
    """The limit in seconds, from the environment.

    Raises:
        InputError: the variable is no number above 0.
    """
    return seconds("RECJAX_DEAD_AFTER", DEAD_AFTER)


def start() -> None:
    """Starts to watch, on every process once it has joined the others; until the process ends.

    A process gives signs of life through the coordination service, and process 0 counts them. Whoever falls silent is
    named on every process, and all stop. JAX's own watch, which has no names of hosts and ends processes by abort, is
    set to act a little later; it alone notices that process 0 itself is gone.
    """
    limit, stop = dead_after(), threading.Event()
    thread = threading.Thread(target=_watch, args=(limit, stop), daemon=True, name="watch of the other processes")
    thread.start()
    atexit.register(_leave, thread, stop)  # runs before JAX's own, which lets go of the coordination service


def fail(error: BaseException, status: int) -> None:
    """Ends this process after an error at once, telling the others why; returns in a process of its own.

    Without it, the process would first wait for the others to end, and they for its part of the next step. An error
    that tells of a broken connection is most likely the death of another process: it is given the time to be named.
    """
    if not jax.distributed.is_initialized() or jax.process_count() == 1:
        return
    me, limit, reason = jax.process_index(), dead_after(), " ".join(str(error).split())[:300]
    if is_broken(error):
        print(f"recjax: process {me} has lost another one; waiting up to {limit:g} s to learn which", file=sys.stderr)
        time.sleep(limit + 3 * _period(limit))
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # another process failed first, or the service is gone
        client().key_value_set(f"{_END}/{me}", f"{describe([me])} stopped: {reason}")
    if me == 0:
        time.sleep(2 * _period(limit))  # the service, which the others hear of it from, ends with this process
    _exit(status)


def is_broken(error: BaseException) -> bool:
    """True if an error tells of a connection to another process that is gone."""
    found = isinstance(error, jax.errors.JaxRuntimeError) and any(word in str(error).lower() for word in _BROKEN)
    return found and jax.distributed.is_initialized()


def _watch(limit: float, stop: threading.Event) -> None:
    me, period, beats = jax.process_index(), _period(limit), 0
    heard: dict[str, tuple[str, float]] = {}
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # the service has ended: JAX's own watch takes over
        while not stop.wait(period):
            client().key_value_set(f"{_ALIVE}/{me}", str(beats), allow_overwrite=True)
            beats += 1
            if me == 0 and (silent := _silent(heard, limit)):
                words = f"no sign of life from {describe(silent)} for {limit:g} s: killed, hanging or cut off"
                client().key_value_set(f"{_END}/silence", words)
            if reasons := client().key_value_dir_get(f"{_END}/"):
                _stop(reasons[0][1], me, period)


def _silent(heard: dict[str, tuple[str, float]], limit: float) -> list[int]:
    """Processes whose last sign of life is older than `limit`, by the clock of this one."""
    now = time.monotonic()
    for path, beat in client().key_value_dir_get(f"{_ALIVE}/"):
        if path not in heard or heard[path][0] != beat:
            heard[path] = beat, now
    silent = [path for path, (beat, since) in heard.items() if beat != _LEFT and now - since > limit]
    return sorted(int(path.rpartition("/")[2]) for path in silent)


def _stop(reason: str, me: int, period: float) -> None:
    print(
        f"recjax: process {me} stops, because the launch cannot go on: {reason}. The same command resumes after the "
        "last checkpoint",
        file=sys.stderr,
        flush=True,
    )
    if me == 0:
        time.sleep(2 * period)
    _exit(1)


def _leave(thread: threading.Thread, stop: threading.Event) -> None:
    """Ends the watch; a thread that is inside the coordination service when Python ends would abort the process."""
    stop.set()
    thread.join(5.0)
    with contextlib.suppress(jax.errors.JaxRuntimeError, AttributeError):  # no service any more
        client().key_value_set(f"{_ALIVE}/{jax.process_index()}", _LEFT, allow_overwrite=True)


def _period(limit: float) -> float:
    """Seconds between signs of life."""
    return min(2.0, limit / 5)


def _exit(status: int) -> None:
    """Ends the process without waiting for anybody."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
