"""Program of one of several processes in `test_loader.py`: load batches and queries, and write down what it holds."""

import sys
from pathlib import Path

import jax
import numpy as np
from jax.sharding import PartitionSpec as P

from recjax.data.batches.loader import Loader, query_batches
from recjax.data.batches.views import Cloze
from recjax.data.splits import LeaveOneOut
from recjax.data.store.prepared import load_unread
from recjax.data.transitions import item_counts
from recjax.parallel.mesh import MeshShape
from recjax.parallel.processes import LaunchError, barrier, host_name, problems, share
from recjax.parallel.startup import initialize
from recjax.typing import InputError
from tests.data.handmade import histories

initialize()  # importing the package must not have started a backend
folder, models = sys.argv[1], [int(model) for model in sys.argv[2].split(",")]

source = histories(np.random.default_rng(0).integers(1, 40, 60))
n_items = int(source.items.max())
loader = Loader(source, Cloze(20), 8, None, 0, n_items)
try:
    loader.batch(0)
    raise SystemExit("no mesh was set, and nobody said so")
except InputError as error:
    assert "processes but no mesh" in str(error)

held: dict[str, np.ndarray] = {}
total = jax.jit(lambda targets: targets.sum())


def note(name: str, array: jax.Array) -> None:
    """Write down this process's shards of a global array, and where they stand in it."""
    assert array.sharding.spec == P("data")
    for shard in array.addressable_shards:
        start, stop, _ = shard.index[0].indices(array.shape[0])
        held[f"{name}/{start}:{stop}"] = np.asarray(shard.data)


for model in models:
    with jax.set_mesh(MeshShape(model=model).build()):
        for step, batch in enumerate(loader.iterate(0, 5)):
            note(f"{model}/items/{step}", batch.items)
            note(f"{model}/targets/{step}", batch.targets)
            held[f"{model}/sum/{step}"] = np.asarray(total(batch.targets))
        held[f"{model}/local_rows"] = np.asarray(len(loader.host_batch(0).items))
        for number, (queries, rows) in enumerate(query_batches(source, Cloze(20), n_items, 7)):
            held[f"{model}/users/{number}"] = rows
            note(f"{model}/queries/{number}", queries.items)
            note(f"{model}/seen/{number}", queries.seen)
# Histories in shards: each process reads its share, all know all.
stored = load_unread(Path(folder) / "dataset")
source, read = stored.items.shards._source, []  # pyright: ignore[reportAttributeAccessIssue]
getitems = type(source).__getitems__
type(source).__getitems__ = lambda self, users: read.extend(users) or getitems(self, users)
split = LeaveOneOut().split(stored)
held |= {
    "stored/targets": split.test.targets,
    "stored/times": split.validation.times,
    "stored/read": np.array(read),
}
held["stored/counts"] = item_counts(split.train.items, stored.n_items)
np.savez(f"{folder}/{jax.process_index()}.npz", **held)
if jax.process_index() == 0:  # nobody else comes, and it is known who
    others = ", ".join(f"{number} on {host_name()}" for number in range(1, jax.process_count()))
    try:
        barrier("a place of its own", limit=0.5)
        raise SystemExit("nobody came, and nobody said so")
    except LaunchError as error:
        assert "waited 0.5 seconds at 'a place of its own'" in str(error) and others in str(error), error
assert share("a word", f"from {jax.process_index()}") == "from 0"
wrong = f"wrong in {jax.process_index()}" if jax.process_index() == 1 else None
assert problems("an attempt", None) == {} and problems("an attempt", wrong) == {1: "wrong in 1"}
barrier("written")
