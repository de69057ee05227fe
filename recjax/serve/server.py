"""A run over HTTP until a signal ends it."""

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import uvicorn

from recjax.serve.app import LOOPBACK, build
from recjax.serve.limits import Limits
from recjax.serve.measures import Measures
from recjax.serve.served import Served
from recjax.serve.service import Service
from recjax.typing import InputError

GRACE = 10
"""Seconds that requests under way have to end after a signal."""

CONNECTIONS = 2_000


def bound(host: str, port: int) -> socket.socket:
    """A socket with an address that does not listen yet, so that a port in use is an error before anything is compiled.

    Args:
        host: name or address.
        port: 0 for any free one.

    Raises:
        InputError: the address cannot be had.
    """
    if not 0 <= port <= 65_535:
        raise InputError(f"--port is {port}, expected 0 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
    except (OSError, OverflowError, UnicodeError) as error:
        raise InputError(f"--host {host} --port {port}: {getattr(error, 'strerror', None) or error}") from error
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind(address)
    except (OSError, OverflowError) as error:
        found.close()
        raise InputError(f"--host {host} --port {port}: {getattr(error, 'strerror', None) or error}") from error
    return found


def serve(served: Served, listener: socket.socket, limits: Limits, tell: Callable[[str], None]) -> None:
    """Compiles, answers, and returns after SIGINT or SIGTERM, when the requests under way have been answered.

    Args:
        served: the run.
        listener: from `bound`.
        limits: of requests.
        tell: called with each line for a person.
    """
    start, measures = time.perf_counter(), Measures()
    service = Service(served, limits, measures.ranked)
    alone = service.programs.warm()
    tell(
        f"{service.programs.count} programs ready in {time.perf_counter() - start:.1f} s; "
        f"a list takes {1000 * alone:.1f} ms on the device; online by {service.online}, room for {limits.users:,} users"
    )
    host, port = listener.getsockname()[:2]
    on_loopback = host.startswith("127.") or host == "::1"
    # A name with a colon cannot be separated from a port there.
    app = build(service, measures, LOOPBACK if on_loopback and ":" not in host else None)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=GRACE,
    )
    service.worker.start()
    try:
        shown = f"[{host}]" if ":" in host else host
        _Server(config, lambda: tell(f"ready: http://{shown}:{port}/")).run(sockets=[listener])
    finally:
        service.worker.stop()
        listener.close()
    tell("stopped")


class _Server(uvicorn.Server):
    """Uvicorn that says when it is ready, and ends after a signal as after any other end: with its work done."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]):
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Uvicorn's own would raise the signal again, so that a clean end had the status of a kill."""
        if threading.current_thread() is not threading.main_thread():  # which alone has signals
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
