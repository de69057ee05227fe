"""The page on serving: its commands, against the server that the command starts; and how that server ends."""

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from recjax import cli
from recjax.serve import server
from recjax.typing import InputError
from tests.test_readme import ROOT, commands
from tests.tiny import SETTINGS, on_one_device


def asked(words: list[str], port: int) -> tuple[int, str]:
    """A curl command, sent."""
    (address,) = [urlsplit(word) for word in words if word.startswith("http://")]
    options = dict(itertools.pairwise(words))
    body = options.get("-d")
    method = options.get("-X", "GET" if body is None else "POST")
    headers = {} if body is None else dict([options["-H"].split(": ")])
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, address.path + (f"?{address.query}" if address.query else ""), body, headers)
    response = connection.getresponse()
    content = response.read().decode()
    connection.close()
    return response.status, content


def test_the_commands_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path / "cache"))
    on_one_device(monkeypatch)
    # A smaller model of the catalog that the page's run ranks.
    settings = [*SETTINGS, "--set", "data.dataset=synthetic-c", "--set", "train.evaluate_every=0"]
    assert cli.main(["train", "sasrec_synthetic", "--no-evaluate", *settings, "--run", "runs/quickstart"]) == 0
    lines = commands(ROOT / "docs" / "serve.md")
    (start,) = [words for words in lines if words[:2] == ["recjax", "serve"] and "runs/quickstart" in words]
    sent = [words for words in lines if words[0] == "curl"]
    assert len(sent) >= 10
    command = [sys.executable, "-m", *start[:-1], "0"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            ready = next((found for line in process.stdout if (found := re.search(r"ready: .*:(\d+)/", line))), None)
            assert ready is not None, process.stderr.read()
            for words in sent:
                status, content = asked(words, int(ready[1]))
                assert status in (200, 204), (words, content)
                if "candidates" in " ".join(words):
                    assert re.findall(r"outdoor-\d+", content) and "outdoor-00002" not in content
            begun = time.monotonic()
            process.send_signal(signal.SIGTERM)
            rest = process.stdout.read()
            assert process.wait(30) == 0 and "stopped" in rest and time.monotonic() - begun < 10
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "nowhere is not a run folder"),
        (["nowhere", "--port", "65536"], "--port is 65536, expected 0 to 65535"),
        (["nowhere", "--host", "no.such.host.invalid"], "--host no.such.host.invalid"),
        (["nowhere", "--max-k", "0"], "--max-k is 0, expected at least 1"),
    ],
)
def test_a_server_that_cannot_start_says_why(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["serve", "--port", "0", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_port_that_is_taken_is_told_at_once():
    with server.bound("127.0.0.1", 0) as first:
        first.listen()
        with pytest.raises(InputError, match="in use"):
            server.bound("127.0.0.1", first.getsockname()[1])
