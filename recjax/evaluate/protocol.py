"""How a model is evaluated: which users, which items compete, what is masked."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from recjax.data.splits import Examples
from recjax.data.views import View
from recjax.evaluate.metrics import mean_metrics
from recjax.evaluate.ranking import rank_users
from recjax.models.model import Model
from recjax.typing import InputError, Params

Candidates = Literal["full", "uniform100", "popularity100"]


@dataclass(frozen=True)
class Evaluate:
    """The protocol.

    Attributes:
        split: which targets.
        mask_seen: "history": items of the user's history leave the ranking (and a target among them is a miss);
            "none": they stay.
        candidates: "full": every item of the catalog competes. "uniform100" and "popularity100": a hundred sampled
            items do, only to compare with papers that did so; such figures are not comparable with full ones, and do
            not even order models the same way (Krichene & Rendle 2020).
        users_per_batch: queries of a batch over all devices.
        bootstrap: resamples of the users for the 95 % intervals; 0 for none.
        k: length of the lists.
        seed: of sampled candidates and of the bootstrap.
    """

    split: Literal["test", "validation"] = "test"
    mask_seen: Literal["history", "none"] = "history"
    candidates: Candidates = "full"
    users_per_batch: int = 256
    bootstrap: int = 1000
    k: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        choices = {
            "split": ("test", "validation"),
            "mask_seen": ("history", "none"),
            "candidates": ("full", "uniform100", "popularity100"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise InputError(f"evaluate.{name} is {getattr(self, name)!r}, expected one of {', '.join(allowed)}")
        for name, least in {"users_per_batch": 1, "bootstrap": 0, "k": 10}.items():
            if getattr(self, name) < least:
                raise InputError(f"evaluate.{name} is {getattr(self, name)}, expected at least {least}")


def quick(
    model: Model, params: Params, examples: Examples, view: View, n_items: int, config: Evaluate, max_users: int | None
) -> dict[str, float]:
    """Accuracy metrics of a fixed sample of users, for validation while training.

    Args:
        model: what ranks.
        params: its parameters.
        examples: histories and targets.
        view: how a history becomes a query.
        n_items: catalog size.
        config: `mask_seen` and `users_per_batch` are used; the whole catalog always competes.
        max_users: size of the sample, the same users on every call; None for all.
    """
    if max_users is not None and max_users < len(examples):
        sample = np.random.default_rng(0).permutation(len(examples))[:max_users]
        examples = examples.take(np.sort(sample))
    rankings = rank_users(
        model,
        params,
        examples,
        view,
        "number {}".format,
        mask_seen=config.mask_seen,
        users_per_batch=config.users_per_batch,
    )
    return mean_metrics(rankings.ranks)
