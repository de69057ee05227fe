"""Parameters of a model: a table of path, shape, type, layout and bytes, or a few lines."""

import math
import re
from typing import Any

import jax
import rich.box
from rich.filesize import decimal
from rich.table import Table

DEPTH, SHOWN = 2, 6
"""Names of a path that make a part of the short form, and parts that it shows."""


def model_table(params: Any, title: str = "parameters") -> Table:
    """One row a parameter and the totals.

    Args:
        params: a tree of arrays, real or abstract; abstract ones may carry shardings.
        title: of the table.
    """
    table = Table(title=title, title_justify="left", box=rich.box.SIMPLE_HEAD)
    table.add_column("path", overflow="fold")
    for name in ("shape", "dtype", "sharding"):
        table.add_column(name, no_wrap=True)
    for name in ("bytes", "a device"):
        table.add_column(name, justify="right", no_wrap=True)
    count, total, held = 0, 0, 0
    for path, leaf in jax.tree.leaves_with_path(params):
        size = math.prod(leaf.shape) * leaf.dtype.itemsize
        local = _local_bytes(leaf, size)
        count, total, held = count + math.prod(leaf.shape), total + size, held + local
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        table.add_row(name, str(tuple(leaf.shape)), str(leaf.dtype), _layout(leaf), f"{size:,}", f"{local:,}")
    table.add_section()
    table.add_row(f"{count:,} parameters", "", "", "", f"{total:,}", f"{held:,}")
    return table


def model_lines(params: Any) -> list[str]:
    """The totals of `model_table`, and the largest parts: 178,048 parameters, 712.2 kB: items 114,688, ...

    Args:
        params: as for `model_table`.
    """
    parts: dict[str, int] = {}
    total, held = 0, 0
    for path, leaf in jax.tree.leaves_with_path(params):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        size = math.prod(leaf.shape) * leaf.dtype.itemsize
        total, held = total + size, held + _local_bytes(leaf, size)
        part = re.sub(r"_\d+", "_*", "/".join(name.split("/")[:DEPTH]))  # blocks of a kind are one part
        parts[part] = parts.get(part, 0) + math.prod(leaf.shape)
    order = sorted(parts, key=lambda part: -parts[part])
    shown = [f"{part} {parts[part]:,}" for part in order[:SHOWN]]
    if rest := order[SHOWN:]:
        shown.append(f"{len(rest)} more {sum(parts[part] for part in rest):,}")
    device = "" if held == total else f", {decimal(held)} a device"
    count = f"{sum(parts.values()):,} parameters"
    return [f"{count}, {decimal(total)}{device} (recjax inspect: each of them)", f"  {', '.join(shown)}"]


def _layout(leaf: Any) -> str:
    spec = getattr(getattr(leaf, "sharding", None), "spec", None)
    axes = [] if spec is None else [a if isinstance(a, str) else "+".join(a) if a else "-" for a in spec]
    return ", ".join(axes) if any(a != "-" for a in axes) else "replicated"


def _local_bytes(leaf: Any, size: int) -> int:
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        return size
    return math.prod(sharding.shard_shape(tuple(leaf.shape))) * leaf.dtype.itemsize
