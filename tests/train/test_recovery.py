"""Damaged checkpoints: noticed whatever file was hit, passed over for the one before, and said so."""

import random
import shutil

import jax
import numpy as np
import pytest

from recjax.models.model import ItemStats
from recjax.parallel.mesh import MeshShape
from recjax.train.folder.checkpoint import Checkpoints, DamagedError
from recjax.train.folder.checksum import checksum, checksums, host_checksum
from recjax.train.loop import fit
from recjax.train.run import load_run, read_record
from recjax.typing import InputError
from tests.train.real import real_config, write_datasets
from tests.train.toy import ToyModel, saved, toy_config, toy_task

# A read that fails leaves reads of other arrays under way, which Orbax drops with a warning.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def by_hand(x):
    """The checksum in plain integers."""

    def mix(word):
        word = (word ^ (word >> 16)) * 0x85EBCA6B % 2**32
        word = (word ^ (word >> 13)) * 0xC2B2AE35 % 2**32
        return word ^ (word >> 16)

    kind = {1: np.uint8, 2: np.uint16}.get(x.dtype.itemsize, np.uint32)
    words = np.ascontiguousarray(x).view(kind).ravel()
    return sum(mix((int(word) + mix(place)) % 2**32) for place, word in enumerate(words)) % 2**32


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "bool", "uint8"])
def test_checksum_by_hand(dtype):
    x = jax.random.normal(jax.random.key(0), (4, 3, 8)).astype(dtype)
    assert int(jax.jit(checksum)(x)) == by_hand(np.asarray(x))
    assert int(jax.jit(checksum)(x[0, 0, 0])) == by_hand(np.asarray(x[0, 0, :1]))
    assert host_checksum(x) == by_hand(np.asarray(x)) and host_checksum(x[0, 0, 0]) == by_hand(np.asarray(x[0, 0, :1]))


def test_checksums_on_the_host_and_on_the_device_are_the_same():
    x = jax.random.normal(jax.random.key(2), (300, 1, 257))  # more than a block
    assert host_checksum(x) == int(jax.jit(checksum)(x))
    assert host_checksum(x[:0]) == int(jax.jit(checksum)(x[:0])) == 0


def test_checksums_do_not_depend_on_the_layout_and_notice_every_change():
    tree = {"a": {"b": jax.random.normal(jax.random.key(1), (8, 4))}}
    expected = checksums(tree)
    assert list(expected) == ["a/b"]
    for mesh in (MeshShape(data=8), MeshShape(data=2, model=4)):
        sharding = jax.sharding.NamedSharding(mesh.build(), jax.sharding.PartitionSpec("data", "model"))
        assert checksums(jax.device_put(tree, sharding)) == expected
    x = np.array(tree["a"]["b"])
    swapped, flipped = x.copy(), x.copy()
    swapped[[2, 5]] = swapped[[5, 2]]
    flipped.view(np.uint32)[3, 1] ^= 1
    assert len({int(jax.jit(checksum)(each)) for each in (x, swapped, flipped, -x, x.reshape(4, 8)[::-1])}) == 5


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """A run of twelve steps; its last checkpoints are those of steps 10 and 12, its best is that of step 6."""
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    values = iter([0.1, 0.9, 0.3, 0.2])
    fit(toy_config(save_every=2), folder, toy_task(validate=lambda params: {"ndcg@10": next(values)}))
    return folder


def damage(path, how, at=0.5):
    content = path.read_bytes()
    place = int(at * len(content))
    flipped = content[:place] + bytes([content[place] ^ 0x80]) + content[place + 1 :]
    if how == "deleted":
        path.unlink()
    else:
        path.write_bytes({"flipped": flipped, "cut short": content[: len(content) // 2], "empty": b""}[how])


def test_no_damage_goes_unnoticed(unbroken, tmp_path):
    """Whatever is done to one file of a checkpoint, it is refused or comes back bit for bit."""
    expected, record = saved(unbroken)
    draw, refused = random.Random(0), 0
    files = sorted(path.relative_to(unbroken) for path in (unbroken / "checkpoints/12").rglob("*") if path.is_file())
    assert any("/d/" in str(file) for file in files)
    for number in range(40):
        file, how = files[number % len(files)], draw.choice(["deleted", "cut short", "empty", *["flipped"] * 4])
        run = tmp_path / str(number)
        shutil.copytree(unbroken / "checkpoints/12", run / "checkpoints/12")
        damage(run / file, how, draw.random())
        try:
            state, found = saved(run, 12)
        except DamagedError as error:
            assert error.step == 12 and "\n" not in str(error)
            refused += 1
        else:
            jax.tree.map(np.testing.assert_array_equal, state, expected)
            assert found == record
    assert refused > 10


def test_training_goes_on_after_the_checkpoint_before(unbroken, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(unbroken, run)
    (metadata,) = (run / "checkpoints/12").glob("_CHECKPOINT*")
    metadata.write_bytes(b'{"\xff')  # not even text
    (metadata,) = (run / "checkpoints/6").glob("_CHECKPOINT*")
    metadata.unlink()
    result = fit(toy_config(save_every=2), run, toy_task(validate=lambda params: {"ndcg@10": 0.2}))
    output = capsys.readouterr().out
    assert "the checkpoint of step 12 is damaged" in output and "set aside as" in output
    assert "the checkpoint of step 6 is damaged: its record is missing" in output
    assert "resumes from the checkpoint of step 10" in output
    assert (result.step, result.best_step) == (12, 6)
    assert (run / "checkpoints/12.damaged").is_dir()
    expected, actual = saved(unbroken), saved(run)
    jax.tree.map(np.testing.assert_array_equal, expected[0], actual[0])
    with Checkpoints(run / "checkpoints", writes=False) as checkpoints:
        assert checkpoints.steps == [10, 12]


@pytest.mark.parametrize("damage", [b"5\n", b"\xff\xfe\n", b'{"step": 1, "na\n', b"[" * 100_000 + b"\n"])
def test_training_goes_on_whatever_the_log_holds(unbroken, tmp_path, caplog, damage):
    run = tmp_path / "run"
    shutil.copytree(unbroken, run)
    shutil.rmtree(run / "checkpoints/12")
    log = (run / "metrics.jsonl").read_bytes()
    (run / "metrics.jsonl").write_bytes(damage + log)
    assert fit(toy_config(save_every=2), run, toy_task(validate=lambda params: {"ndcg@10": 0.2})).step == 12
    assert "1 lines cannot be read" in caplog.text
    jax.tree.map(np.testing.assert_array_equal, saved(unbroken)[0], saved(run)[0])


def test_no_sound_checkpoint_is_an_error_and_not_a_new_start(unbroken, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(unbroken, run)
    for step in (6, 10, 12):
        for path in (run / f"checkpoints/{step}/state").rglob("d/*"):
            damage(path, "cut short")
    with pytest.raises(
        InputError, match=r"no checkpoint can be read: .* step 12 .* step 10 .* step 6 .* another folder"
    ):
        fit(toy_config(save_every=2), run, toy_task())
    assert (run / "checkpoints/12").is_dir()


def test_another_model_is_not_damage(unbroken, tmp_path):
    shutil.copytree(unbroken, tmp_path / "run")
    with pytest.raises(InputError, match=r"items has shape \(32, 8\) in checkpoint 12 of .*, and \(41, 8\) here"):
        fit(toy_config(save_every=2), tmp_path / "run", toy_task(model=ToyModel(stats=ItemStats(40, np.ones(41)))))
    assert (tmp_path / "run/checkpoints/12").is_dir()


def test_reading_a_run_passes_over_damage(tmp_path, monkeypatch):
    (data := tmp_path / "data").mkdir()
    for name, value in write_datasets(data).items():
        monkeypatch.setenv(name, value)
    run = tmp_path / "run"
    fit(real_config(), run)
    assert load_run(run).notes == ()
    best = load_run(run).step
    kept = [
        int(path.name) for path in (run / "checkpoints").iterdir() if path.name.isdigit() and int(path.name) != best
    ]
    before = max((step for step in kept if step < best), default=min(kept))  # with none before it, the one after
    for path in (run / f"checkpoints/{best}/state").rglob("d/*"):
        damage(path, "cut short")
    found = load_run(run)
    assert found.step == before and f"uses the checkpoint of step {before}" in found.notes
    assert f"the checkpoint of step {best} is damaged" in found.notes[0]
    jax.tree.map(
        np.testing.assert_array_equal, *(jax.device_get(r.params) for r in (found, load_run(run, step=before)))
    )
    with pytest.raises(InputError, match=f"step {best} is damaged"):
        load_run(run, step=best)
    shutil.rmtree(run / f"checkpoints/{best}")
    assert f"the best checkpoint, that of step {best}, is not there" in load_run(run).notes
    damage(run / f"checkpoints/{max(kept)}/_CHECKPOINT_METADATA", "empty")
    assert read_record(run)[0] == min({3, 6, 9} - {best})
