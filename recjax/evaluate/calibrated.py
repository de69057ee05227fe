"""A model whose prediction sets have a stated coverage: sets for any history, and questions that make them smaller."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax
import numpy as np
import polars as pl
from jax.sharding import Mesh

from recjax.data.batches.histories import Histories
from recjax.data.splits import Examples
from recjax.evaluate.conformal import PredictionSets, probabilities
from recjax.evaluate.evaluator import EvaluationData
from recjax.evaluate.questions import Asker, Asking, Attributes, Choice, Dialogue, listed, rehearsed
from recjax.evaluate.recommend import Recommendations, known_events
from recjax.evaluate.user_events import UserEvents, typed
from recjax.models.model import Model
from recjax.typing import InputError, Params

ASKING = Asking()

CELLS = 2**26
"""Probabilities of held-out users in memory at once: 256 MB."""


@dataclass(frozen=True, eq=False)
class Calibrated:
    """A model, and thresholds of held-out users: those of the test part, the latest, whose targets are not trained on.

    Attributes:
        model: what ranks.
        params: its parameters.
        data: the catalog and its split.
        mesh: of the devices.
        asker: the thresholds and the questions.
        held_out: examples that the thresholds are not of.
        mask_seen: "history" leaves out what a user has had.
    """

    model: Model
    params: Params
    data: EvaluationData
    mesh: Mesh
    asker: Asker
    held_out: Examples
    mask_seen: Literal["history", "none"] = "history"

    @classmethod
    def on(
        cls,
        model: Model,
        params: Params,
        data: EvaluationData,
        mesh: Mesh,
        *,
        about: Sequence[str] | None = None,
        asking: Asking = ASKING,
        users: int = 1000,
        rehearse: int = 0,
        mask_seen: Literal["history", "none"] = "history",
        seed: int = 0,
    ) -> "Calibrated":
        """The thresholds of a model.

        Args:
            model: what ranks.
            params: its parameters.
            data: the catalog and its split.
            mesh: of the devices.
            about: columns of the catalog that questions are about, see `Attributes.of`.
            asking: coverage, choice of questions and their number.
            users: most held-out users that the thresholds are of.
            rehearse: held-out users beside them, for `rehearse`.
            mask_seen: "history" leaves out what a user has had.
            seed: of the choice of the users and of what they are asked.

        Raises:
            InputError: there are no held-out users, or nothing to ask about.
        """
        PredictionSets(mask_seen=mask_seen).check(data)
        examples, most = data.split.examples("test"), max(100, CELLS // (model.n_items + 1))
        order = np.random.default_rng(seed).permutation(len(examples))
        held, count = examples.take(order[:rehearse]), min(users, most)
        given = examples.take(order[rehearse : rehearse + count])
        if not len(given) or len(held) < rehearse:
            raise InputError(
                f"{rehearse:,} users are to be asked, which leaves none of {len(examples):,} held-out ones to "
                "calibrate on"
            )
        attributes = Attributes.of(data.dataset, about, max(16, min(512, 2 * most)))
        with jax.set_mesh(mesh):
            beliefs = probabilities(model, params, given, data, mask_seen=mask_seen)
        asker = Asker.calibrated_on(beliefs, given.targets, attributes, asking, seed)
        return cls(model, params, data, mesh, asker, held, mask_seen)

    def sets(self, histories: Any) -> pl.DataFrame:
        """The prediction set of each user: user_id, rank (from 1), item_id, title, probability.

        What cannot be used of the histories comes as a warning; a user of whom nothing can be used has no set.

        Args:
            histories: item ids of each user, oldest first, as for `Recommender.recommend`; or `UserEvents`.
        """
        found, beliefs = self.beliefs(histories)
        for line in found.lines(self.data.dataset):
            warnings.warn(line, stacklevel=2)
        catalog = self.data.dataset.catalog
        sets = [
            listed(catalog, self.asker.ordered(belief, 0), belief).insert_column(0, pl.lit(name).alias("user_id"))
            for name, belief in zip(found.table["user_id"], beliefs, strict=True)
        ]
        nobody = listed(catalog, np.zeros(0, np.int64), np.zeros(1)).insert_column(0, pl.lit("").alias("user_id"))
        return pl.concat([nobody, *sets])

    def ask(self, history: Sequence[Any]) -> Dialogue:
        """The questions to one user, and the set after each answer.

        Args:
            history: the user's item ids, oldest first.

        Raises:
            InputError: nothing of the history can be used.
        """
        found, beliefs = self.beliefs([history])
        for line in found.lines(self.data.dataset, typed=True):
            warnings.warn(line, stacklevel=2)
        return self.dialogue(beliefs)

    def dialogue(self, beliefs: np.ndarray) -> Dialogue:
        """`ask` for what `beliefs` gives for one user."""
        if not len(beliefs):
            raise InputError("nothing of the history is left, so there is nothing to go by")
        return Dialogue(self.asker, beliefs[0])

    def rehearse(self) -> dict[str, pl.DataFrame]:
        """Choice of questions -> the dialogues with the users of `held_out`, who answer by their next item."""
        with jax.set_mesh(self.mesh):
            beliefs = probabilities(self.model, self.params, self.held_out, self.data, mask_seen=self.mask_seen)
        return {choice: rehearsed(self.asker, beliefs, self.held_out.targets, choice) for choice in get_args(Choice)}

    def beliefs(self, histories: Any) -> tuple[Recommendations, np.ndarray]:
        """Probabilities of the items, float32 [n, items + 1], of the users of whom there are events.

        Their names are the table of the first part (`user_id`), which also says what was left out.
        """
        events = histories if isinstance(histories, UserEvents) else typed(histories)
        known, unknown = known_events(events, self.data.dataset)
        users, lengths = np.unique(known.users, return_counts=True)
        without = [known.names[user] for user in np.setdiff1d(np.arange(len(known.names)), users)]
        table = pl.DataFrame({"user_id": [known.names[user] for user in users]}, schema={"user_id": pl.String})
        found = Recommendations(table, unknown, without, events.notes, "none")
        read = Histories.concatenated(lengths, np.asarray(known.items, np.int32), known.times, users)
        if not len(users):
            return found, np.zeros((0, self.model.n_items + 1), np.float32)
        with jax.set_mesh(self.mesh):
            return found, probabilities(self.model, self.params, read, self.data, mask_seen=self.mask_seen)
