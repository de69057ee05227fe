"""Tasks with a known answer: the answers are right, and a view can ask for them alone."""

import numpy as np
import pytest

from recjax.data.batches.loader import Loader
from recjax.data.batches.views import Shifted
from recjax.data.embedded.long_range import TASKS, Chain, Copy, ListOps, long_range
from recjax.data.prepare.build import build
from recjax.data.splits import ByUser
from recjax.typing import InputError


def _sequences(name, task) -> list[list[str]]:
    logs = long_range(name, task=task)
    assert logs.interactions.equals(long_range(name, task=task).interactions)
    return logs.interactions.group_by("user_id", maintain_order=True).agg("item_id")["item_id"].to_list()


def _value(symbols: list[str]) -> int:
    """An expression's value by a stack, independent of the generator."""
    stack: list = []
    for symbol in symbols:
        if symbol != "]":
            stack.append(int(symbol) if symbol.isdigit() else symbol)
            continue
        values = []
        while isinstance(stack[-1], int):
            values.append(stack.pop())
        ordered = sorted(values)
        middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) // 2
        operator = stack.pop()
        stack.append({"[MAX": ordered[-1], "[MIN": ordered[0], "[MED": middle, "[SM": sum(values) % 10}[operator])
    (value,) = stack
    return value


def test_expressions_have_the_value_that_they_end_in():
    found = _sequences("listops-small", ListOps(200, 20, 60))
    assert len(found) == 200
    for *symbols, answer in found:
        assert 20 <= len(symbols) <= 60 and symbols[0].startswith("[")
        assert answer == f"= {_value(symbols)}"
    assert len({answer for *_, answer in found}) == 10
    assert max(sum(symbol[0] == "[" for symbol in symbols) for *symbols, _ in found) > 3


@pytest.mark.parametrize("scattered", [False, True])
def test_copies_repeat_what_was_shown_in_order(scattered):
    found = _sequences("selective-copy" if scattered else "copy", Copy(50, 4, 10, scattered))
    gaps = set()
    for sequence in found:
        signal = sequence.index("copy")
        shown = [symbol for symbol in sequence[:signal] if symbol != "."]
        assert signal == 14 and shown == sequence[signal + 1 :] and len(shown) == 4
        gaps.add(tuple(place for place in range(signal) if sequence[place] != "."))
    assert (len(gaps) > 10) == scattered


def test_chains_end_in_the_value_after_as_many_steps_as_the_query_says():
    catalogs = [long_range(f"chain-{link}", task=Chain(link, 40, 3, 4)).catalog for link in (1, 2, 3)]
    assert all(catalog.equals(catalogs[0]) for catalog in catalogs)
    for link in (1, 3):
        for start, *steps, asked, answer in _sequences(f"chain-{link}", Chain(link, 40, 3, 4)):
            numbers = [int(symbol.split()[1]) for symbol in (start, *steps[:link])]
            assert len(steps) == 3 and asked == f"query {link}" and answer == f"value {sum(numbers) % 4}"


def test_a_view_may_ask_for_the_answer_alone():
    dataset = build(long_range("copy", task=Copy(40, 3, 5)))
    split = ByUser().split(dataset)
    batch = Loader(split.train, Shifted(max_length=16, targets=3), 2, 32, 0, dataset.n_items).host_batch(0)
    for row in range(2):
        for segment in range(1, batch.segments[row].max() + 1):
            inside = np.flatnonzero(batch.segments[row] == segment)
            assert batch.weights[row, inside].tolist() == [0.0] * (len(inside) - 3) + [1.0] * 3
            assert np.array_equal(batch.targets[row, inside][-3:], batch.items[row, inside][:3])
    with pytest.raises(InputError, match="targets is 0"):
        Shifted(targets=0)


def test_what_cannot_be_made_is_refused():
    with pytest.raises(InputError, match="no embedded task named 'lists'"):
        long_range("lists")
    with pytest.raises(InputError, match="shortest"):
        long_range("listops", task=ListOps(3, 9, 5))
    with pytest.raises(InputError, match="1 <= link <= links"):
        long_range("chain-1", task=Chain(5))
    assert {"listops", "listops-small", "copy", "selective-copy", "chain-1", "chain-4"} <= set(TASKS)
