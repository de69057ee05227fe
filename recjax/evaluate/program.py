"""The ranking of a run as one compiled program, which other code runs without recjax: StableHLO, made by `jax.export`.

A folder with the program, the arrays that it takes (`weights.safetensors`), the ids and titles of the items, and a page
(`README.md`) that says how to run it. The program's queries are plain: item numbers, oldest first, 0 behind them. How
the view of a run lays a query out depends on its length alone, so tables by length stand for the view.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from recjax import array_files
from recjax.data.batches.views import Queries, View
from recjax.data.dataset import Dataset
from recjax.data.items import Items
from recjax.data.splits import Histories
from recjax.evaluate.program_page import page
from recjax.files import replacing
from recjax.models.model import Model
from recjax.nn.groups import path_name
from recjax.typing import Array, InputError, Int, Params

PLATFORMS = ("cpu", "cuda", "tpu")
PROGRAM, WEIGHTS, ITEMS, ABOUT, PAGE = "program.bin", "weights.safetensors", "items.json", "program.json", "README.md"

SPECIAL = 1_000_000_000
"""Number of items that the view is told of while its layout is found out: larger ids are special tokens."""


@dataclass(frozen=True)
class Layout:
    """Layouts of a history's query by a view, by the number of its items.

    Attributes:
        places: int32 [max_length + 1, l], which item of the history, from 1, stands at each position; 0 for none, and
            above `SPECIAL` special tokens.
        times: int32 [max_length + 1, l], which item's time stands there; None for a view without times.
        positions: int32 [max_length + 1, l].
        lengths: int32 [max_length + 1], tokens.
    """

    places: np.ndarray
    times: np.ndarray | None
    positions: np.ndarray
    lengths: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """By name."""
        found = {name: getattr(self, name) for name in ("places", "times", "positions", "lengths")}
        return {name: array for name, array in found.items() if array is not None}


def layout_of(view: View) -> Layout:
    """The layout of a view.

    Raises:
        InputError: its queries depend on more than the number of items.
    """
    lengths = np.arange(1, view.max_length + 1)
    counted = np.concatenate([np.arange(1, length + 1) for length in lengths]).astype(np.int32)
    histories = Histories.concatenated(lengths, counted, counted.astype(np.int64), lengths)
    found = view.queries(histories, view.max_length, SPECIAL)
    parts: Any = (found.items, found.timestamps, found.positions, found.lengths)
    layout = Layout(*map(_with_empty, parts))
    rng = np.random.default_rng(0)
    items = rng.integers(1, 1_000, counted.size).astype(np.int32)
    times = rng.integers(0, 1_000_000, counted.size)
    drawn = view.queries(Histories.concatenated(lengths, items, times, lengths), view.max_length, 1_000)
    offsets = np.cumsum(lengths) - lengths
    rows: Any = np.zeros((len(lengths), view.max_length), np.int32)
    seconds: Any = np.zeros_like(rows)
    for row, (start, length) in enumerate(zip(offsets, lengths, strict=True)):
        rows[row, :length], seconds[row, :length] = items[start : start + length], times[start : start + length]
    again = queries_by(layout.arrays(), rows, seconds, rows[:, :0], 1_000)
    names = ("items", "positions", "lengths", "timestamps")
    if not all(_same(getattr(drawn, name), getattr(again, name)) for name in names):
        raise InputError(f"the view {type(view).__name__} makes queries of more than items in order: no program does")
    return layout


def _with_empty(array: Any) -> Any:
    """The array with a row before it, of a history without items."""
    return None if array is None else np.concatenate([np.zeros_like(array[:1]), array]).astype(np.int32)


def _same(one: Any, other: Any) -> bool:
    return one is other is None or np.array_equal(np.asarray(one), np.asarray(other))


def queries_by(
    layout: dict[str, Any],
    history: Int[Array, "b n"],
    times: Int[Array, "b n"],
    seen: Int[Array, "b s"],
    n_items: int,
) -> Queries:
    """Queries of histories, their items aligned to the left, 0 behind them.

    Args:
        layout: `Layout.arrays`.
        history: item numbers, oldest first.
        times: their unix seconds.
        seen: item numbers that are never listed, 0-padded.
        n_items: of the catalog.
    """
    count = jnp.sum(jnp.asarray(history) > 0, axis=1)

    def laid(values: Any, places: Any) -> Array:
        place = jnp.asarray(places)[count]
        found = jnp.take_along_axis(jnp.asarray(values), jnp.clip(place - 1, 0, values.shape[1] - 1), axis=1)
        special = n_items + place - SPECIAL
        return jnp.where(place > SPECIAL, special, jnp.where(place > 0, found, 0)).astype(jnp.int32)

    return Queries(
        items=laid(history, layout["places"]),
        positions=jnp.asarray(layout["positions"])[count],
        lengths=jnp.asarray(layout["lengths"])[count],
        seen=jnp.asarray(seen),
        timestamps=laid(times, layout["times"]) if "times" in layout else None,
    )


def export_ranking(
    model: Model,
    params: Params,
    dataset: Dataset,
    view: View,
    items: Items,
    folder: Path,
    *,
    k: int = 10,
    batch: int = 8,
    seen: int = 512,
    about: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes the folder of a program that lists the best items.

    Args:
        model: that ranks.
        params: its parameters.
        dataset: the catalog.
        view: how a history becomes a query.
        items: of the catalog, as `recjax.evaluate.ranking.prepared` gives them.
        folder: made if absent; files of an earlier program are replaced.
        k: length of the lists.
        batch: users of a call.
        seen: ids that each user may have left out.
        about: more to say of the run, JSON values.

    Returns:
        What `program.json` says.

    Raises:
        InputError: a number below 1, or the ranking cannot be one program.
    """
    for name, value in (("k", k), ("batch", batch), ("seen", seen)):
        if value < 1:
            raise InputError(f"{name} is {value}, expected at least 1")
    k = min(k, dataset.n_items)
    layout = layout_of(view)
    whole: Any = {"params": params, "items": items, "layout": layout.arrays()}
    histories, hidden = (jax.ShapeDtypeStruct((batch, width), jnp.int32) for width in (view.max_length, seen))
    shapes = (histories, histories, hidden, jax.ShapeDtypeStruct((dataset.n_items + 1,), jnp.bool_))

    exported, used = _ranking(model, whole, shapes, k)
    said = {
        **(about or {}),
        "dataset": {"name": dataset.name, "fingerprint": dataset.fingerprint, "items": dataset.n_items},
        "k": k,
        "batch": batch,
        "history": view.max_length,
        "seen": seen,
        "times": layout.times is not None,
        "platforms": list(exported.platforms),
        "jax": jax.__version__,
        "calling_convention": exported.calling_convention_version,
    }
    _write(folder, bytes(exported.serialize()), used, dataset, said)
    return said


def _ranking(
    model: Model, whole: Any, shapes: tuple[Any, ...], k: int
) -> tuple[jax_export.Exported, dict[str, np.ndarray]]:
    """The program of lists of k, and those arrays of the parameters, items and layout that it uses, by name."""
    tree = jax.tree.structure(whole)
    arrays = {path_name(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(whole)}

    def rank(weights: dict[str, Array], history: Array, times: Array, seen: Array, allowed: Array) -> Any:
        """The best items of each row and their scores: int32 [b, k] and float32 [b, k]."""
        held = [weights[name] if name in weights else np.zeros(x.shape, x.dtype) for name, x in arrays.items()]
        found = jax.tree.unflatten(tree, held)
        queries = queries_by(found["layout"], history, times, seen, model.n_items)
        return model.scoring(found["params"], queries, found["items"]).topk(seen, k, allowed)

    first = _exported(rank, arrays, shapes)  # of all arrays, to know which of them it reads
    used = {name: arrays[name] for number, name in enumerate(sorted(arrays)) if number in first.module_kept_var_idx}
    return _exported(rank, used, shapes), used


def _exported(function: Any, weights: dict[str, np.ndarray], shapes: tuple[Any, ...]) -> jax_export.Exported:
    described = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in weights.items()}
    try:
        return jax_export.export(jax.jit(function), platforms=PLATFORMS)(described, *shapes)
    except InputError:
        raise
    except Exception as error:  # of tracing and lowering, whatever the model is made of
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"the ranking cannot be exported as one program: {reason}") from error


def _write(
    folder: Path, program: bytes, weights: dict[str, np.ndarray], dataset: Dataset, said: dict[str, Any]
) -> None:
    """The files of a program's folder; InputError where they cannot be written."""
    titles = [None, *dataset.catalog["title"].to_list()]
    listed = {"ids": [None, *dataset.item_ids[1:]], "titles": titles}
    texts = {ITEMS: json.dumps(listed, ensure_ascii=False), ABOUT: json.dumps(said, indent=2) + "\n", PAGE: page(said)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / PROGRAM) as new:
            new.write_bytes(program)
        array_files.write(folder / WEIGHTS, weights)
        for name, text in texts.items():
            with replacing(folder / name) as new:
                new.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror or error}") from error
