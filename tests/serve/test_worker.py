"""Requests in the thread that owns the device: batches, bounds, errors, the end."""

import threading
from concurrent.futures import CancelledError

import pytest

from recjax.serve.programs import SIZES
from recjax.serve.worker import BusyError, StoppedError, Worker


class Device:
    """Answers each number with its double, when it may."""

    def __init__(self):
        self.free, self.begun, self.batches = threading.Event(), threading.Event(), []

    def lists(self, queries):
        self.begun.set()
        assert self.free.wait(10)
        self.batches.append(len(queries))
        return [ValueError("odd one out") if query == 13 else 2 * query for query in queries]


@pytest.fixture
def device():
    return Device()


def test_what_waits_is_answered_together_and_the_end_comes_after_it(device: Device):
    worker = Worker(device.lists, 100)
    worker.start()
    first = worker.ask(lambda: 1)
    assert device.begun.wait(10)
    futures = [worker.ask(lambda number=number: number) for number in range(2, 50)]
    futures[5].cancel()
    device.free.set()
    worker.stop()
    assert first.result() == 2 and futures[0].result() == 4
    with pytest.raises(ValueError, match="odd one out"):
        futures[11].result()
    with pytest.raises(CancelledError):
        futures[5].result()
    assert device.batches == [1, SIZES[-1] - 1, 48 - SIZES[-1]]  # the cancelled one is not computed
    with pytest.raises(StoppedError):
        worker.ask(lambda: 1)


def test_a_full_queue_refuses_and_actions_come_before_queries(device: Device):
    worker, order = Worker(device.lists, 3), []
    worker.start()
    worker.ask(lambda: 1)
    assert device.begun.wait(10)
    asked = worker.ask(lambda: order.append("query") or 5)
    ran = worker.run(lambda: order.append("action"))
    broken = worker.run(lambda: [][0])
    with pytest.raises(BusyError):
        worker.ask(lambda: 1)
    device.free.set()
    worker.stop()
    assert asked.result() == 10 and ran.result() is None and order == ["action", "query"]
    with pytest.raises(IndexError):
        broken.result()


def test_a_fault_of_a_batch_is_that_of_each_of_its_queries():
    def fails(queries):
        raise MemoryError

    worker = Worker(fails, 10)
    worker.start()
    with pytest.raises(MemoryError):
        worker.ask(lambda: 1).result(10)
    assert worker.run(lambda: "still here").result(10) == "still here"
    worker.stop()
