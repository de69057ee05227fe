"""Layer around the application: limits on its body, headers of its answer, counts."""

import re
import time
from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recjax.serve.answers import Json, failed
from recjax.serve.measures import Measures

HEADERS = {
    # The page is made of three files of this server; nothing else may be loaded, and no other page may frame it.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}

OTHER = "other"
"""Route of the requests for paths that there are not, so that requests cannot make up labels."""


class Shell:
    """An application with a limit on bodies, headers and counts.

    Args:
        app: what answers.
        body: most bytes of a request.
        measures: what counts.
        hosts: names under which the server may be called, or None for any.
    """

    def __init__(self, app: ASGIApp, body: int, measures: Measures, hosts: tuple[str, ...] | None):
        self.app, self.body, self.measures, self.hosts = app, body, measures, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 0

        async def sends(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            if refusal := self._refusal(scope):
                await refusal(scope, receive, sends)
            else:
                await self.app(scope, self._bounded(receive), sends)
        finally:
            route = getattr(scope.get("route"), "path", OTHER)
            self.measures.answered(route, _method(scope), status or 499, time.perf_counter() - start)

    def _refusal(self, scope: Scope) -> Json | None:
        """The answer to a request that its head alone rules out, else None."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "").lower()
        name = host if host.endswith("]") else re.sub(r":\d*$", "", host)
        if self.hosts is not None and name not in self.hosts:
            return failed(400, "bad_host", f"this server does not answer for {host[:100]!r}")
        length = headers.get(b"content-length", "0")
        if not (length.isdigit() and len(length) < 19 and int(length) <= self.body):
            return failed(413, "too_long", self._words, headers={"connection": "close"})
        return None

    @property
    def _words(self) -> str:
        return f"the request has more than the {self.body:,} bytes that are taken"

    def _bounded(self, receive: Receive) -> Callable:
        read = 0

        async def receives() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self.body:
                raise HTTPException(413, self._words)
            return message

        return receives


def _method(scope: Scope) -> str:
    return scope["method"] if scope["method"] in ("GET", "HEAD", "POST", "DELETE") else OTHER
