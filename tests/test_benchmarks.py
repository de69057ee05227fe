"""The benchmarks' own arithmetic, and recjax's side of a contest at a tiny size. Nothing is timed."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.tiny import tiny_datasets

FOLDER = Path(__file__).resolve().parents[1] / "experiments" / "benchmarks"


@pytest.fixture(autouse=True, scope="module")
def scripts():
    """Makes the scripts importable, as they are to each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(FOLDER), *sys.path])
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory):
    """A tiny dataset as every side reads it."""
    import contest

    folder = tmp_path_factory.mktemp("benchmark")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECJAX_DATA", str(tiny_datasets(folder / "data", ["tiny"])))
        patch.setenv("RECJAX_CACHE", str(folder / "cache"))
        return contest.prepare("tiny", folder)


def test_every_side_reads_all_events_but_the_last_in_an_order_no_library_can_change(data):
    from peers.turns import histories

    from recjax.data.embedded.synthetic import synthetic

    rows = np.loadtxt(data.events, dtype=np.int64, delimiter=",", skiprows=1)
    offsets, items = histories(str(data.events))
    assert (np.diff(rows[:, 2]) > 0).all() and (np.diff(rows[:, 0]) >= 0).all()
    assert len(offsets) - 1 == len(data.targets) and (np.diff(offsets) == data.lengths).all()
    whole = synthetic(users=120, items=100).interactions.height
    assert len(items) + len(data.targets) == whole
    assert items.min() >= 1 and max(items.max(), data.targets.max()) <= data.items


def test_padding_keeps_the_most_recent_items_at_the_right():
    from peers.turns import padded

    rows = padded(np.array([0, 2, 7]), np.array([1, 2, 3, 4, 5, 6, 7]), 4)
    assert rows.tolist() == [[0, 0, 1, 2], [4, 5, 6, 7]]


def test_lists_are_scored_by_the_place_of_the_target():
    from quality_vs_time import score

    lists = np.array([[5, 6, 7], [1, 2, 3], [4, 8, 9]])
    found = score(lists, np.array([5, 3, 1]))
    assert found["hr@1"] == pytest.approx(1 / 3)
    assert found["ndcg@10"] == pytest.approx((1 + 1 / 2) / 3)


def test_the_goal_is_reached_between_the_points_around_it():
    from quality_vs_time import reached

    curve = [{"trained": 10.0, "ndcg@10": 0.1}, {"trained": 30.0, "ndcg@10": 0.2}]
    assert reached(curve, 0.15) == pytest.approx(20.0)
    assert reached(curve, 0.05) == pytest.approx(5.0)
    assert reached(curve, 0.3) is None


def test_turns_begin_with_another_side_every_round():
    import contest

    names = [name for _, name in contest.by_turns(["a", "b", "c"], 3)]  # pyright: ignore[reportArgumentType]
    assert names == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]


def test_recjax_trains_and_recommends_in_its_turn(data, tmp_path: Path):
    import contest
    from peers.turns import histories

    settings = {
        "events": str(data.events),
        "items": data.items,
        "length": 12,
        "width": 8,
        "layers": 1,
        "batch": 16,
        "warmup": 2,
        "threads": 2,
    }
    with contest.sides(["recjax"], settings, tmp_path, Path("nowhere")) as (side,):
        blocks = [side.train(0.2) for _ in range(2)]
        answer = side.recommend(tmp_path / "lists.npy")
    for block in blocks:
        assert block["steps"] > 0 and 0 < block["targets"] <= block["positions"]
        assert block["peak_bytes"] > 0 and 0 <= block["waited"] <= block["seconds"]
    # A packed step supervises about as many targets as a padded one of `batch` users.
    assert side.facts["rows"] == pytest.approx(16 * np.minimum(data.lengths - 1, 12).mean() / 12, abs=1.5)
    lists = np.load(tmp_path / "lists.npy", allow_pickle=False)
    assert answer["users"] == len(lists) == len(data.targets) and lists.shape[1] == 10
    offsets, items = histories(str(data.events))
    for user, shown in enumerate(lists):
        assert not np.isin(shown, items[offsets[user] : offsets[user + 1]]).any() and (shown > 0).all()


def test_a_loader_that_is_held_is_read_over_and_over_until_the_turns_stop():
    from peers.turns import Held, StoppedError

    class Turned:
        stopped, steps = False, ()

        def step(self, targets, positions, waited):
            self.steps = (*self.steps, (targets, positions))
            self.stopped = len(self.steps) == 5

    turned, read = Turned(), []
    held = Held([[1, 2], [3]], turned, lambda batch: (len(batch), 10))  # pyright: ignore[reportArgumentType]
    with pytest.raises(StoppedError):
        read.extend(iter(held))
    assert len(held) == 2 and turned.steps == ((2, 10), (1, 10)) * 2 + ((2, 10),)


def test_recjax_trains_beside_its_authors_code_at_the_sizes_of_a_case(data, tmp_path: Path, monkeypatch):
    import contest
    from official_speed import CASES, forms

    monkeypatch.setenv("RECJAX_DATA", str(data.events.parent / "data"))
    monkeypatch.setenv("RECJAX_CACHE", str(data.events.parent / "cache"))
    sizes = {**CASES["icsrec"].sizes, "width": 8, "layers": 1, "length": 12, "batch": 16, "learning_rate": 1e-3}
    given = forms(CASES["icsrec"], sizes)
    for form in given.values():
        form["set"]["model.clusters"] = "4"
    rest = {"recipe": "icsrec_beauty", "data": "tiny", "length": 12, "warmup": 2, "threads": 1, "seed": 0}
    with contest.sides(["recjax-histories"], {**rest, "forms": given}, tmp_path, tmp_path, system="official") as (
        side,
    ):
        block = side.train(0.2)
    assert block["steps"] > 0 and block["steps"] < block["targets"] <= block["positions"]


def test_a_side_that_cannot_start_says_how_to_make_its_environment(tmp_path: Path):
    import contest

    with pytest.raises(SystemExit, match=r"setup\.sh"), contest.sides(["torch"], {}, tmp_path, tmp_path):
        pass
    with pytest.raises(SystemExit, match="no side is called 'x'"), contest.sides(["x"], {}, tmp_path, tmp_path):
        pass


def test_chunked_loss_plans_less_memory_than_the_dense_one():
    from loss_memory import one

    chunked, dense = (one(kind, 60_000, 2_048, 8, run=False)["temporary"] for kind in ("chunked", "dense"))
    assert dense > 4 * 60_000 * 2_048 > 3 * chunked


def test_ways_to_run_a_scan_agree():
    import jax
    import scan

    values = {
        side: jax.jit(scan.total, static_argnums=(0, 1))("layer", recurrence, *scan.inputs("layer", 2, 24, 4))
        for side, recurrence in scan.SIDES.items()
    }
    np.testing.assert_allclose(list(values.values()), values["scan"], rtol=1e-5)


def test_hostile_inputs_end_in_one_message():
    attack = [sys.executable, str(FOLDER / "attack_inputs.py"), "--short", "--cases", "3", "--seed", "1"]
    ended = subprocess.run(attack, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    head, *rows = ended.stdout.splitlines()
    assert head.split() == ["kind", "accepted", "refused", "untidy", "traceback", "hang", "crash"] and len(rows) == 14
    for row in rows:
        accepted, refused, *faults = map(int, row.split()[-6:])
        assert accepted + refused == 3 and not any(faults)


def test_the_exponent_of_a_cost_is_that_of_its_power():
    from length import exponent

    lengths = [512, 1024, 2048]
    assert exponent(lengths, [3.0 * length**1.5 for length in lengths]) == pytest.approx(1.5)
    assert np.isnan(exponent(lengths, [0.0, 0.0, 0.0]))
