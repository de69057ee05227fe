"""Start-up of the processes of a launch: how each was launched, and joining the others."""

import contextlib
import ipaddress
import os
import re
import socket
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import jax

from recjax.parallel import processes, watch
from recjax.typing import InputError

JOIN = 300.0
"""Seconds that a process waits for the others to join, unless `$RECJAX_JOIN_LIMIT` says otherwise."""

_CPU_FLAG = "--xla_cpu_experimental_ynn_fusion_type="
_PROCESS_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


@dataclass(frozen=True)
class Launch:
    """Coordinates by which the processes of a launch find each other. What is None is left for JAX to find out.

    Attributes:
        launcher: what started them, as it is shown.
        address: host:port of process 0.
        count: number of processes.
        number: of this one.
        devices: which GPUs of the host are this process's, or None for all that it sees.
    """

    launcher: str
    address: str | None = None
    count: int | None = None
    number: int | None = None
    devices: tuple[int, ...] | None = None


def initialize() -> None:
    """Prepare this process; the first thing a command does, before JAX touches a device. Harmless when repeated.

    It switches off the XLA:CPU fusion that returns garbage, gives a lone process on CPUs a device a core, and joins the
    other processes of a launch:

    * `JAX_COORDINATOR_ADDRESS` (host:port of process 0), `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`, where they are set;
    * Slurm steps (`srun`) and Open MPI launches of several tasks, by their own variables;
    * TPU pods and slices, on Cloud TPU VMs by their metadata and on GKE by their variables.

    Otherwise the process is alone. Of several, the first says on standard error what was found; each watches the others
    from then on. A process that waits for the others for longer than `$RECJAX_JOIN_LIMIT` seconds (default 300) says
    what it waits for and ends with status 1.

    Raises:
        InputError: the variables contradict each other, or the other processes cannot be reached.
    """
    disable_faulty_cpu_fusion()
    if jax.distributed.is_initialized():
        return
    launch = detect()
    if launch is None:
        spread_over_cpu_cores()
        return
    _refuse_loopback(launch)
    watch.dead_after()  # a limit that is no number is told before anybody waits
    _join(launch)
    if jax.process_count() > 1:
        processes.announce_host()
        processes.barrier("launch", processes.seconds("RECJAX_JOIN_LIMIT", JOIN))
        watch.start()
    if jax.process_index() == 0:
        print(f"recjax: {_found(launch)}", file=sys.stderr, flush=True)


def launched_with_others() -> bool:
    """True if whoever started this process started others to join it; asks neither a device nor a network."""
    tasks = max(_count("SLURM_STEP_NUM_TASKS"), _count("OMPI_COMM_WORLD_SIZE"))
    return _explicit_launch() is not None or tasks > 1


def detect() -> Launch | None:
    """The launch of this process, or None where it is alone."""
    explicit = _explicit_launch()
    if explicit is not None:
        return explicit
    if _count("SLURM_STEP_NUM_TASKS") > 1:
        return _slurm_launch()
    if _count("OMPI_COMM_WORLD_SIZE") > 1:
        return Launch("Open MPI")
    if _on_tpu_hosts():
        return Launch("GKE TPU slice" if _tpu_host_names() is not None else "Cloud TPU VM")
    return None


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


# --- Joining ----------------------------------------------------------------------------------------------------------


def _join(launch: Launch) -> None:
    limit = processes.seconds("RECJAX_JOIN_LIMIT", JOIN)
    # JAX ends a process that has waited for too long by abort, so this has to come before.
    late = threading.Timer(limit, _give_up, (launch, limit))
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(
            launch.address,
            launch.count,
            launch.number,
            local_device_ids=launch.devices,
            # Left to itself, JAX gives a Slurm task one GPU even where it has the host to itself.
            cluster_detection_method="deactivate" if launch.address else None,
            initialization_timeout=round(limit) + 60,
            heartbeat_timeout_seconds=round(2 * watch.dead_after()) + 10,
        )
    except (RuntimeError, ValueError) as error:
        raise InputError(f"this process cannot join the others of its launch: {error}") from error
    finally:
        late.cancel()


def _give_up(launch: Launch, limit: float) -> None:
    """Ends the process: JAX cannot be called back from where it waits."""
    print(f"recjax: {_not_joined(launch, limit)}", file=sys.stderr, flush=True)
    os._exit(1)


def _not_joined(launch: Launch, limit: float) -> str:
    """Reasons that a process may not have joined the others in time."""
    of = "" if launch.count is None else f"process {launch.number} of {launch.count}: "
    waits = f"{of}not all processes of the launch ({launch.launcher}) have joined within {limit:g} s"
    advice = "RECJAX_JOIN_LIMIT=SECONDS waits longer"
    if launch.address is None:
        return f"{waits}. Does every host run this command, and can they reach each other? {advice}"
    if launch.number == 0:
        return (
            f"{waits}. This is process 0, to which the others connect at {launch.address}: does every host run this "
            f"command, and can it reach that address? {advice}"
        )
    host, _, port = launch.address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=3).close()
    except OSError as error:
        return (
            f"{waits}: nobody answers at {launch.address} ({error}). Is process 0 running there, and is the port open? "
            f"{advice}"
        )
    return f"{waits}: process 0 answers at {launch.address}, so others are missing. {advice}"


def _found(launch: Launch) -> str:
    """The launch that was joined, in a line."""
    from jax._src import distributed  # JAX has no public name for the address that it found out

    count = jax.process_count()
    hosts = len(set(processes.hosts().values())) if count > 1 else 1
    return (
        f"launched by {launch.launcher}: {count} process{'es' if count > 1 else ''} on {hosts} "
        f"host{'s' if hosts > 1 else ''}, {jax.local_device_count()} of {jax.device_count()} devices here, "
        f"coordinator {distributed.global_state.coordinator_address}"
    )


def _refuse_loopback(launch: Launch) -> None:
    """Raises InputError where processes on several hosts are told that the coordinator is on each of them."""
    host = (launch.address or "").rpartition(":")[0].strip("[]")
    hosts = max(_count("SLURM_STEP_NUM_NODES"), _count("SKYPILOT_NUM_NODES"), len((_tpu_host_names() or "").split(",")))
    if hosts > 1 and _is_loopback(host):
        raise InputError(
            f"the coordinator's address is {launch.address}, which every host takes for itself, but the launch has "
            f"{hosts} hosts: JAX_COORDINATOR_ADDRESS must be an address of the host of process 0 that the others reach"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


# --- What the environment says ----------------------------------------------------------------------------------------


def _platforms() -> str:
    return jax.config.jax_platforms or ""  # pyright: ignore[reportAttributeAccessIssue]


def _has_tpu() -> bool:
    return any(Path("/dev").glob("accel[0-9]*")) or any(Path("/dev/vfio").glob("[0-9]*"))


def _count(variable: str) -> int:
    text = os.environ.get(variable, "1")
    return int(text) if text.isdecimal() else 1


def _explicit_launch() -> Launch | None:
    """The launch that the variables describe; None where they are not set."""
    values = [os.environ.get(name) for name in _PROCESS_VARIABLES]
    if values[1] is None and values[2] is None:
        return None
    missing = [name for name, value in zip(_PROCESS_VARIABLES, values, strict=True) if not value]
    if missing:
        raise InputError(f"{', '.join(_PROCESS_VARIABLES)} belong together; not set: {', '.join(missing)}")
    address, count, number = (str(value) for value in values)
    if not (count.isdecimal() and number.isdecimal() and int(number) < int(count)):
        raise InputError(
            f"JAX_NUM_PROCESSES={count} and JAX_PROCESS_ID={number}: expected numbers, "
            "the second from 0 to one less than the first"
        )
    if not address.rpartition(":")[0] or not address.rpartition(":")[2].isdecimal():
        raise InputError(f"JAX_COORDINATOR_ADDRESS={address}: expected host:port")
    return Launch("JAX_COORDINATOR_ADDRESS", address, int(count), int(number))


def _slurm_launch() -> Launch:
    """A step of several tasks. (A batch script itself, or a shell of `salloc`, is alone.)

    The coordinator is on the first host of the step, at a port that follows from the job's number, as JAX has it.
    """
    names = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID")
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise InputError(f"this is a Slurm step of several tasks, but Slurm's variables are not set: {missing}")
    job, nodes, number, local = (os.environ[name] for name in names)
    first = re.match(r"([^\[,]+)(?:\[([^\],-]+))?", nodes)
    if first is None:
        raise InputError(f"SLURM_STEP_NODELIST={nodes}: expected names of hosts")
    port = os.environ.get("JAX_COORDINATOR_PORT") or str(61440 + int(job) % 4096)
    address = os.environ.get("JAX_COORDINATOR_ADDRESS") or f"{first[1]}{first[2] or ''}:{port}"
    # The tasks of a host share its GPUs, unless each sees only its own (--gpus-per-task).
    alone = re.fullmatch(r"1(\(x\d+\))?", os.environ.get("SLURM_STEP_TASKS_PER_NODE", ""))
    bound = os.environ.get("CUDA_VISIBLE_DEVICES", "").count(",") == 0 and "CUDA_VISIBLE_DEVICES" in os.environ
    devices = None if alone or bound else (int(local),)
    return Launch("Slurm", address, _count("SLURM_STEP_NUM_TASKS"), int(number), devices)


def _tpu_host_names() -> str | None:
    return os.environ.get("TPU_PROCESS_ADDRESSES") or os.environ.get("TPU_WORKER_HOSTNAMES")


def _on_tpu_hosts() -> bool:
    """On one of several TPU hosts."""
    if _platforms() == "cpu" or not _has_tpu():
        return False
    hosts = _tpu_host_names()
    if hosts is not None:
        return "," in hosts or "MEGASCALE_COORDINATOR_ADDRESS" in os.environ
    # Cloud TPU VMs know their neighbours from a metadata server; JAX asks it, and serves a lone host as well.
    return os.environ.get("TPU_SKIP_MDS_QUERY") is None
