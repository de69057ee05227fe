"""Layouts of every parameter and moment of every recipe on a mesh of (4, 2, 1), against reviewed files.

A change of a layout must be meant: look at the difference, then write the files again with

    python -m tests.golden.test_layouts [RECIPE ...]
"""

import difflib
import sys
from pathlib import Path

import jax
import pytest

from recjax import recipes
from recjax.config import override_all
from recjax.plan.program import abstract_inputs
from recjax.train.state import TrainState, abstract_state

FOLDER = Path(__file__).parent / "layouts"
SHIPPED = sorted(path.stem for path in Path(__file__).parents[2].joinpath("experiments").glob("*.py"))
NAMES = [name for name in SHIPPED if recipes.read(name).config.model.ranks]
"""Recipes of models that rank; an encoder is whole on every device."""
ITEMS, TEXT_WIDTH = 20_000, 384


def layout(name: str) -> str:
    """A line an array: path, shape, layout; of moments also the layout under mesh.shard_state=optimiser."""
    config = override_all(recipes.read(name).config, ["mesh.data=4", "mesh.model=2"])
    mesh = config.mesh.build(jax.devices()[:8])
    inputs = abstract_inputs(config, ITEMS, mesh, TEXT_WIDTH)
    found = [_places(inputs.state), _places(abstract_state(inputs.state, mesh, inputs.model, "optimiser"))]
    lines = [f"# {name}, {ITEMS:,} items, mesh data=4, model=2, seq=1; after |: mesh.shard_state=optimiser"]
    for path, (shape, axes) in found[0].items():
        other = found[1][path][1]
        lines.append(f"{path} {shape} {axes}" + (f" | {other}" if other != axes else ""))
    return "\n".join(lines) + "\n"


def _places(state: TrainState) -> dict[str, tuple[str, str]]:
    arrays = {"params": state.params, "opt_state": state.opt_state, "ema": state.ema}
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): (
            "x".join(map(str, leaf.shape)) or "scalar",
            ",".join("+".join(axis) if isinstance(axis, tuple) else axis or "-" for axis in leaf.sharding.spec) or "-",
        )
        for path, leaf in jax.tree.leaves_with_path(arrays)
    }


@pytest.mark.parametrize("name", NAMES)
def test_layouts_are_the_reviewed_ones(name):
    path = FOLDER / f"{name}.txt"
    expected, found = path.read_text() if path.is_file() else "", layout(name)
    changes = difflib.unified_diff(expected.splitlines(), found.splitlines(), str(path.name), "now", lineterm="")
    assert found == expected, "\n".join([*changes, "if this is meant: python -m tests.golden.test_layouts"])


def test_no_file_is_left_over():
    assert sorted(path.stem for path in FOLDER.glob("*.txt")) == NAMES


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 8)
    for recipe in sys.argv[1:] or NAMES:
        (FOLDER / f"{recipe}.txt").write_text(layout(recipe))
