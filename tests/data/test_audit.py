"""The audit: hand-made cases for each figure, its warnings, and the measured table of public sets."""

import json

import numpy as np
import pytest

from recjax.data.embedded.synthetic import synthetic
from recjax.data.prepare.audit import audit
from recjax.data.prepare.build import build
from recjax.data.splits import ByUser, GlobalTime, LeaveOneOut
from recjax.data.store.prepared import find
from tests.data.samples import logs, random_logs


def audited(rows, split=None):
    dataset = build(logs(rows))
    return audit(dataset, (split or LeaveOneOut()).split(dataset))


def test_ties():
    rows = [("a", item, time) for item, time in zip("pqrst", (1, 1, 2, 3, 3), strict=True)]
    rows += [("b", item, time) for item, time in zip("pqr", (3, 4, 5), strict=True)]
    found = audited(rows)
    assert found.tied_events == pytest.approx(2 / 8)  # b's first event has a's last time: not a tie
    assert found.tied_targets == pytest.approx(1 / 2)


def test_a_tie_with_the_event_after_the_target_counts_too():
    rows = [("a", item, time) for item, time in zip("pqrst", (1, 2, 5, 8, 8), strict=True)]
    found = audited(rows, GlobalTime(4, 7, target="first"))
    assert found.tied_targets == 1.0


def test_later_training():
    rows = [("a", item, time) for item, time in zip("pqrs", (1, 2, 3, 4), strict=True)]  # trains at 1 2, tests at 4
    rows += [("b", item, time) for item, time in zip("pqrs", (3, 4, 5, 9), strict=True)]  # trains at 3 4, tests at 9
    rows += [("c", item, time) for item, time in zip("pqrs", (5, 6, 7, 7), strict=True)]  # trains at 5 6, tests at 7
    assert audited(rows).later_training == pytest.approx(np.mean([2 / 6, 0, 0]))


def test_repeats_and_cold_targets():
    rows = [("a", item, time) for time, item in enumerate("pqqp")]  # trains p q; test p was seen
    rows += [("b", item, time) for time, item in enumerate("pqrz")]  # test z is in no training
    rows += [("c", item, time) for time, item in enumerate("qqpr")]  # test r is in no training (b's r validates)
    found = audited(rows)
    assert found.repeat_targets == pytest.approx(1 / 3)
    assert found.consecutive_repeats == pytest.approx(2 / 12)
    assert found.cold_targets == pytest.approx(2 / 3)


def test_order_is_probed_on_real_and_shuffled_histories():
    rng = np.random.default_rng(0)
    cycle, noise = [], []
    for user in range(200):
        start = int(rng.integers(40))
        cycle += [(f"u{user}", f"i{(start + step) % 40}", step) for step in range(12)]
        noise += [(f"u{user}", f"i{item}", step) for step, item in enumerate(rng.permutation(40)[:12])]
    ordered, unordered = audited(cycle), audited(noise)
    assert ordered.order_real > 0.9 and ordered.order_real > 1.4 * ordered.order_shuffled
    assert not any("order carries little signal" in warning for warning in ordered.warnings)
    assert any("order carries little signal" in warning for warning in unordered.warnings)
    assert ordered.probe_users == 200


def test_warnings_appear_only_where_a_figure_is_doubtful():
    clean = audit(build(synthetic(users=500)), GlobalTime().split(build(synthetic(users=500))))
    assert clean.later_training == 0.0
    assert not any("future" in warning for warning in clean.warnings)
    rows = [(f"u{user}", f"i{item % 5}", 7) for user in range(9) for item in range(user, user + 6)]
    doubtful = " ".join(audited(rows).warnings)
    for word in ("undefined", "seen before"):
        assert word in doubtful


@pytest.mark.parametrize("config", [LeaveOneOut(), GlobalTime(20, 35, target="all"), ByUser(0.3, 0.3)])
def test_lines_and_json_for_every_split(config):
    dataset = build(random_logs(0))
    found = audit(dataset, config.split(dataset))
    assert len(found.lines()) == 7 + len(found.warnings)
    assert all("\n" not in line for line in found.lines())
    loaded = json.loads(json.dumps(found.to_json()))
    assert loaded["fingerprint"] == dataset.fingerprint and loaded["warnings"] == found.warnings
    assert all(0 <= value <= 1 for key, value in loaded.items() if isinstance(value, float)), loaded


@pytest.mark.parametrize(
    ("name", "ties", "last_tie", "later"),
    [
        ("ml-100k", 0.51, 0.44, 0.41),
        ("amazon-beauty-2014", 0.39, 0.44, 0.24),
        ("lastfm", 0.85, 0.47, 0.27),
    ],
)
def test_measured_table(uniform_data, tmp_path, monkeypatch, name, ties, last_tie, later):
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path))
    dataset = find(str(uniform_data / name))
    found = audit(dataset, LeaveOneOut().split(dataset))
    assert found.tied_events == pytest.approx(ties, abs=0.006)
    assert found.tied_targets == pytest.approx(last_tie, abs=0.006)
    assert found.later_training == pytest.approx(later, abs=0.006)
    assert len(found.warnings) >= 2
