"""How a process joins the others, and how they wait for each other."""

import contextlib
import os
from pathlib import Path

import jax

from recjax.typing import InputError

_CPU_FLAG = "--xla_cpu_experimental_ynn_fusion_type="
_PROCESS_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def initialize() -> None:
    """Prepare this process; the first thing a command does, before JAX touches a device. Harmless when repeated.

    It switches off the XLA:CPU fusion that returns garbage, gives a lone process on CPUs a device a core, and joins the
    other processes of a launch:

    * `JAX_COORDINATOR_ADDRESS` (host:port of process 0), `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`, where they are set;
    * Slurm steps (`srun`) and Open MPI launches of several tasks, by their own variables;
    * TPU pods and slices, by their metadata.

    Otherwise the process is alone.

    Raises:
        InputError: the variables above contradict each other, or the other processes cannot be reached.
    """
    disable_faulty_cpu_fusion()
    if jax.distributed.is_initialized():
        return
    address, count, number = _explicit_launch()
    if address is None and not (_launched_by_scheduler() or _on_tpu_hosts()):
        spread_over_cpu_cores()
        return
    try:
        jax.distributed.initialize(address, count, number)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"this process cannot join the others of its launch: {error}") from error


def launched_with_others() -> bool:
    """Whether whoever started this process started others to join it; asks neither a device nor a network."""
    return _explicit_launch()[0] is not None or _launched_by_scheduler()


def barrier(name: str) -> None:
    """Wait until every process has come to the barrier of this name; at once when there is one process."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def disable_faulty_cpu_fusion() -> None:
    """Add the flag that cures XLA:CPU's silent miscompilation (jaxlib 0.10.2 and 0.12.0.1) to `XLA_FLAGS`.

    Inside one jitted function, a row reduction added to a matrix product whose operand is a compile-time zero returns
    garbage (the "ynn" fusion). XLA reads the variable when its first backend starts, so later calls do nothing. Hosts
    with TPUs are left alone: their runtime refuses flags that it does not know.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if _CPU_FLAG.rstrip("=") not in flags and (_platforms() == "cpu" or not _has_tpu()):
        os.environ["XLA_FLAGS"] = f"{flags} {_CPU_FLAG}".strip()


def spread_over_cpu_cores(most: int = 8) -> None:
    """Make XLA:CPU offer a device a core, up to `most` and a power of two, unless the user has chosen a number.

    A mesh of two host devices trains SASRec on ml-1m 1.3 times as fast as one device with two threads: the operations
    that XLA:CPU runs on one thread then run beside each other.
    """
    chosen = jax.config.jax_num_cpu_devices  # pyright: ignore[reportAttributeAccessIssue]
    if chosen > 0 or "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    cores = min(len(os.sched_getaffinity(0)), most) if hasattr(os, "sched_getaffinity") else 1
    with contextlib.suppress(RuntimeError):  # a backend is up: too late to choose
        jax.config.update("jax_num_cpu_devices", 1 << (cores.bit_length() - 1))


def _platforms() -> str:
    return jax.config.jax_platforms or ""  # pyright: ignore[reportAttributeAccessIssue]


def _has_tpu() -> bool:
    return any(Path("/dev").glob("accel[0-9]*")) or any(Path("/dev/vfio").glob("[0-9]*"))


def _explicit_launch() -> tuple[str | None, int | None, int | None]:
    """Address of the coordinator, number of processes, number of this one; None where the variables are not set."""
    values = [os.environ.get(name) for name in _PROCESS_VARIABLES]
    if values[1] is None and values[2] is None:
        return None, None, None
    missing = [name for name, value in zip(_PROCESS_VARIABLES, values, strict=True) if not value]
    if missing:
        raise InputError(f"{', '.join(_PROCESS_VARIABLES)} belong together; not set: {', '.join(missing)}")
    address, count, number = (str(value) for value in values)
    if not (count.isdecimal() and number.isdecimal() and int(number) < int(count)):
        raise InputError(
            f"JAX_NUM_PROCESSES={count} and JAX_PROCESS_ID={number}: expected numbers, "
            "the second from 0 to one less than the first"
        )
    if ":" not in address:
        raise InputError(f"JAX_COORDINATOR_ADDRESS={address}: expected host:port")
    return address, int(count), int(number)


def _launched_by_scheduler() -> bool:
    """Inside `srun` or `mpirun` of several tasks (a batch script itself, or a shell of `salloc`, is alone)."""
    counts = (os.environ.get(name, "1") for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"))
    return any(count.isdecimal() and int(count) > 1 for count in counts)


def _on_tpu_hosts() -> bool:
    """On one of several TPU hosts."""
    if _platforms() == "cpu" or not _has_tpu():
        return False
    hosts = os.environ.get("TPU_PROCESS_ADDRESSES") or os.environ.get("TPU_WORKER_HOSTNAMES")
    if hosts is not None:
        return "," in hosts or "MEGASCALE_COORDINATOR_ADDRESS" in os.environ
    # Cloud TPU VMs know their neighbours from a metadata server; JAX asks it, and serves a lone host as well.
    return os.environ.get("TPU_SKIP_MDS_QUERY") is None
