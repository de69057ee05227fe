"""Devices that are not there: the topology of a TPU slice, or host devices."""

import contextlib
import importlib.metadata
import importlib.util
import math
import os
import re
from dataclasses import dataclass
from typing import Any

import jax
from jax.experimental import topologies

from recjax.plan.chips import HOST, TPUS, Chip, gpu, tpu
from recjax.typing import InputError

EXAMPLES = "v5e:16x16, v5p:8x8x8, v6e:16x16, tpu7x:4x4x4, cpu:8 or gpu"

_ENVIRONMENT = {
    # Nobody is asked which TPU this machine is part of, and no warning says that it is none.
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_STDERR_LOG_LEVEL": "3",
    # Several processes may compile at a time: none holds a TPU.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@dataclass(frozen=True, eq=False)
class Topology:
    """Target of a compilation.

    Attributes:
        name: as asked for.
        devices: in an order of the platform's.
        chip: what each of them can do.
    """

    name: str
    devices: list[Any]
    chip: Chip


def find_topology(name: str, slices: int = 1) -> Topology:
    """The devices of a topology, for compilation only unless they are host devices or GPUs that are there.

    Args:
        name: `v5e:16x16` and the like for TPUs, which need libtpu but no TPU; `cpu:N`; or `gpu`, those of this machine.
        slices: slices of a TPU topology, joined by the data centre's network.

    Raises:
        InputError: the topology cannot be, libtpu is missing, or the devices are not there.
    """
    kind, _, size = name.partition(":")
    if slices < 1 or (slices > 1 and kind not in TPUS):
        raise InputError(f"--slices {slices}: expected 1 or more, and more than 1 of TPUs only")
    if kind == "cpu":
        return Topology(name, _host_devices(size), HOST)
    if name == "gpu":
        return _gpus()
    if kind not in TPUS:
        raise InputError(f"--topology {name!r} is none that is known; expected {EXAMPLES}")
    return Topology(f"{slices} x {name}" if slices > 1 else name, _tpus(name, slices), tpu(kind))


def _host_devices(size: str) -> list[Any]:
    if not size.isdecimal() or not int(size):
        raise InputError(f"--topology cpu:{size}: expected a number of host devices, such as cpu:8")
    if int(size) > jax.config.jax_num_cpu_devices:  # pyright: ignore[reportAttributeAccessIssue]
        with contextlib.suppress(RuntimeError):  # a backend is up: as many as it has
            jax.config.update("jax_num_cpu_devices", int(size))
    devices = jax.devices("cpu")
    if len(devices) < int(size):
        raise InputError(
            f"--topology cpu:{size}: this process has {len(devices)} host devices; JAX_NUM_CPU_DEVICES asks for more"
        )
    return devices[: int(size)]


def _gpus() -> Topology:
    try:
        devices = jax.devices("gpu")
    except RuntimeError:
        raise InputError(f"--topology gpu: there is no GPU here; expected {EXAMPLES}") from None
    return Topology(f"gpu:{len(devices)}", devices, gpu(devices[0].device_kind))


def _libtpu() -> str:
    """The version of libtpu that the JAX which is installed wants."""
    wanted = (requirement.partition(";")[0].strip() for requirement in importlib.metadata.requires("jax") or ())
    return next((requirement for requirement in wanted if requirement.startswith("libtpu")), "libtpu")


def _tpus(name: str, slices: int) -> list[Any]:
    """Devices of libtpu's description of the topology; nothing is run on them."""
    sizes = [int(number) for number in re.findall(r"\d+", name.partition(":")[2])]
    shape = name.partition(":")[2]
    if not sizes or shape != "x".join(map(str, sizes)) or not all(sizes):
        raise InputError(f"--topology {name!r}: expected a shape such as {EXAMPLES}")
    if importlib.util.find_spec("libtpu") is None:
        raise InputError(
            f"--topology {name} needs libtpu, which compiles for TPUs without one: pip install --no-deps "
            f"--target libtpu '{_libtpu()}', then PYTHONPATH=libtpu recjax plan ...; or pip install 'recjax[tpu]' in "
            "an environment of its own"
        )
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    if jax.config.jax_platforms is None:  # pyright: ignore[reportAttributeAccessIssue]
        jax.config.update("jax_platforms", "cpu")  # whatever is computed on the way needs no accelerator
    options: dict[str, Any] = {} if slices == 1 else {"num_slices": slices}
    if math.prod(sizes) < 4:  # less than a host of four
        options["chips_per_host_bounds"] = [*sizes, 1, 1, 1][:3]
    try:
        return topologies.get_topology_desc(topology_name=name, platform="tpu", **options).devices
    except (RuntimeError, ValueError, NotImplementedError) as error:  # the last is jax's for shapes libtpu lacks
        told = str(error).splitlines()[0].partition(": ")[2] or str(error)
        raise InputError(f"--topology {name!r}: {told}; expected {EXAMPLES}") from None
