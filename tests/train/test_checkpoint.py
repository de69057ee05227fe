import dataclasses
import gc
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.parallel.mesh import MeshShape
from recjax.train.folder.checkpoint import Checkpoints
from recjax.train.optimiser import Adam
from recjax.train.state import TrainState, abstract_state, initial_state
from recjax.typing import InputError
from tests.train.toy import NO_COLUMNS, ToyLoader, ToyModel


def big_state(size=2**22):
    counters = {"step": jnp.zeros((), jnp.int32), "key": jnp.zeros(2, jnp.uint32)}
    return TrainState(params={"w": jnp.zeros(size)}, opt_state={"m": jnp.zeros(size)}, ema=None, **counters)


def abstract(state):
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state)


def test_what_is_saved_is_not_touched_by_later_steps(tmp_path):
    """The save is still going on while the arrays are donated and overwritten in place."""
    bump = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)
    state = bump(big_state())
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {"a": 1})
        for _ in range(5):
            state = bump(state)
        jax.block_until_ready(state)
        checkpoints.wait()
        restored = checkpoints.restore(1, abstract(state))
    assert all((np.asarray(leaf) == 1).all() for leaf in jax.tree.leaves(restored))


def test_retention_and_records(tmp_path):
    state, record = big_state(8), {"nested": {"value": 0.1, "none": None, "list": [1, "a"]}}
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.latest is None
        for step, best in [(1, 1), (2, 1), (3, 1), (5, 5), (8, 5), (9, 5), (10, None)]:
            checkpoints.save(
                step, state, {"step": step, "nested": {"value": 0.1, "none": None, "list": [1, "a"]}}, best
            )
            checkpoints.wait()
            assert set(checkpoints.steps) >= {step} | ({best} - {None})
        assert checkpoints.steps == [9, 10]
    with Checkpoints(tmp_path, writes=False) as checkpoints:
        assert checkpoints.steps == [9, 10]
        assert checkpoints.record(9) == {"step": 9, **record}
        with pytest.raises(InputError, match="no checkpoint of step 3; it has: 9, 10"):
            checkpoints.restore(3, abstract(state))


def test_what_a_killed_run_left_half_written_is_no_checkpoint(tmp_path):
    state = big_state(8)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(4, state, {})
        checkpoints.wait()
    unfinished = tmp_path / "6.orbax-checkpoint-tmp"
    unfinished.mkdir()
    (unfinished / "params").mkdir()
    with Checkpoints(tmp_path, writes=False) as checkpoints:
        assert checkpoints.latest == 4
    assert unfinished.exists()  # reading a run that goes on must not disturb it
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        assert checkpoints.latest == 4
        checkpoints.save(6, state, {})
        checkpoints.wait()
        assert checkpoints.steps == [6]
    assert not unfinished.exists()


@pytest.mark.parametrize("shapes", [((8, 1), (1, 8)), ((2, 4), (4, 2))])
def test_restores_onto_another_layout(tmp_path, shapes):
    model, optimiser = ToyModel(), Adam().build(10)
    states = []
    for number, (data, on_model) in enumerate(shapes):
        with jax.set_mesh(mesh := MeshShape(data, on_model).build()), Checkpoints(tmp_path) as checkpoints:

            def start(key, batch):
                return initial_state(model, optimiser, batch, NO_COLUMNS, key, ema=True)

            batch = ToyLoader().batch(0)
            target = abstract_state(jax.eval_shape(start, jax.random.key(1), batch), mesh, model)
            if number == 0:
                state = jax.jit(start, out_shardings=jax.tree.map(lambda x: x.sharding, target))(
                    jax.random.key(1), batch
                )
                checkpoints.save(1, state, {})
            else:
                state = checkpoints.restore(1, target)
                alone = checkpoints.restore_params(1, target.params, averaged=True)
                jax.tree.map(np.testing.assert_array_equal, state.ema, alone)
                absent = {"absent": jax.tree.leaves(target.params)[0]}
                with pytest.raises(InputError, match=r"checkpoint 1 in .* lacks params/absent"):
                    checkpoints.restore_params(1, absent, averaged=False)
            assert jax.tree.map(lambda x: x.sharding, state) == jax.tree.map(lambda x: x.sharding, target)
            states.append(jax.device_get(dataclasses.replace(state)))
    jax.tree.map(np.testing.assert_array_equal, *states)


def in_use() -> tuple[int, int]:
    """Files and threads of this process."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir()), threading.active_count()


def test_saves_and_reads_leave_no_file_or_thread_open(tmp_path):
    """Each save of Orbax has an event loop of its own, which ends when its result is taken."""
    state = big_state(8)
    with Checkpoints(tmp_path) as checkpoints:
        found = []
        for step in range(1, 31):
            checkpoints.save(step, state, {})
            if step % 10 == 0:
                checkpoints.wait()
                checkpoints.record(step)
                checkpoints.restore(step, abstract(state))
                gc.collect()
                found.append(in_use())
        (files, threads), late = found[0], time.monotonic() + 20
        while (
            in_use()[1] > threads + 1 and time.monotonic() < late
        ):  # threads that have done their work are still ending
            time.sleep(0.1)
        found.append(in_use())
    assert found[-1][0] <= files + 3 and found[-1][1] <= threads + 1, found


def test_keeps_at_least_one(tmp_path):
    with pytest.raises(InputError, match=r"train\.keep is 0"):
        Checkpoints(tmp_path, keep=0)
