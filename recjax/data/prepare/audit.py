"""Audit of a split: ties, leaks from the future, repeats, order that says nothing, cold targets."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from recjax.data.dataset import EQUAL_TIMES, Dataset
from recjax.data.splits import Examples, Histories, Split
from recjax.data.transitions import Transitions, item_counts, target_ranks

TIED_TARGETS, FUTURE_TRAINING, REPEATS, COLD, ORDER_GAIN = 0.1, 0.05, 0.1, 0.1, 1.2
"""Beyond these a figure earns a warning (below it, for the gain of real order over shuffled)."""
LARGEST_USER, TIMES_TYPICAL, FEWEST_USERS = 0.05, 10, 10
"""A user with at least this share of the events, and so many times the median user's, may be no user; among so many."""
_PROBE_USERS, _PROBE_EVENTS, _PROBE_SEED = 4_000, 2_000_000, 0
"""The shuffle test's sample: enough for two digits, small enough for seconds."""


@dataclass(frozen=True)
class Audit:
    """Figures about a dataset and one split of it; shares are between 0 and 1.

    Attributes:
        dataset: its name.
        fingerprint: its fingerprint.
        split: which split.
        tied_events: share of events that have the same time as the user's event before (a first event never has); of a
            log with times below a second, the same time in the log.
        tied_targets: share of test targets with the same time as the event before or after them: another tie order
            would have asked for another item. Of a log with times below a second it is a bound from above.
        later_training: mean over test targets of the share of training events that happen after the target; None where
            the log has no times.
        repeat_targets: share of test targets that stand in their own history.
        consecutive_repeats: share of events on the same item as the user's event before.
        cold_targets: share of test targets that no training event mentions.
        order_real: NDCG@10 of the transition floor, on a sample of test users.
        order_shuffled: the same after every history was shuffled.
        probe_users: size of that sample.
        largest_user: the user with most events, and their number, where they are implausibly many; else None.
        notes: what the split left out.
    """

    dataset: str
    fingerprint: str
    split: str
    tied_events: float
    tied_targets: float
    later_training: float | None
    repeat_targets: float
    consecutive_repeats: float
    cold_targets: float
    order_real: float
    order_shuffled: float
    probe_users: int
    largest_user: tuple[str, int] | None
    notes: dict[str, Any]

    def lines(self) -> list[str]:
        """One line a figure, then the warnings."""
        gain = f"{self.order_real / self.order_shuffled:.2f} times" if self.order_shuffled > 0 else "not comparable"
        later = self.later_training
        figures = [
            (f"events at the same {self._when} as the one before", f"{self.tied_events:.1%}"),
            ("test targets that a tie could swap", f"{self.tied_targets:.1%}"),
            *([] if later is None else [("training events later than a test target", f"{later:.1%} on average")]),
            ("test targets seen before by the user", f"{self.repeat_targets:.1%}"),
            ("events on the same item as the one before", f"{self.consecutive_repeats:.1%}"),
            ("test targets never seen in training", f"{self.cold_targets:.1%}"),
            (
                "order: transition floor NDCG@10, real / shuffled",
                f"{self.order_real:.4f} / {self.order_shuffled:.4f} ({gain}, {self.probe_users:,} users)",
            ),
        ]
        width = max(len(label) for label, _ in figures)
        return [f"{label:<{width}}  {value}" for label, value in figures] + [f"warning: {w}" for w in self.warnings]

    @property
    def _when(self) -> str:
        return "place" if self.later_training is None else "time"

    @property
    def warnings(self) -> list[str]:
        """Reasons to doubt the split, one sentence each; empty where it is not."""
        doubts = []
        if self.largest_user is not None:
            user, count = self.largest_user
            doubts.append(
                f"user {user!r} has {count:,} events, many times a typical user's: is it visitors without an id?"
            )
        if self.tied_targets > TIED_TARGETS:
            doubts.append(
                f"the next item is undefined for {self.tied_targets:.0%} of the test: their {self._when} is that of "
                "a neighbour, so figures depend on the order of the file; compare only on the same fingerprint"
            )
        if self.later_training is not None and self.later_training > FUTURE_TRAINING:
            doubts.append(
                f"training sees the future: {self.later_training:.0%} of its events happen after the average test "
                "target; a global time split does not leak"
            )
        if self.repeat_targets > REPEATS:
            doubts.append(
                f"{self.repeat_targets:.0%} of the test targets were seen before: masking the history hides them from "
                "users, not masking it rewards copying; read the novel and repeat slices apart"
            )
        if self.consecutive_repeats > REPEATS:
            doubts.append(
                f"{self.consecutive_repeats:.0%} of events repeat the item before: consider --duplicates consecutive"
            )
        if self.cold_targets > COLD:
            doubts.append(
                f"{self.cold_targets:.0%} of the test targets never occur in training: no model of ids can find them"
            )
        if self.order_real < ORDER_GAIN * self.order_shuffled:
            doubts.append(
                "order carries little signal: counting transitions does about as well on shuffled histories, so this "
                "split hardly tells sequential models apart"
            )
        return doubts

    def to_json(self) -> dict[str, Any]:
        """The figures, and `warnings`."""
        return asdict(self) | {"warnings": self.warnings}


def audit(dataset: Dataset, split: Split) -> Audit:
    """Computes every figure; a few seconds for a million events."""
    same_user = np.ones(max(dataset.n_interactions - 1, 0), bool)
    same_user[dataset.offsets[1:-1] - 1] = False
    tied = (np.diff(dataset.timestamps) == 0) & same_user
    repeated = (np.diff(dataset.items) == 0) & same_user
    test = split.test
    equal = dataset.description.get(EQUAL_TIMES, dataset.n_interactions)  # the stored times are cut to seconds
    swapped = float(_tied_targets(dataset, test).mean())
    real, shuffled, users = _order_probe(split, dataset.n_items)
    return Audit(
        dataset=dataset.name,
        fingerprint=dataset.fingerprint,
        split=split.name,
        tied_events=min(int(tied.sum()), equal) / dataset.n_interactions,
        tied_targets=min(swapped, 2 * equal / len(test)),
        later_training=_later_training(split.train.timestamps, test.times) if dataset.has_times else None,
        repeat_targets=float(test.repeats().mean()),
        consecutive_repeats=float(repeated.sum() / dataset.n_interactions),
        cold_targets=float((item_counts(split.train.items, dataset.n_items)[test.targets] == 0).mean()),
        order_real=real,
        order_shuffled=shuffled,
        probe_users=users,
        largest_user=_largest_user(dataset),
        notes=split.notes,
    )


def _largest_user(dataset: Dataset) -> tuple[str, int] | None:
    """The user with an implausible share of the events, and how many they are."""
    lengths = np.diff(dataset.offsets)
    user, most = int(lengths.argmax()), int(lengths.max())
    few = most < LARGEST_USER * dataset.n_interactions or most < TIMES_TYPICAL * float(np.median(lengths))
    return None if few or len(lengths) < FEWEST_USERS else (dataset.user_ids[user], most)


def _tied_targets(dataset: Dataset, test: Examples) -> np.ndarray:
    """bool [n]: another event of the user has the target's time."""
    moments, moment = np.unique(dataset.timestamps, return_inverse=True)
    keys = np.repeat(np.arange(dataset.n_users), np.diff(dataset.offsets)) * len(moments) + moment  # in order
    asked = test.histories.users.astype(np.int64) * len(moments) + np.searchsorted(moments, test.times)
    return np.searchsorted(keys, asked, side="right") - np.searchsorted(keys, asked) > 1


def _later_training(training: np.ndarray, targets: np.ndarray) -> float:
    """Mean share of training events strictly later than a target."""
    not_later = np.searchsorted(np.sort(training), targets, side="right")
    return float(1 - not_later.mean() / len(training))


def _order_probe(split: Split, n_items: int) -> tuple[float, float, int]:
    """NDCG@10 of the transition floor on real and on shuffled histories, and the number of test users asked.

    Shuffling touches the training histories (counts) and the test histories (the last items) alike, never the target.
    After Klenitskiy et al. (2024), "Does It Look Sequential?", with a counting model in place of a trained one.
    """
    rng = np.random.default_rng(_PROBE_SEED)
    train = split.train
    order = rng.permutation(len(train))
    order = np.sort(order[: max(1, int(np.searchsorted(np.cumsum(train.lengths[order]), _PROBE_EVENTS)))])
    train = train.take(order)
    test = split.test.take(np.sort(rng.permutation(len(split.test))[:_PROBE_USERS]))
    figures = []
    for shuffle in (False, True):
        seen = _shuffled(test.histories, rng) if shuffle else test.histories
        model = Transitions.fit(_shuffled(train, rng) if shuffle else train, n_items)
        figures.append(_ndcg(model, Examples(seen, test.targets, test.times), n_items))
    return figures[0], figures[1], len(test)


def _shuffled(histories: Histories, rng: np.random.Generator) -> Histories:
    """The same histories, each in random order."""
    histories = histories.compact()
    row = np.repeat(np.arange(len(histories)), histories.lengths)
    order = np.lexsort((rng.random(len(row)), row))
    return replace(histories, items=histories.items[order], timestamps=histories.timestamps[order])


def _ndcg(model: Transitions, examples: Examples, n_items: int) -> float:
    """NDCG@10, histories masked, full catalog; scored in chunks of some tens of megabytes."""
    size = max(1, 8_000_000 // (n_items + 1))
    total = 0.0
    for start in range(0, len(examples), size):
        part = examples.take(np.arange(start, min(start + size, len(examples))))
        ranks = target_ranks(model.scores(part.histories), part.histories, part.targets)
        ranks = ranks[~part.repeats()]  # with histories masked, a seen target is a miss, as in evaluation
        total += float((1 / np.log2(ranks[ranks <= 10] + 1)).sum())
    return total / max(len(examples), 1)
