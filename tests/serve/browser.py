"""A real browser without a window, driven over its debugging pipe."""

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-extensions", "--hide-scrollbars", "--window-size=1280,900"),
)
PATIENCE = 20.0
"""Seconds until a page that does not become what it should is a failure."""


class Browser:
    """One page of a browser."""

    def __init__(self, reads: int, writes: int):
        self._reads, self._writes, self._rest, self._number = reads, writes, b"", 0
        self.session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of one command; events that come before it are gathered."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self._writes, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == self._number:
                assert "error" not in found, found
                return found["result"]
            self.events.append(found)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._reads, 1 << 16)
            assert part, "the browser has ended"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)

    def value(self, expression: str) -> Any:
        """A JavaScript expression in the page."""
        result = self._evaluated(expression)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def _evaluated(self, expression: str) -> dict[str, Any]:
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)

    def until(self, expression: str) -> Any:
        """The expression's value, once it is true; a page that is still loaded may lack what it asks for."""
        last = time.monotonic() + PATIENCE
        while not (found := self._evaluated(expression)["result"].get("value")):
            assert time.monotonic() < last, f"never true: {expression}\n{self.value('document.body.innerText')}"
            time.sleep(0.02)
        return found

    def type(self, text: str) -> None:
        """Text into what has the focus, as from a keyboard."""
        self.call("Input.insertText", text=text)

    def click(self, selector: str) -> None:
        """A click with the mouse on the middle of an element."""
        place = self.value(
            f"(() => {{ const box = document.querySelector({json.dumps(selector)}).getBoundingClientRect(); "
            "return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            at = {"x": place[0], "y": place[1], "button": "left", "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=kind, **at)


@contextlib.contextmanager
def browsing(profile: Path) -> Iterator[Browser]:
    """A browser with a profile of its own; skips where there is none."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("needs a Chromium on the path (Debian: apt-get install chromium)")
    (their_in, our_out), (our_in, their_out) = os.pipe(), os.pipe()
    # The browser reads commands from descriptor 3 and writes to 4.
    script = f'exec "$0" "$@" 3<&{their_in} 4>&{their_out}'
    options = ["--remote-debugging-pipe", f"--user-data-dir={profile}", *FLAGS]
    with subprocess.Popen(
        ["/bin/bash", "-c", script, program, *options],
        pass_fds=(their_in, their_out),
        stderr=subprocess.DEVNULL,
    ) as process:
        os.close(their_in)
        os.close(their_out)
        try:
            yield Browser(our_in, our_out)
        finally:
            process.terminate()
            process.wait(20)
            os.close(our_in)
            os.close(our_out)
