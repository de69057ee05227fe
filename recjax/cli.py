"""The `recjax` command: parses by `recjax.grammar`, calls one function of `recjax.commands`, gives the exit status.

Exit status: 0 success, 1 a run failed, 2 bad usage or bad input. Bad input is one message; `--debug` adds a traceback.
Rooms are imported inside the commands, so that `recjax --help` does not wait for them.
"""

import argparse
import gc
import hashlib
import importlib
import os
import platform
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from recjax import faults
from recjax.grammar.parser import parser

COMPARING = ("ablate", "report")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    if arguments is None:
        faults.any_text()
    try:
        options = parser().parse_args(arguments)
    except SystemExit as ended:  # after `--help`, which may have been printed to a full disk
        if (status := faults.flushed("--help")) and not ended.code:
            return status
        raise
    if arguments is None and not options.debug:
        faults.without_echoes()
    try:
        status = _run(options, whole=arguments is None)
    except (SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        if (found := faults.explained(error)) is None:
            _tell_others(error, 1, shown=True)
            raise
        message, status = found
        if options.debug:
            traceback.print_exc()
        if message:
            print(f"recjax {options.command}: {message}", file=sys.stderr)
        _tell_others(error, status)
    status = faults.flushed(options.command) or status
    if arguments is None:
        gc.freeze()  # else Python looks through the million objects again before it ends
    return status


def _run(options: argparse.Namespace, whole: bool) -> int:
    """One command; of a process that does nothing else (`whole`), compiled programs are kept."""
    if whole:
        gc.disable()
    with faults.leaves_at_once(options.command):
        name = options.command.replace("-", "_")
        command = getattr(importlib.import_module(f"recjax.commands.{name}"), name)
        from recjax.parallel.startup import initialize
        from recjax.typing import COMMAND

    if whole:
        gc.freeze()  # imports and traces make a million objects that live on
        gc.set_threshold(100_000, 50, 100)
        gc.enable()
        _keep_compiled_programs()
    if options.command not in COMPARING:  # those look at no device: it belongs to the runs that they start
        initialize()
    in_use = COMMAND.set(options.command)
    try:
        return command(options)
    finally:
        COMMAND.reset(in_use)


def _tell_others(error: BaseException, status: int, shown: bool = False) -> None:
    """Ends a process of several at once, its traceback `shown`, so that the others do not wait for it."""
    if (watch := sys.modules.get("recjax.parallel.watch")) is None:  # interrupted before it was imported
        return
    import jax

    if shown and jax.distributed.is_initialized():  # `fail` does not return where there are others to tell
        traceback.print_exc()
    watch.fail(error, status)


def _keep_compiled_programs() -> None:
    """Lets jax keep what it compiles in `$RECJAX_CACHE`, so that a resumed run starts in half the time.

    The folder is named after the processor: XLA compiles for the one it runs on, and a cache may be shared by several.
    """
    import jax

    from recjax.data.store.locate import cache_folder

    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue]
        info = Path("/proc/cpuinfo")
        lines = info.read_text().splitlines() if info.is_file() else []
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
        processor = hashlib.sha256(f"{platform.machine()} {platform.processor()} {flags}".encode()).hexdigest()[:8]
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled" / processor))
        if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
            # Small programs too, of which a command has dozens: to read one takes a tenth of what compiling it does.
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
