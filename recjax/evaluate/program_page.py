"""The page of an exported program: how to run it without recjax."""

from typing import Any

CODE = '''import json
import os
from pathlib import Path

# Some versions of XLA for CPUs return garbage where it fuses a sum of rows with an empty product: switched off.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_experimental_ynn_fusion_type="

import jax
import numpy as np
from jax import export
from safetensors.numpy import load_file

folder = Path(".")
about = json.loads((folder / "program.json").read_text())
items = json.loads((folder / "items.json").read_text())
numbers = {raw: number for number, raw in enumerate(items["ids"])}
weights = jax.device_put(load_file(folder / "weights.safetensors"))
rank = jax.jit(export.deserialize(bytearray((folder / "program.bin").read_bytes())).call)


def recommend(histories, times=None, candidates=None, k=about["k"]):
    """Lists of (item id, score), one for each history of item ids, oldest first."""
    allowed = np.ones(len(items["ids"]), bool)
    if candidates is not None:
        allowed[:] = False
        allowed[[numbers[item] for item in candidates if item in numbers]] = True
    lists = []
    for start in range(0, len(histories), about["batch"]):
        part = histories[start : start + about["batch"]]
        history = np.zeros((about["batch"], about["history"]), np.int32)
        seconds, seen = np.zeros_like(history), np.zeros((about["batch"], about["seen"]), np.int32)
        for row, ids in enumerate(part):
            known = [place for place, item in enumerate(ids) if item in numbers]
            last = known[-about["history"] :]
            history[row, : len(last)] = [numbers[ids[place]] for place in last]
            if times is not None:
                seconds[row, : len(last)] = [times[start + row][place] for place in last]
            had = list(dict.fromkeys(numbers[ids[place]] for place in known))[-about["seen"] :]
            seen[row, : len(had)] = had
        best, scores = (np.asarray(x) for x in rank(weights, history, seconds, seen, allowed))
        for row in range(len(part)):
            found = zip(best[row, :k].tolist(), scores[row, :k].tolist())
            lists.append([(items["ids"][item], score) for item, score in found if item])
    return lists
'''
"""Loads a program and lists items; it imports jax, numpy and safetensors."""


def page(about: dict[str, Any]) -> str:
    """The text of `README.md` in the folder of a program, from what `program.json` says."""
    data = about["dataset"]
    times = "their times in unix seconds (the model reads them)" if about["times"] else "not read (zeros)"
    items, batch, k = data["items"], about["batch"], about["k"]
    history, seen, convention = about["history"], about["seen"], about["calling_convention"]
    platforms = ", ".join(about["platforms"])
    return f"""# The ranking of {about.get("run", "a run")} as a program

Lists the best {k} of {items:,} items of {data["name"]!r} after a history. Exported by recjax with jax {about["jax"]} as
StableHLO (`jax.export`, calling convention {convention}) for {platforms}. It needs jax of that version or later and no
recjax: `pip install jax numpy safetensors flatbuffers`.

```python
{CODE}```

Then `recommend([["ID", "ID"], ["ID"]])` gives a list for each history. A history of which no item is known has no
query: give such users something of your own (their list here means nothing).

| file | content |
|---|---|
| `program.bin` | the program, for `jax.export.deserialize`; its `mlir_module()` is StableHLO for other runtimes |
| `weights.safetensors` | the arrays that it takes, by name: its first argument |
| `items.json` | id and title of each item number; number 0 is padding |
| `program.json` | the numbers below, and where the program comes from |

| argument | content |
|---|---|
| `weights` | as they stand in the file |
| `history` | int32 [{batch}, {history}]: item numbers, oldest first, 0 behind them; the last ones of a longer history |
| `times` | int32 [{batch}, {history}]: {times} |
| `seen` | int32 [{batch}, {seen}]: item numbers that are not listed, 0-padded: the whole history |
| `allowed` | bool [{items + 1}]: by item number, whether an item may be listed |

It returns item numbers, int32 [{batch}, {k}], best first and 0 where a list runs out, and their scores, float32.
"""
