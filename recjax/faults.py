"""The last words of a command that fails: one line for what is no fault of the program, and the exit status."""

import contextlib
import errno
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

BAD_PATHS = (
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP),
    *(errno.EACCES, errno.EPERM, errno.EROFS),
)
"""Error numbers of a bad path, rather than of the disk under it."""

INTERRUPTED, BROKEN_PIPE = 130, 141
"""Statuses of a shell for what SIGINT and SIGPIPE have ended."""


def explained(error: BaseException) -> tuple[str, int] | None:
    """The line and the exit status of an error; None for one that only its traceback explains."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", INTERRUPTED
    if isinstance(error, BrokenPipeError):
        return "", BROKEN_PIPE
    if isinstance(error, OSError) and error.errno is not None:
        what = f"{error.filename}: " if error.filename else ""
        return f"{what}{error.strerror or error}", 2 if error.errno in BAD_PATHS else 1
    if isinstance(error, MemoryError):
        return f"out of memory: {_first_line(error) or 'smaller sizes need less'}", 1
    if type(error).__name__ == "PanicException":  # of polars, derived from BaseException
        return f"polars cannot do this, and says: {_first_line(error)}", 1
    return _of_a_library(error)


def _of_a_library(error: BaseException) -> tuple[str, int] | None:
    """Errors whose classes take time to import, which has been spent by the time they are raised."""
    from jax.errors import JaxRuntimeError
    from polars.exceptions import PolarsError

    from recjax.evaluate.ranking import NonFiniteScoresError
    from recjax.parallel import watch
    from recjax.parallel.processes import LaunchError
    from recjax.train.errors import TrainingError
    from recjax.typing import InputError

    if isinstance(error, InputError):
        return str(error), 2
    if isinstance(error, LaunchError | NonFiniteScoresError | TrainingError):
        return str(error), 1
    if watch.is_broken(error):
        return f"lost touch with another process of the launch: {_first_line(error)}", 1
    if isinstance(error, JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error):
        return f"out of memory of the device: {_first_line(error)}", 1
    if isinstance(error, RuntimeError) and str(error).startswith("Unable to initialize backend"):
        return _first_line(error), 2
    if isinstance(error, PolarsError):
        return f"a table cannot be read or made: {_first_line(error)}", 1
    return None


@contextlib.contextmanager
def leaves_at_once(command: str) -> Iterator[None]:
    """While libraries are imported, Ctrl-C ends the process there and then: raised inside an import, it may be lost, or
    come back as an error of the library."""

    def leave(*_: object) -> None:
        os.write(2, f"recjax {command}: interrupted\n".encode())
        os._exit(INTERRUPTED)

    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield
        return
    before = signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def flushed(command: str) -> int:
    """Writes out what was printed; 0, or the status of a standard output that takes no more, which is then closed."""
    try:
        sys.stdout.flush()
        return 0
    except OSError as error:
        with contextlib.suppress(OSError, ValueError):  # else Python tries again when it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return BROKEN_PIPE
        print(f"recjax {command}: cannot write to standard output: {error.strerror}", file=sys.stderr)
        return 1


def any_text() -> None:
    """Lets a terminal or file that knows fewer letters than Unicode take all text, with `?` for what it lacks."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):  # replaced by something else, or closed
            stream.reconfigure(errors="replace")  # pyright: ignore[reportAttributeAccessIssue]


def without_echoes() -> None:
    """Silences what Orbax prints beside the errors that it raises, which have their own message here: its log, and the
    reads of a damaged checkpoint that come back to an event loop that is closed by then."""
    show = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            show(unraisable)

    sys.unraisablehook = hook
    for library in ("absl", "asyncio"):
        logging.getLogger(library).setLevel(logging.CRITICAL)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:500]
