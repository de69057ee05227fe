"""Test session: CPU, eight host devices, the XLA:CPU fusion that returns garbage switched off.

Tests spend their time in compilation: the lowest optimisation level of XLA's back end halves it, its older emitters of
fused loops halve it again, one module a program in place of 32 takes a quarter of the rest; the arithmetic stays the
same. What one test or process has compiled, the others of the session read from a folder, in memory if there is room.
Flags of the environment come last and win: to compile as users do,
`XLA_FLAGS="--xla_cpu_use_fusion_emitters=true --xla_backend_optimization_level=3" make pytest`.
"""

import gc
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
SOUND = "--xla_cpu_experimental_ynn_fusion_type="
FAST_TO_COMPILE = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_parallel_codegen_split_count=1"
)
FLAGS = f"{SOUND} {FAST_TO_COMPILE}"
os.environ["XLA_FLAGS"] = f"{FLAGS} {os.environ.get('XLA_FLAGS', '')}".strip()

MEMORY = Path("/dev/shm")
IN_MEMORY = MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 2**30
COMPILED = None
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    COMPILED = tempfile.mkdtemp(prefix="recjax-compiled-", dir=MEMORY if IN_MEMORY else None)
"""The folder that this process has made for the session; workers and programs that tests start inherit it."""
if COMPILED is not None:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = COMPILED
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.05"
# Names for profiles, and the lines that operations come from, would be looked up for each operation that is traced.
os.environ.setdefault("FLAX_PROFILE", "0")
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)

SHARED = Path(os.environ.get("RECJAX_SHARED", Path(__file__).resolve().parents[2] / "shared"))


LONG = (
    "tests/models/test_laws",
    "tests/test_readme",
    "tests/multi_process/",
    "tests/test_recipes",
    "tests/train/",
    "tests/mixers/test_laws",
    "tests/models/",
)
"""Long test files: they go first, so that no worker is left alone with one at the end."""


SLOW = (
    *LONG,
    "tests/multi_device/",
    "tests/golden/",
    "tests/plan/",
    "tests/serve/",
    "tests/compare/test_ablation",
    "tests/test_front_door",
    "tests/test_recgpt_commands",
)
"""Files that `make test` leaves out: whole runs, several processes, browsers, every recipe and page."""


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in what a shell starts in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "slow: left out by `make test`, see tests/conftest.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith(SLOW):
            item.add_marker("slow")
    items.sort(key=lambda item: next((at for at, path in enumerate(LONG) if item.nodeid.startswith(path)), len(LONG)))


def pytest_collection_finish() -> None:
    """Tracing makes millions of objects that live long: collecting them less often is a tenth of a run."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


def pytest_unconfigure(config: pytest.Config) -> None:
    if COMPILED is not None:
        shutil.rmtree(COMPILED, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def one_picture() -> Iterator[None]:
    """Curves are drawn for the first run of a process: drawing them takes as long as all else of a toy's run."""
    loop, drawn = sys.modules.get("recjax.train.loop"), []
    if loop is None:
        yield
        return
    draw = loop.plot_curves

    def draw_first(folder: Path) -> None:
        if not drawn:
            drawn.append(draw(folder))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "plot_curves", draw_first)
        yield


def _folder(path: Path) -> Path:
    if not path.is_dir():
        pytest.skip(f"needs the datasets folder {path.name!r} beside the repository")
    return path


@pytest.fixture(scope="session")
def uniform_data() -> Path:
    """Folder of real datasets in the uniform csv form; skips where it is absent."""
    return _folder(SHARED / "data")


@pytest.fixture(scope="session")
def native_data() -> Path:
    """Folder of real datasets in their publishers' formats; skips where it is absent."""
    return _folder(SHARED / "data-native")
