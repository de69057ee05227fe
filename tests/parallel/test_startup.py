import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import pytest

from recjax.parallel import startup
from recjax.parallel.processes import barrier
from recjax.typing import InputError
from tests.multi_process.launch import environment, free_port

VARIABLES = (
    "JAX_COORDINATOR_ADDRESS",
    "JAX_NUM_PROCESSES",
    "JAX_PROCESS_ID",
    "SLURM_NTASKS",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_JOB_ID",
    "SLURM_STEP_NODELIST",
    "SLURM_STEP_NUM_NODES",
    "SLURM_STEP_TASKS_PER_NODE",
    "SLURM_PROCID",
    "SLURM_LOCALID",
    "CUDA_VISIBLE_DEVICES",
    "SKYPILOT_NUM_NODES",
    "RECJAX_JOIN_LIMIT",
    "RECJAX_DEAD_AFTER",
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
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **more: calls.append((*args, more)))
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
    assert called(joined) == [("10.0.0.1:1234", 4, 3, None)]
    assert joined[0][3]["cluster_detection_method"] == "deactivate"  # or JAX would look for GPUs of a Slurm task


def called(joined):
    """Address, number of processes, number of this one and its GPUs, of each call."""
    return [(*call[:3], call[3]["local_device_ids"]) for call in joined]


def test_open_mpi_is_left_to_jax(joined, monkeypatch):
    launch(monkeypatch, OMPI_COMM_WORLD_SIZE="16")
    assert called(joined) == [(None, None, None, None)]
    assert joined[0][3]["cluster_detection_method"] is None


SLURM = {"SLURM_JOB_ID": "70001", "SLURM_STEP_NUM_TASKS": "16", "SLURM_PROCID": "3", "SLURM_LOCALID": "1"}


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("node7", "node7"), ("a1,b2", "a1"), ("n[003-015],x", "n003"), ("n[3,7-9]", "n3"), ("10.0.0.7", "10.0.0.7")],
)
def test_slurm_names_the_coordinator(joined, monkeypatch, nodes, first):
    launch(monkeypatch, **SLURM, SLURM_STEP_NODELIST=nodes)
    assert called(joined) == [(f"{first}:{61440 + 70001 % 4096}", 16, 3, (1,))]


@pytest.mark.parametrize(
    "variables",
    [{"SLURM_STEP_TASKS_PER_NODE": "1(x16)"}, {"CUDA_VISIBLE_DEVICES": "5"}, {"SLURM_STEP_TASKS_PER_NODE": "1"}],
)
def test_a_slurm_task_has_all_gpus_that_it_need_not_share(joined, monkeypatch, variables):
    launch(monkeypatch, **SLURM, SLURM_STEP_NODELIST="n[1-16]", **variables)
    assert called(joined)[0][3] is None


@pytest.mark.parametrize("address", ["127.0.0.1:1", "localhost:1", "[::1]:1", "127.0.1.1:1"])
@pytest.mark.parametrize(
    "several", [{"SLURM_STEP_NUM_NODES": "2"}, {"SKYPILOT_NUM_NODES": "2"}, {"TPU_WORKER_HOSTNAMES": "a,b"}]
)
def test_a_loopback_coordinator_is_for_one_host_alone(joined, monkeypatch, address, several):
    explicit = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}
    launch(monkeypatch, **explicit)
    assert len(joined) == 1
    with pytest.raises(InputError, match=r"which every host takes for itself, but the launch has 2 hosts"):
        launch(monkeypatch, **several)
    assert len(joined) == 1


def test_limits_are_numbers(joined, monkeypatch):
    explicit = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}
    for name in ("RECJAX_DEAD_AFTER", "RECJAX_JOIN_LIMIT"):
        for text in ("soon", "0", "-3", "inf", "nan"):
            with monkeypatch.context() as patch, pytest.raises(InputError, match=f"{name}={text}: expected seconds"):
                launch(patch, **explicit, **{name: text})
    assert joined == []


def test_who_waits_in_vain_is_told_for_what():
    """Process 0 without process 1, and process 1 without process 0."""
    code = "from recjax.parallel.startup import initialize; initialize()"
    waiting = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=environment(1)
            | {
                "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}",
                "JAX_NUM_PROCESSES": "2",
                "JAX_PROCESS_ID": number,
                "RECJAX_JOIN_LIMIT": "3",
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in ("0", "1")
    ]
    errors = [process.communicate(timeout=120)[1] for process in waiting]
    assert [process.returncode for process in waiting] == [1, 1]
    assert (
        "process 0 of 2: not all processes of the launch (JAX_COORDINATOR_ADDRESS) have joined within 3 s" in errors[0]
    )
    assert "does every host run this command" in errors[0]
    assert "nobody answers at 127.0.0.1:" in errors[1] and "Is process 0 running there" in errors[1]


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
    def fail(*args, **more):
        raise RuntimeError("no route to host")

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    with pytest.raises(InputError, match="cannot join the others of its launch: no route to host"):
        launch(monkeypatch, OMPI_COMM_WORLD_SIZE="2")
    with pytest.raises(InputError, match=r"variables are not set: \['SLURM_JOB_ID', "):
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
    barrier("anything")


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
