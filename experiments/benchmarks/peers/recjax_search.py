"""Exact lists by recjax, for `search_speed.py`."""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from turns import Turns, timed_lists

from recjax.ops.items.topk import masked_rank, masked_topk
from recjax.parallel.startup import disable_faulty_cpu_fusion


def main() -> None:
    turns = Turns()
    settings = json.loads(Path(sys.argv[1]).read_text())
    disable_faulty_cpu_fusion()
    arrays = np.load(settings["arrays"])
    users, items, seen, targets = (jnp.asarray(arrays[name]) for name in ("users", "items", "seen", "targets"))
    table = jnp.pad(items, [(1, 0), (0, 0)])
    inputs = (users, table, seen, targets)

    def lists(users, table, seen, targets):
        return masked_topk(users, table, seen, settings["k"])[0]

    def ranks(users, table, seen, targets):
        return masked_rank(users, table, targets, seen)[0][:, None]

    program = jax.jit(ranks if settings["what"] == "rank" else lists).lower(*inputs).compile()
    plan = program.memory_analysis()
    jax.block_until_ready(program(*inputs))
    turns.ready("jax", temporary_bytes=0 if plan is None else plan.temp_size_in_bytes)
    while (command := turns.next())["do"] != "stop":
        turns.say(timed_lists(lambda: np.asarray(program(*inputs)), command.get("out")))


if __name__ == "__main__":
    main()
