from pathlib import Path

import numpy as np

from recjax.data.batches.loader import Loader, query_batches
from recjax.data.batches.views import Cloze
from recjax.data.prepare.build import build
from recjax.data.splits import LeaveOneOut
from recjax.data.store.prepared import load, save
from recjax.data.transitions import item_counts
from tests.data.handmade import histories
from tests.data.samples import random_logs
from tests.multi_process.launch import launch

PROGRAM = Path(__file__).with_name("loader_program.py")


PROCESSES, DEVICES = 4, 2
MODELS = {1: 2, 4: 4, 8: 8}
"""Rows that a process holds, by devices along the model axis: of its own, of two processes, of all."""


def test_the_stream_is_the_same_on_any_number_of_processes(tmp_path):
    save(build(random_logs(0)), tmp_path / "dataset")
    launch(PROGRAM, PROCESSES, [str(tmp_path), ",".join(map(str, MODELS))], DEVICES)
    files = [dict(np.load(tmp_path / f"{number}.npz")) for number in range(PROCESSES)]

    source = histories(np.random.default_rng(0).integers(1, 40, 60))
    n_items = int(source.items.max())
    loader = Loader(source, Cloze(20), 8, None, 0, n_items)
    for model, local_rows in MODELS.items():
        assert all(file[f"{model}/local_rows"] == local_rows for file in files)
        for step in range(5):
            expected = loader.host_batch(step)
            np.testing.assert_array_equal(assembled(files, f"{model}/items/{step}/"), expected.items)
            np.testing.assert_array_equal(assembled(files, f"{model}/targets/{step}/"), expected.targets)
            assert all(file[f"{model}/sum/{step}"] == expected.targets.sum() for file in files)

        data = PROCESSES * DEVICES // model
        for number, (queries, rows) in enumerate(query_batches(source, Cloze(20), n_items, -(-7 // data) * data)):
            assert all((file[f"{model}/users/{number}"] == rows).all() for file in files)
            np.testing.assert_array_equal(assembled(files, f"{model}/queries/{number}/"), queries.items)
            np.testing.assert_array_equal(assembled(files, f"{model}/seen/{number}/"), queries.seen)

    dataset = load(tmp_path / "dataset")
    split = LeaveOneOut().split(dataset)
    for file in files:
        np.testing.assert_array_equal(file["stored/targets"], split.test.targets, strict=True)
        np.testing.assert_array_equal(file["stored/times"], split.validation.times, strict=True)
        np.testing.assert_array_equal(file["stored/counts"], item_counts(split.train.items, dataset.n_items))
    read = [user for file in files for user in set(file["stored/read"].tolist())]
    assert len(read) == len(set(read)) and set(read) == set(split.test.histories.users.tolist())


def assembled(files, name):
    """A global array from the shards that the processes wrote down; shards held twice agree."""
    parts = {}
    for file in files:
        for key, value in file.items():
            if key.startswith(name):
                place = int(key.removeprefix(name).split(":")[0])
                np.testing.assert_array_equal(parts.setdefault(place, value), value)
    return np.concatenate([parts[place] for place in sorted(parts)])
