"""Latency, throughput and memory of `recjax serve` on loopback.

    python experiments/benchmarks/serving.py runs/sasrec_beauty --out results/serving.json

Starts the server of a run, then sends a bounded number of requests, each a history of 1 to 50 items drawn from the
catalog, from this process to 127.0.0.1 alone: first at a fixed rate, where a request's time counts from when it was due
(so that a late sender flatters nothing), then as fast as some connections can, for the memory of the server over many
requests. It ends with status 1 where a request failed.
"""

import argparse
import asyncio
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
READY = 600.0
"""Seconds that the server has to compile its programs."""


@dataclass
class Measured:
    """Times of the requests of a phase, in seconds, and what went wrong."""

    times: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def row(self) -> dict[str, Any]:
        times = np.sort(self.times)
        quantiles = {f"p{name}": float(np.quantile(times, float(f"0.{name}"))) for name in ("50", "90", "99", "999")}
        return {
            "requests": len(times),
            "errors": len(self.errors),
            "a second": len(times) / self.seconds,
            **quantiles,
            "max": float(times[-1]),
        }


class Connection:
    """HTTP/1.1 over one persistent connection: as little work as a client can have."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.reader, self.writer = reader, writer

    async def post(self, body: bytes) -> int:
        """Number of items of the list."""
        head = ("POST /v1/recommend HTTP/1.1", "host: 127.0.0.1", "content-type: application/json")
        self.writer.write("\r\n".join([*head, f"content-length: {len(body)}", "\r\n"]).encode() + body)
        found = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        length = re.search(r"content-length: (\d+)", found, re.IGNORECASE)
        content = await self.reader.readexactly(int(length[1]) if length else 0)
        if not found.startswith("HTTP/1.1 200"):
            raise ValueError(f"{found.splitlines()[0]} {content[:200]!r}")
        return content.count(b'"rank"')


async def connections(port: int, count: int) -> list[Connection]:
    return [Connection(*await asyncio.open_connection("127.0.0.1", port)) for _ in range(count)]


async def at_rate(port: int, bodies: list[bytes], rate: float) -> Measured:
    """Requests that are due at a fixed rate, whatever became of those before."""
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for connection in await connections(port, 64):
        free.put_nowait(connection)
    measured, first = Measured(), time.perf_counter() + 0.1

    async def one(number: int, body: bytes) -> None:
        due = first + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        connection = await free.get()
        await _timed(connection, body, due, measured)
        free.put_nowait(connection)

    # A thousand at a time, so that no heap of sleepers weighs on the clock.
    for start in range(0, len(bodies), 1_000):
        await asyncio.gather(*(one(start + place, body) for place, body in enumerate(bodies[start : start + 1_000])))
    measured.seconds = time.perf_counter() - first
    return measured


async def at_once(port: int, bodies: list[bytes], clients: int, each: Callable[[int], Awaitable[None]]) -> Measured:
    """Requests of some clients, each sending its next one after the answer to the last."""
    measured, left, start = Measured(), iter(enumerate(bodies)), time.perf_counter()

    async def client(connection: Connection) -> None:
        for number, body in left:
            await each(number)
            await _timed(connection, body, time.perf_counter(), measured)

    await asyncio.gather(*(client(connection) for connection in await connections(port, clients)))
    measured.seconds = time.perf_counter() - start
    return measured


async def _timed(connection: Connection, body: bytes, due: float, measured: Measured) -> None:
    try:
        if not await connection.post(body):
            measured.errors.append("an empty list")
    except (OSError, ValueError, EOFError) as error:
        measured.errors.append(repr(error))
    measured.times.append(time.perf_counter() - due)


def figures(port: int) -> dict[str, float]:
    """The server's own figures that have no labels."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as response:
        lines = [line.split() for line in response.read().decode().splitlines() if line[0] != "#" and "{" not in line]
    return {name: float(value) for name, value in lines}


def catalog(port: int) -> list[str]:
    """Some ids of the catalog."""
    found: dict[str, None] = {}
    for word in "abcdefghijklmnopqrstuvwxyz":
        with urlopen(f"http://127.0.0.1:{port}/v1/items?limit=100&search={word}", timeout=60) as response:
            found |= dict.fromkeys(item["item_id"] for item in json.load(response)["items"])
    return list(found)


def requests(ids: list[str], count: int, k: int, seed: int) -> list[bytes]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 51, count)
    return [json.dumps({"history": rng.choice(ids, length).tolist(), "k": k}).encode() for length in lengths.tolist()]


def start(run: Path) -> tuple[subprocess.Popen, int, float]:
    """The server, its port and the seconds until it was ready."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "recjax", "serve", str(run), "--port", "0"]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": paths})
    assert server.stdout is not None
    for line in server.stdout:
        print(line, end="", flush=True)
        if found := re.search(r"ready: http://127\.0\.0\.1:(\d+)/", line):
            return server, int(found[1]), time.perf_counter() - start
        if time.perf_counter() - start > READY:
            break
    server.kill()
    raise SystemExit("the server did not become ready")


def main() -> int:
    """Runs both phases and prints their figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--rate", type=float, default=100, help="requests a second of the first phase (default 100)")
    parser.add_argument("--seconds", type=float, default=60, help="of the first phase (default 60)")
    parser.add_argument("--requests", type=int, default=100_000, help="of the second phase (default 100000)")
    parser.add_argument("--clients", type=int, default=32, help="connections of the second phase (default 32)")
    parser.add_argument("--k", type=int, default=10, help="items of a list (default 10)")
    parser.add_argument("--out", type=Path, help="file for all figures, as JSON")
    options = parser.parse_args()
    server, port, ready = start(options.run)
    try:
        ids = catalog(port)
        asyncio.run(at_once(port, requests(ids, 500, options.k, 1), 8, _nothing))  # pools and caches fill
        load = os.getloadavg()[0]
        before = figures(port)
        steady = asyncio.run(
            at_rate(port, requests(ids, round(options.rate * options.seconds), options.k, 2), options.rate)
        )
        after = figures(port)
        memory: list[tuple[int, float]] = []

        async def look(number: int) -> None:
            if number % max(options.requests // 20, 1) == 0:
                found = await asyncio.to_thread(figures, port)
                memory.append((number, found["process_resident_memory_bytes"]))

        many = asyncio.run(at_once(port, requests(ids, options.requests, options.k, 3), options.clients, look))
        last = figures(port)
        memory.append((options.requests, last["process_resident_memory_bytes"]))
    finally:
        server.send_signal(signal.SIGTERM)
        status = server.wait(60)
    result = {
        "ready seconds": ready,
        "load before": load,
        "cores": os.cpu_count(),
        "at a rate": steady.row() | _ranking(before, after),
        "as fast as can be": many.row() | _ranking(after, last),
        "memory": memory,
        "status": status,
        "errors": (steady.errors + many.errors)[:20],
    }
    _print(result)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=2) + "\n")
    return int(bool(result["errors"]) or status != 0)


async def _nothing(number: int) -> None:
    del number


def _ranking(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Of the batches between two looks: seconds of a batch, queries of it; of the process: processor time a request."""
    names = (
        "recjax_ranking_seconds_sum",
        "recjax_ranking_seconds_count",
        "recjax_batch_queries_sum",
        "process_cpu_seconds_total",
    )
    seconds, batches, queries, cpu = (after[name] - before[name] for name in names)
    return {
        "batch seconds": seconds / batches,
        "queries a batch": queries / batches,
        "cpu a request": cpu / queries,
    }


def _print(result: dict[str, Any]) -> None:
    print(f"ready after {result['ready seconds']:.1f} s; load of the machine before: {result['load before']:.1f}")
    for phase in ("at a rate", "as fast as can be"):
        row = result[phase]
        times = "  ".join(f"{name} {1000 * row[name]:.1f}" for name in ("p50", "p90", "p99", "p999", "max"))
        print(
            f"{phase}: {row['requests']:,} requests, {row['errors']} errors, {row['a second']:.0f} a second; "
            f"ms: {times}; batch {1000 * row['batch seconds']:.1f} ms of {row['queries a batch']:.1f} queries; "
            f"processor {1000 * row['cpu a request']:.1f} ms a request"
        )
    sizes = [size / 1e6 for _, size in result["memory"]]
    half = sizes[len(sizes) // 2 :]
    shown = {
        "first": sizes[0],
        "middle": half[0],
        "last": sizes[-1],
        "median of the second half": statistics.median(half),
    }
    print("memory MB: " + ", ".join(f"{name} {size:.0f}" for name, size in shown.items()))
    print(f"the server ended with status {result['status']}")


if __name__ == "__main__":
    sys.exit(main())
