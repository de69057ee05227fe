"""Run a Python program on several processes of this machine, joined over 127.0.0.1."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryFile

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def environment(devices: int) -> dict[str, str]:
    """For a process of `devices` host devices that takes this checkout for the package."""
    return {
        **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "PYTHONPATH": str(ROOT),
    }


class Launched:
    """A program on several processes of `devices` host devices each; leaving it ends those that still run."""

    def __init__(
        self, program: Path, processes: int, arguments: Sequence[str] = (), devices: int = 1, **variables: str
    ):
        address = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "JAX_NUM_PROCESSES": str(processes)}
        self._outputs = [TemporaryFile("w+") for _ in range(processes)]  # noqa: SIM115 - closed on exit
        self.processes = [
            subprocess.Popen(
                [sys.executable, str(program), *arguments],
                env=environment(devices) | address | {"JAX_PROCESS_ID": str(number)} | variables,
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            for number, output in enumerate(self._outputs)
        ]

    def __enter__(self) -> "Launched":
        return self

    def __exit__(self, *_: object) -> None:
        for process, output in zip(self.processes, self._outputs, strict=True):
            if process.poll() is None:
                process.kill()
                process.wait()
            output.close()

    def output(self, number: int) -> str:
        self._outputs[number].seek(0)
        return self._outputs[number].read()

    def wait_for(self, happened: Callable[[], bool], timeout: float = 400) -> None:
        """Until something has happened; fails when a process ends before."""
        deadline = time.monotonic() + timeout
        while not happened():
            ended = [number for number, process in enumerate(self.processes) if process.poll() is not None]
            assert not ended, f"process {ended[0]} ended:\n{self.output(ended[0])[-4000:]}"
            assert time.monotonic() < deadline, f"nothing happened:\n{self.output(0)[-4000:]}"
            time.sleep(0.05)

    def finish(self, *statuses: int, timeout: float = 400) -> list[str]:
        """Waits for all; their outputs, if they ended with these statuses (0 by default)."""
        deadline = time.monotonic() + timeout
        for process in self.processes:
            process.wait(max(deadline - time.monotonic(), 0.1))
        outputs = [self.output(number) for number in range(len(self.processes))]
        expected = statuses or (0,) * len(outputs)
        for number, (process, status) in enumerate(zip(self.processes, expected, strict=True)):
            assert process.returncode == status, (
                f"process {number} of {len(outputs)} ended with {process.returncode}:\n{outputs[number][-4000:]}"
            )
        return outputs


def launch(program: Path, processes: int, arguments: Sequence[str] = (), devices: int = 1) -> list[str]:
    """Run `program` to its end; fails with the output of a process that does."""
    with Launched(program, processes, arguments, devices) as launched:
        return launched.finish()
