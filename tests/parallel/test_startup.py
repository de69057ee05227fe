import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import pytest

from recjax.parallel import startup
from recjax.typing import InputError

VARIABLES = (
    "JAX_COORDINATOR_ADDRESS",
    "JAX_NUM_PROCESSES",
    "JAX_PROCESS_ID",
    "SLURM_NTASKS",
    "SLURM_STEP_NUM_TASKS",
    "OMPI_COMM_WORLD_SIZE",
    "TPU_WORKER_HOSTNAMES",
    "TPU_PROCESS_ADDRESSES",
    "TPU_SKIP_MDS_QUERY",
    "MEGASCALE_COORDINATOR_ADDRESS",
)


@pytest.fixture
def joined(monkeypatch):
    """The calls that would join other processes, in an environment without any."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args: calls.append(args))
    return calls


def launch(monkeypatch, **variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    startup.initialize()


def test_a_process_of_its_own_joins_nobody(joined, monkeypatch):
    launch(monkeypatch)
    launch(monkeypatch, SLURM_NTASKS="4")  # a batch script, not a step
    launch(monkeypatch, SLURM_STEP_NUM_TASKS="1", OMPI_COMM_WORLD_SIZE="1")
    assert joined == []


def test_explicit_variables(joined, monkeypatch):
    launch(monkeypatch, JAX_COORDINATOR_ADDRESS="10.0.0.1:1234", JAX_NUM_PROCESSES="4", JAX_PROCESS_ID="3")
    assert joined == [("10.0.0.1:1234", 4, 3)]


@pytest.mark.parametrize("variable", ["SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"])
def test_schedulers_are_left_to_jax(joined, monkeypatch, variable):
    launch(monkeypatch, **{variable: "16"})
    assert joined == [(None, None, None)]


def test_tpu_hosts_are_left_to_jax(joined, monkeypatch):
    monkeypatch.setattr(startup, "_has_tpu", lambda: True)
    launch(monkeypatch, TPU_WORKER_HOSTNAMES="a,b")
    assert joined == [], "this session is told to use the CPU"
    monkeypatch.setattr(startup, "_platforms", lambda: "")
    launch(monkeypatch, TPU_WORKER_HOSTNAMES="a")
    launch(monkeypatch, TPU_WORKER_HOSTNAMES="", TPU_SKIP_MDS_QUERY="1")
    assert joined == []
    launch(monkeypatch, TPU_WORKER_HOSTNAMES="a,b")
    launch(monkeypatch, TPU_WORKER_HOSTNAMES="a", MEGASCALE_COORDINATOR_ADDRESS="b")
    assert len(joined) == 2


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"JAX_NUM_PROCESSES": "2"}, "not set: JAX_COORDINATOR_ADDRESS, JAX_PROCESS_ID"),
        (
            {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "2"},
            "JAX_NUM_PROCESSES=2 and JAX_PROCESS_ID=2",
        ),
        (
            {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "two", "JAX_PROCESS_ID": "0"},
            "JAX_NUM_PROCESSES=two",
        ),
        (
            {"JAX_COORDINATOR_ADDRESS": "host", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"},
            "JAX_COORDINATOR_ADDRESS=host: expected host:port",
        ),
    ],
)
def test_contradictions_are_named(joined, monkeypatch, variables, message):
    with pytest.raises(InputError, match=message):
        launch(monkeypatch, **variables)
    assert joined == []


def test_what_jax_says_is_passed_on(joined, monkeypatch):
    def fail(*args):
        raise RuntimeError("no route to host")

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    with pytest.raises(InputError, match="cannot join the others of its launch: no route to host"):
        launch(monkeypatch, SLURM_STEP_NUM_TASKS="2")


@pytest.mark.parametrize(
    ("before", "tpu", "platforms", "after"),
    [
        ("", False, "", "--xla_cpu_experimental_ynn_fusion_type="),
        ("--xla_dump_to=x", False, "", "--xla_dump_to=x --xla_cpu_experimental_ynn_fusion_type="),
        ("--xla_cpu_experimental_ynn_fusion_type=dot", False, "", "--xla_cpu_experimental_ynn_fusion_type=dot"),
        ("", True, "", ""),
        ("", True, "cpu", "--xla_cpu_experimental_ynn_fusion_type="),
    ],
)
def test_the_faulty_fusion_is_switched_off_where_the_cpu_may_compute(monkeypatch, before, tpu, platforms, after):
    monkeypatch.setenv("XLA_FLAGS", before)
    monkeypatch.setattr(startup, "_has_tpu", lambda: tpu)
    monkeypatch.setattr(startup, "_platforms", lambda: platforms)
    startup.disable_faulty_cpu_fusion()
    startup.disable_faulty_cpu_fusion()
    assert os.environ["XLA_FLAGS"] == after


REPRODUCER = """
import sys, jax, jax.numpy as jnp
from recjax.parallel.startup import initialize
if sys.argv[1] == "cured":
    initialize()
x = jax.random.normal(jax.random.key(0), (5000, 384))
squares = (x * x).sum(-1, keepdims=True)
same = jax.jit(lambda x: (x * x).sum(-1, keepdims=True) + x @ jnp.zeros((384, 384)))(x)
print(bool(jnp.allclose(same, squares)))
"""


def reproduce(how):
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, "-c", REPRODUCER, how]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, timeout=120
    ).stdout.strip()


def test_the_flag_cures_the_fusion_though_jax_is_already_imported():
    assert reproduce("cured") == "True"


def test_the_fusion_is_still_faulty():
    if reproduce("as it comes") == "True":
        pytest.skip("computed right without the flag: it can go when every supported jaxlib does so, on every CPU")


def test_a_lone_process_waits_for_nobody():
    startup.barrier("anything")


@pytest.mark.parametrize(("cores", "devices"), [(1, 1), (2, 2), (6, 4), (64, 8)])
def test_a_lone_process_gets_a_device_a_core(monkeypatch, cores, devices):
    chosen = []
    config = SimpleNamespace(jax_num_cpu_devices=-1, update=lambda name, value: chosen.append((name, value)))
    monkeypatch.setattr(startup, "jax", SimpleNamespace(config=config))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    startup.spread_over_cpu_cores()
    assert chosen == [("jax_num_cpu_devices", devices)]


def test_a_chosen_number_of_devices_stays(monkeypatch):
    monkeypatch.setattr(jax.config, "update", lambda name, value: pytest.fail(f"{name} was set to {value}"))
    startup.spread_over_cpu_cores()  # the test session itself has chosen eight
