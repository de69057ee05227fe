"""Self-pretraining: denoise the training data first, then train on it, in equal total steps.

Amos, Berant & Gupta, "Never Train from Scratch: Fair Comparison of Long-Sequence Models Requires Data-Driven Priors"
(ICLR 2024): much of what sets architectures apart when they are trained from scratch is gone when each has first
learned to denoise the very data of the task. A comparison of encoders should therefore see both.

A pre-trained run has a stage, `pretrain` (see `recjax.train.stages`), for the denoising; the task starts from its last
parameters with a fresh optimiser and schedule.
"""

from dataclasses import dataclass
from typing import Any

from recjax.config import RunConfig
from recjax.data.batches.denoising import denoising_view
from recjax.limits import between, require

PRETRAIN = "pretrain"
"""Name of the stage."""


@dataclass(frozen=True)
class Pretrain:
    """Denoising before the task.

    Attributes:
        share: of the run's steps; the task has the rest.
        corrupt: share of the input items that are noise: masked for an encoder that sees both sides, replaced by
            random items for a causal one.
    """

    share: float = 0.5
    corrupt: float = 0.15

    def __post_init__(self) -> None:
        require(self, share=between(0, 1), corrupt=between(0, 1))

    def steps(self, total: int) -> int:
        """Steps of denoising in a run of `total`; at least one is left to each phase."""
        return min(max(round(self.share * total), 1), total - 1)


def denoising(config: RunConfig, pretrain: Pretrain) -> dict[str, Any]:
    """Settings of the stage that denoises.

    It differs from the run in its view, its length, and in that nothing is validated: what ranks well is no measure of
    how well noise is removed.
    """
    return {
        "data.view": denoising_view(config.data.view, pretrain.corrupt),
        "train.steps": pretrain.steps(config.train.steps),
        "train.evaluate_every": 0,
        "train.patience": None,
    }
