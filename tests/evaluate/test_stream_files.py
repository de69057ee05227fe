"""Files of states: whose they are, damage, and that they and the lists become visible together or neither."""

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from recjax import array_files
from recjax.data.batches.views import Shifted
from recjax.evaluate.stream import Stream
from recjax.evaluate.stream_files import StateFile, identity
from recjax.models.model import ItemStats
from recjax.models.next_item import NextItem
from recjax.typing import InputError
from tests.damage import flipped, no_file_above

ITEMS, ROOM = 20, 8
VIEW = Shifted(max_length=ROOM, align="left")
MODEL = NextItem(mixer="lru", width=8, layers=1, max_length=ROOM, inner=8).build(ItemStats(ITEMS, np.arange(ITEMS + 1)))
TABLE = pl.DataFrame({"user_id": ["ä"], "rank": [1], "item_id": ["x"], "title": [None], "score": [0.5]})


def made(seed: int = 0):
    ones = jnp.ones((1, ROOM), jnp.int32)
    return jax.jit(lambda key: MODEL.module.init(key, ones, ones, ones)["params"])(jax.random.key(seed))


PARAMS = made()
WHOSE = identity(PARAMS, {"width": 8}, run="r", step=3)


def streamed(*users: str) -> Stream:
    stream = Stream(MODEL, PARAMS, VIEW, users_per_batch=4)
    stream.push(list(users), np.arange(1, len(users) + 1), np.arange(len(users)))
    return stream


def restored(path: Path, whose=WHOSE) -> dict[str, np.ndarray]:
    stream = Stream(MODEL, PARAMS, VIEW, users_per_batch=4)
    with StateFile(path, whose).held() as file:
        file.restore(stream)
    return stream.arrays()


def same(one, other):
    assert set(one) == set(other)
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], name, strict=True)


@pytest.fixture
def saved(tmp_path):
    """A state and lists of a first day; and the state of a second."""
    state, out = tmp_path / "users.safetensors", tmp_path / "lists.csv"
    first, second = streamed("ä", "b", "ä"), streamed("ä", "b", "ä", "c", "\udcff")
    with StateFile(state, WHOSE).held() as file:
        file.write(first, TABLE, out)
    return state, out, first, second


def test_round_trip_of_any_names(saved, tmp_path):
    state, _, first, second = saved
    same(restored(state), first.arrays())
    with StateFile(state, WHOSE).held() as file:
        file.write(second, TABLE, None)
    same(restored(state), second.arrays())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lists.csv", "users.safetensors"]


def test_states_of_other_parameters_are_refused(saved):
    state = saved[0]
    for other, what in (
        (identity(made(1), {"width": 8}, run="r", step=3), "parameters '"),
        (identity(PARAMS, {"width": 9}, run="r", step=3), "configuration '"),
        (identity(PARAMS, {"width": 8}, run="r", step=4), "step 3 there, 4 here"),
    ):
        with pytest.raises(InputError, match=f"holds states of other parameters: {what}.*; start a new file"):
            restored(state, other)
    save_file({"hidden": np.zeros((1, 8))}, state, {"identity": '{"run": "r"}', "users": '["ä"]'})
    with pytest.raises(InputError, match="states of an earlier version of recjax"):
        restored(state)
    save_file({"hidden": np.zeros((1, 8))}, state)
    with pytest.raises(InputError, match="holds no states of users"):
        restored(state)
    state.write_text("junk")
    with pytest.raises(InputError, match="is damaged"):
        restored(state)


def test_no_flipped_bit_is_used(saved):
    state, _, first, second = saved
    expected, refused = first.arrays(), 0
    file, stream = StateFile(state, WHOSE), second
    for _ in flipped(state, 150):
        try:
            file.restore(stream)
        except InputError:
            refused += 1
        else:
            same(stream.arrays(), expected)
    assert refused > 130


@pytest.mark.parametrize("size", [0, 10, 500])
def test_a_full_disk_changes_nothing(saved, tmp_path, size):
    """Neither lists nor states, whichever of them has no room; nothing is left beside them."""
    state, out, first, second = saved
    before = out.read_bytes()
    table = TABLE.with_columns(user_id=pl.lit("another"))
    with StateFile(state, WHOSE).held() as file, no_file_above(size), pytest.raises(InputError, match="Nothing has ch"):
        file.write(second, table, out)
    same(restored(state), first.arrays())
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lists.csv", "users.safetensors"]


def test_a_kill_between_the_two_is_finished_by_the_next_call(saved, tmp_path, monkeypatch):
    state, out, _, second = saved

    class Killed(BaseException):
        pass

    replace = Path.replace

    def killed(self, target):
        if Path(target) == state:
            raise Killed
        return replace(self, target)

    table = TABLE.with_columns(user_id=pl.lit("another"))
    with monkeypatch.context() as patch, pytest.raises(Killed), StateFile(state, WHOSE).held() as file:
        patch.setattr(Path, "replace", killed)
        file.write(second, table, out)
    assert "another" in out.read_text()  # and the state is still the old one
    file = StateFile(state, WHOSE)
    with file.held():
        assert file.repaired == [state]
    same(restored(state), second.arrays())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lists.csv", "users.safetensors"]


def test_what_a_killed_call_left_is_removed(saved, tmp_path, monkeypatch):
    state, out, first, second = saved
    with monkeypatch.context() as patch, StateFile(state, WHOSE).held() as file:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        patch.setattr(array_files, "write", lambda path, *_: path.write_text("half") and 1 / 0)
        with pytest.raises(ZeroDivisionError):
            file.write(second, TABLE, out)
    assert len(list(tmp_path.iterdir())) > 3
    same(restored(state), first.arrays())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lists.csv", "users.safetensors"]


def test_a_link_leads_to_one_file(saved, tmp_path):
    state, _, first, second = saved
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link"
    link.symlink_to(state)
    same(restored(link), first.arrays())
    with StateFile(link, WHOSE).held() as file:
        with pytest.raises(InputError, match="in use by another"):
            restored(state)
        file.write(second, TABLE, None)
    assert link.is_symlink() and list(link.parent.iterdir()) == [link]
    same(restored(state), second.arrays())


def test_places_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in (tmp_path / "file" / "users", tmp_path, tmp_path / ("x" * 300)):
        with pytest.raises(InputError, match="cannot write"):
            restored(path)
    with StateFile(tmp_path / "a", WHOSE).held(), pytest.raises(InputError, match="in use by another"):
        restored(tmp_path / "a")
