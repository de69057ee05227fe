# pyright: reportMissingImports=false
"""Exact lists by faiss, for `search_speed.py`: as many items as may be seen besides, so that enough are left.

Taking out what a user has seen is not timed.
"""

import json
import sys
from pathlib import Path

import faiss
import numpy as np
from turns import Block, Turns


def main() -> None:
    turns = Turns()
    settings = json.loads(Path(sys.argv[1]).read_text())
    faiss.omp_set_num_threads(settings["threads"])
    arrays = np.load(settings["arrays"])
    users, items, seen = arrays["users"], arrays["items"], arrays["seen"]
    index = faiss.IndexFlatIP(items.shape[1])
    index.add(items)
    most = settings["k"] + seen.shape[1]
    index.search(users, most)
    turns.ready("faiss-cpu")
    while (command := turns.next())["do"] != "stop":
        block = Block(0.0)
        found = index.search(users, most)[1] + 1
        result = block.result()
        if command.get("out"):
            kept = [row[~np.isin(row, own)][: settings["k"]] for row, own in zip(found, seen, strict=True)]
            np.save(command["out"], np.asarray(kept, np.int32), allow_pickle=False)
        turns.say({"users": len(users), **{key: result[key] for key in ("seconds", "cpu_seconds", "peak_bytes")}})


if __name__ == "__main__":
    main()
