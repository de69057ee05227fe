"""A plan as tables and as JSON."""

import dataclasses
import math
from typing import Any

import rich.box
from rich.console import Group
from rich.table import Table

from recjax.plan.collectives import Collective
from recjax.plan.estimate import Estimate
from recjax.plan.plan import Plan

ASSUMPTIONS = (
    "Times hold the compiled program against the chip's published peaks: products at the bfloat16 peak, each "
    "instruction's operands once through memory, exchanges in rings at the full bandwidth of their axis, loops of "
    "data-dependent length at their longest. They are bounds, not measurements."
)
MOST = 8
"""Exchanges shown one by one."""


def to_json(plan: Plan) -> dict[str, Any]:
    """All that a plan says, as plain values."""
    tree = dataclasses.asdict(plan)
    for name in ("training", "ranking"):
        found: Estimate | None = getattr(plan, name)
        if found is not None:
            times = {"best": found.best, "worst": found.worst} if found.seconds else {}
            tree[name] |= {"fits": found.fits, **times, **_shares(found)}
    return tree | {"fits": plan.fits, "assumptions": ASSUMPTIONS}


def _shares(found: Estimate) -> dict[str, float]:
    """Share of the time that the products take at the peak, at best and at worst."""
    if not found.seconds or not found.flops:
        return {}
    busy = found.seconds["compute"]
    return {"utilisation_best": busy / found.best, "utilisation_worst": busy / found.worst}


def render(plan: Plan) -> Group:
    """The tables that `recjax plan` prints."""
    shape = ", ".join(f"{axis}={size}" for axis, size in plan.mesh.items())
    devices = math.prod(plan.mesh.values())
    parts: list[Any] = [
        f"{plan.name} on {plan.topology}: {devices:,} x {plan.chip}, mesh {shape}; {plan.items:,} items, "
        f"{plan.rows:,} rows"
    ]
    parts += _estimate("training step", plan.training)
    if plan.advice is not None:
        parts.append(_advice(plan))
    if plan.ranking is not None:
        parts += _estimate(f"ranking of {plan.users:,} users", plan.ranking)
    return Group(*parts, ASSUMPTIONS)


def _advice(plan: Plan) -> str:
    assert plan.advice is not None
    if not plan.advice.settings:
        return "None of the settings tried fits: more devices, or a smaller model or catalog."
    settings = " ".join(f"--set {setting}" for setting in plan.advice.settings)
    return f"The nearest setting that fits: {settings} ({_size(plan.advice.total)} a device)."


def _estimate(title: str, found: Estimate) -> list[Any]:
    table = Table(title=f"{title}, a device", title_justify="left", box=rich.box.SIMPLE_HEAD)
    for name in ("memory", "bytes", "share"):
        table.add_column(name, justify="left" if name == "memory" else "right")
    for name, size in found.memory.items():
        if size:
            table.add_row(name, _size(size), f"{size / found.capacity:.1%}")
    table.add_section()
    verdict = "fits" if found.fits else "does NOT fit"
    table.add_row(f"in use at once, at most: {verdict}", _size(found.total), f"{found.total / found.capacity:.1%}")
    parts: list[Any] = [table]
    if found.collectives:
        parts.append(_exchanges(found.collectives))
    if found.seconds and found.flops is not None:
        spent = ", ".join(f"{name} {_time(seconds)}" for name, seconds in found.seconds.items() if seconds)
        shares = _shares(found)
        low, high = (f"{shares.get(f'utilisation_{name}', 0.0):.0%}" for name in ("worst", "best"))
        parts.append(f"{found.flops:.3g} FLOPs, {_size(found.traffic)} through memory: {spent}")
        parts.append(
            f"{_time(found.best)} if all overlaps, {_time(found.worst)} if no exchange does; products are at work for "
            f"{low} to {high} of that"
        )
    if found.unknown:
        parts.append(f"counted once, of unknown length: {', '.join(sorted(set(found.unknown)))}")
    return parts


def _exchanges(found: tuple[Collective, ...]) -> Table:
    table = Table(box=rich.box.SIMPLE_HEAD)
    for name in ("exchange", "axis", "link", "of", "times", "bytes", "sent", "largest array"):
        table.add_column(name, justify="right" if name in ("of", "times", "bytes", "sent") else "left", no_wrap=True)
    for one in found[:MOST]:
        row = (one.kind, one.axes, one.link, f"{one.devices:,}", f"{one.count:,}", _size(one.bytes))
        table.add_row(*row, _size(one.count * one.sent), "x".join(map(str, one.shape)) or "scalar")
    if len(found) > MOST:
        rest = found[MOST:]
        sent = sum(one.count * one.sent for one in rest)
        table.add_row("others", "", "", "", f"{sum(one.count for one in rest):,}", "", _size(sent), "")
    return table


def _size(size: float) -> str:
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= factor:
            return f"{size / factor:,.2f} {unit}"
    return f"{size:,.0f} B"


def _time(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= factor:
            return f"{seconds / factor:,.3g} {unit}"
    return f"{seconds / 1e-6:,.3g} us"
