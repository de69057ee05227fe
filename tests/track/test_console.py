import io

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from rich.console import Console

from recjax.parallel.mesh import MeshShape
from recjax.track.console import Reporter
from recjax.track.model_table import model_table

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


def test_a_bar_on_a_terminal():
    out = io.StringIO()
    console = Console(file=out, width=140, force_terminal=True)
    with Reporter(100, 5, console=console) as reporter:
        reporter.numbers(10, NUMBERS)
        reporter.line("above the bar")
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
