"""Run a Python program on several processes of this machine, joined over 127.0.0.1."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def launch(
    program: Path, processes: int, arguments: Sequence[str] = (), devices: int = 1, timeout: float = 180
) -> None:
    """Run `program` on `processes` processes of `devices` host devices each; fails with the output of one that does."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "XLA_FLAGS": "",
        "PYTHONPATH": str(ROOT),
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{_free_port()}",
        "JAX_NUM_PROCESSES": str(processes),
    }
    running = [
        subprocess.Popen(
            [sys.executable, str(program), *arguments],
            env=environment | {"JAX_PROCESS_ID": str(number)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(processes)
    ]
    try:
        outputs = [process.communicate(timeout=timeout)[0] for process in running]
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.wait()
    for number, (process, output) in enumerate(zip(running, outputs, strict=True)):
        assert process.returncode == 0, f"process {number} of {processes}:\n{output[-4000:]}"
