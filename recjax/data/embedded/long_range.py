"""Embedded tasks in which what has to be remembered is known, to test a mixer's memory beyond recommendation.

Each is a dataset of "users" whose history is a sequence of symbols and whose last event is the answer; split by user,
seen items not masked, hr@1 is the accuracy. The view gives a loss to the answer alone (`Shifted.targets`).

* `listops`: nested prefix expressions over digits, such as `[MAX 2 9 [MIN 4 7 ] 0 ]`, whose value is the answer
  (Nangia & Bowman 2018, by their rules; sizes of the Long Range Arena, Tay et al. 2021: 500 to 2,000 symbols, at most
  ten arguments, nested at most ten deep); `listops-small`: 20 to 100 symbols.
* `copy`: symbols, a delay of blanks, a signal, then the same symbols (Hochreiter & Schmidhuber 1997; Arjovsky et al.
  2016): the lag is the same for all, which a fixed convolution can learn.
* `selective-copy`: the same with the symbols scattered among the blanks (Gu & Dao 2023): what to keep depends on what
  it is, so a mixer whose weights do not depend on the input cannot do it.
* `chain-1` to `chain-4`: a value, four steps, each of which adds a number modulo 3, and a query: the value after so
  many steps. It follows from the value one step earlier, so these are skills in an order, as those of LEGO are (Zhang
  et al. 2022; Chen et al. 2023), and all have the same items.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from recjax.data.importers import RawLogs
from recjax.typing import InputError

OPERATORS = {
    "[MAX": max,
    "[MIN": min,
    "[MED": lambda values: int(np.median(values)),
    "[SM": lambda values: sum(values) % 10,
}
COLOURS = ("white", "red", "blue", "green", "yellow", "black", "orange", "purple", "brown", "pink")
"""Numbers in titles of chains: encoders of texts may pass over digits."""

_NESTED = 0.25
"""Probability that an argument is an expression, not a digit."""


@dataclass(frozen=True)
class ListOps:
    """Sizes of a set of expressions.

    Attributes:
        count: expressions.
        shortest: fewest symbols of one.
        longest: most symbols of one.
        depth: most expressions inside each other.
        arguments: most arguments of one.
    """

    count: int
    shortest: int
    longest: int
    depth: int = 10
    arguments: int = 10


@dataclass(frozen=True)
class Copy:
    """Sizes of a set of sequences to copy.

    Attributes:
        count: sequences.
        symbols: how many are to be copied; the answer is the last of them.
        delay: blanks.
        scattered: put the symbols among the blanks rather than before them.
        alphabet: different symbols.
    """

    count: int
    symbols: int = 8
    delay: int = 64
    scattered: bool = False
    alphabet: int = 8


@dataclass(frozen=True)
class Chain:
    """Sizes of a set of chains.

    Attributes:
        link: steps until the value that is the answer.
        count: chains.
        links: steps of a chain.
        modulus: values.
    """

    link: int
    count: int = 8_000
    links: int = 4
    modulus: int = 3


Task = ListOps | Copy | Chain

TASKS: dict[str, Task] = {
    "listops": ListOps(98_000, 500, 2_000),
    "listops-small": ListOps(24_000, 20, 100),
    "copy": Copy(12_000),
    "selective-copy": Copy(12_000, scattered=True),
    **{f"chain-{link}": Chain(link) for link in range(1, 5)},
}


def long_range(name: str, seed: int = 0, task: Task | None = None) -> RawLogs:
    """Generates a task: the same bits for the same arguments.

    Args:
        name: one of `TASKS`.
        seed: of everything random.
        task: other sizes than the named ones.

    Raises:
        InputError: unknown name, or sizes that cannot be.
    """
    if name not in TASKS:
        raise InputError(f"no embedded task named {name!r}, expected one of {', '.join(TASKS)}")
    task = task or TASKS[name]
    rng = np.random.default_rng([seed, list(TASKS).index(name)])
    sequences = _sequences(rng, task)
    owner = np.repeat(np.arange(len(sequences)), [len(sequence) for sequence in sequences])
    symbols = [symbol for sequence in sequences for symbol in sequence]
    place = np.concatenate([np.arange(len(sequence)) for sequence in sequences])
    interactions = pl.DataFrame(
        {"user_id": owner, "item_id": symbols, "timestamp": place},
        schema_overrides={"timestamp": pl.Int64},
    ).with_columns(pl.format("sequence-{}", pl.col("user_id").cast(pl.String).str.zfill(6)).alias("user_id"))
    ids = interactions["item_id"].unique().sort()
    titles = ids
    if isinstance(task, Chain):  # one catalog for all links
        ids = pl.Series(_chain_items(task))
        titles = ids.map_elements(_in_words, return_dtype=pl.String)
    return RawLogs(
        name=name,
        interactions=interactions,
        catalog=pl.DataFrame({"item_id": ids, "title": titles}),
        notes={"format": "long range", "task": repr(task), "seed": seed},
    )


def _sequences(rng: np.random.Generator, task: Task) -> list[list[str]]:
    if isinstance(task, ListOps):
        return _expressions(rng, task)
    return _copies(rng, task) if isinstance(task, Copy) else _chains(rng, task)


def _expressions(rng: np.random.Generator, task: ListOps) -> list[list[str]]:
    if not 0 < task.shortest <= task.longest or task.arguments < 2 or task.depth < 1:
        raise InputError(
            f"{task} cannot be: expected 0 < shortest <= longest, 2 arguments or more, a depth of 1 or more"
        )
    found: list[list[str]] = []
    while len(found) < task.count:
        symbols: list[str] = []
        # The outermost is always an expression: a lone digit would be no question.
        value = _expression(rng, task, 1, symbols)
        if value is not None and len(symbols) >= task.shortest:
            found.append([*symbols, f"= {value}"])
    return found


def _expression(rng: np.random.Generator, task: ListOps, depth: int, symbols: list[str]) -> int | None:
    """Appends an expression to `symbols` and returns its value; None as soon as it is too long."""
    operator = list(OPERATORS)[rng.integers(len(OPERATORS))]
    symbols.append(operator)
    values = []
    for _ in range(rng.integers(2, task.arguments + 1)):
        if depth < task.depth and rng.random() < _NESTED:
            value = _expression(rng, task, depth + 1, symbols)
            if value is None:
                return None
        else:
            value = int(rng.integers(10))
            symbols.append(str(value))
        values.append(value)
        if len(symbols) >= task.longest:
            return None
    symbols.append("]")
    return OPERATORS[operator](values)


def _copies(rng: np.random.Generator, task: Copy) -> list[list[str]]:
    if min(task.count, task.symbols, task.alphabet) < 1 or task.delay < 0:
        raise InputError(f"{task} cannot be: expected positive sizes")
    kept = rng.integers(task.alphabet, size=(task.count, task.symbols))
    shown = np.full((task.count, task.symbols + task.delay), -1)
    if task.scattered:
        places = np.sort(rng.random(shown.shape).argsort(axis=1)[:, : task.symbols], axis=1)
        np.put_along_axis(shown, places, kept, axis=1)
    else:
        shown[:, : task.symbols] = kept
    letters = np.array([*(chr(ord("a") + number) for number in range(task.alphabet)), "."])
    return [[*letters[row].tolist(), "copy", *letters[again].tolist()] for row, again in zip(shown, kept, strict=True)]


def _chains(rng: np.random.Generator, task: Chain) -> list[list[str]]:
    if not 1 <= task.link <= task.links < len(COLOURS) or task.count < 1 or not 2 <= task.modulus <= len(COLOURS):
        raise InputError(f"{task} cannot be: expected 1 <= link <= links < 10, a count, a modulus from 2 to 10")
    steps = rng.integers(task.modulus, size=(task.count, task.links + 1))  # the first is the value at the start
    answers = steps[:, : task.link + 1].sum(axis=1) % task.modulus
    return [
        [f"start {row[0]}", *(f"step {number}" for number in row[1:]), f"query {task.link}", f"value {answer}"]
        for row, answer in zip(steps.tolist(), answers.tolist(), strict=True)
    ]


def _chain_items(task: Chain) -> list[str]:
    """Items of the chains of all links."""
    kinds = {"query": range(1, task.links + 1)} | dict.fromkeys(("start", "step", "value"), range(task.modulus))
    return [f"{kind} {number}" for kind, numbers in kinds.items() for number in numbers]


def _in_words(item: str) -> str:
    """Title of an item of a chain."""
    kind, number = item.split()
    return f"{kind} {COLOURS[int(number)]}"
