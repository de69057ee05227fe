import io

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from rich.console import Console

from recjax.parallel.mesh import MeshShape
from recjax.track import console as consoles
from recjax.track.console import Reporter, tracked
from recjax.track.model_table import model_lines, model_table

NUMBERS = {"loss": 1.25, "interactions_per_second": 12345.6, "data_wait": 0.013}


def test_plain_lines_where_there_is_no_terminal():
    out = io.StringIO()
    with Reporter(100, console=Console(file=out, width=120)) as reporter:
        reporter.step(10)
        reporter.numbers(10, NUMBERS)
        reporter.numbers(20, NUMBERS)
        reporter.line("step 20  [validation]")
    first, second, third = out.getvalue().splitlines()
    assert first == "step 10/100  loss 1.2500  12,346 interactions/s  data wait 1.3%"
    assert second.startswith("step 20/100  loss 1.2500") and "ETA 0:0" in second
    assert third == "step 20  [validation]"
    assert "\x1b" not in out.getvalue()


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the console believes have passed."""
    seconds = [0.0]
    monkeypatch.setattr(consoles.time, "monotonic", lambda: seconds[0])
    return seconds


def test_a_line_is_due_after_a_long_silence(clock):
    out = io.StringIO()
    with Reporter(100, console=Console(file=out, width=120)) as reporter:
        reporter.doing("compiling the step…")
        clock[0] = 500.0  # compiling took so long
        reporter.step(1)
        assert not reporter.due
        clock[0] = 531.0
        assert reporter.due
        reporter.numbers(11, NUMBERS)
        assert not reporter.due
    first, second = out.getvalue().splitlines()
    assert first == "compiling the step…"
    assert second.endswith("ETA 4:36")  # 89 steps of 3.1 s: compilation does not count


def test_work_without_a_terminal_says_how_far_it_is_now_and_then(clock, capsys):
    for number in tracked(range(10), 10, "ranking"):
        clock[0] = 12.0 * (number + 1)
    assert capsys.readouterr().err.splitlines() == [
        "ranking 30%, 1:24 left",
        "ranking 60%, 0:48 left",
        "ranking 90%, 0:12 left",
    ]
    assert list(tracked(range(3), 3, "ranking", show=False)) == [0, 1, 2]


def test_a_bar_on_a_terminal():
    out = io.StringIO()
    console = Console(file=out, width=140, force_terminal=True)
    with Reporter(100, 5, console=console) as reporter:
        reporter.numbers(10, NUMBERS)
        reporter.doing("compiling the step…")
        reporter.step(6)
        with reporter.aside():
            reporter.console.print("another bar")
        reporter.numbers(10, NUMBERS)
        reporter.line("above the bar")
    assert "compiling the step…" in out.getvalue() and "another bar" in out.getvalue()
    assert "10/100" in out.getvalue() and "12,346 interactions/s" in out.getvalue()
    assert "above the bar" in out.getvalue()


def test_silent(capsys):
    with Reporter(100, silent=True) as reporter:
        reporter.numbers(10, NUMBERS)
        reporter.line("nothing")
    assert capsys.readouterr().out == ""


def test_model_table_says_where_everything_lives():
    mesh = MeshShape(2, 4).build()
    params = {
        "items": jax.device_put(jnp.zeros((8, 3)), NamedSharding(mesh, PartitionSpec("model", None))),
        "block": {"bias": jax.ShapeDtypeStruct((5,), jnp.bfloat16)},
    }
    out = io.StringIO()
    Console(file=out, width=120).print(model_table(params))
    rows = [line.split() for line in out.getvalue().splitlines()]
    assert ["items", "(8,", "3)", "float32", "model,", "-", "96", "24"] in rows
    assert ["block/bias", "(5,)", "bfloat16", "replicated", "10", "10"] in rows
    assert ["29", "parameters", "106", "34"] in rows
    assert model_lines(params) == [
        "29 parameters, 106 bytes, 34 bytes a device (recjax inspect: each of them)",
        "  items 24, block/bias 5",
    ]
    blocks = {f"block_{n}": {"norm": jnp.zeros(4), "up": jnp.zeros((4, 4))} for n in range(12)}
    assert model_lines(blocks)[1] == "  block_*/up 192, block_*/norm 48"
    assert model_lines({f"p{n}": jnp.zeros(9 - n) for n in range(8)})[1].endswith("p5 4, 2 more 5")
