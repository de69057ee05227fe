"""Optimisers and learning-rate schedules: configurations that build optax transformations."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

from recjax.late import optax
from recjax.limits import RATE, above, at_least, check_patterns, require, within
from recjax.nn.groups import SSM, path_name
from recjax.ops.norms import global_norm
from recjax.train.rowwise import RowwiseAdam
from recjax.typing import Array, InputError, Params

Schedule = Literal["constant", "linear", "cosine"]

SSM_PATH = rf"(^|/){SSM}/"
"""Paths of the parameters declared by `recjax.nn.groups.ssm_params`."""


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba, ICLR 2015) with warm-up, a schedule and clipping of the gradient's global norm.

    Attributes:
        learning_rate: peak learning rate.
        b1: decay of the first moment.
        b2: decay of the second moment.
        eps: added to the root of the second moment.
        clip: largest global norm of the gradient, or None.
        warmup_steps: steps over which the rate rises linearly from 0.
        schedule: "constant", or "linear" or "cosine" decay from the peak to `final_share` of it at the last step.
        final_share: where decay ends, as a share of `learning_rate`.
        hold: share of the run's steps, warm-up included, that stay at the peak before decay begins (warm-up, stable,
            decay; Hu et al. 2024).
        ssm_rate: factor on the learning rate of state space parameters (`recjax.nn.groups.SSM`).
        sparse: update item tables in the rows that a step looks up, and read and write no others: for sampled losses
            over large catalogs. Other rows keep their moments, see `recjax.train.rowwise`.
    """

    learning_rate: float = 1e-3
    b1: float = 0.9
    b2: float = 0.98
    eps: float = 1e-8
    clip: float | None = None
    warmup_steps: int = 0
    schedule: Schedule = "constant"
    final_share: float = 0.0
    hold: float = 0.0
    ssm_rate: float = 1.0
    sparse: bool = False

    def __post_init__(self) -> None:
        require(
            self,
            learning_rate=above(0),
            b1=RATE,
            b2=RATE,
            eps=above(0, most=1),
            clip=above(0),
            warmup_steps=at_least(0),
            final_share=within(0, 1),
            hold=RATE,
            ssm_rate=above(0),
        )

    def rate(self, total_steps: int) -> optax.Schedule:
        """Learning rate as a function of the step, for a run of `total_steps` steps.

        Raises:
            InputError: the warm-up is longer than the run.
        """
        if self.warmup_steps >= max(total_steps, 1) and self.warmup_steps > 0:
            raise InputError(f"optim.warmup_steps is {self.warmup_steps}, but the run has only {total_steps} steps")
        begin = max(self.warmup_steps, round(self.hold * total_steps))
        decay_steps = max(total_steps - begin, 1)
        peak, final = self.learning_rate, self.learning_rate * self.final_share
        after = {
            "constant": optax.constant_schedule(peak),
            "linear": optax.linear_schedule(peak, final, decay_steps),
            "cosine": optax.cosine_decay_schedule(peak, decay_steps, alpha=self.final_share),
        }[self.schedule]
        if begin > self.warmup_steps:
            after = optax.join_schedules([optax.constant_schedule(peak), after], [begin - self.warmup_steps])
        if self.warmup_steps == 0:
            return after
        # Starts at peak / warmup rather than at 0, so that no step is wasted.
        rise = optax.linear_schedule(peak / self.warmup_steps, peak, self.warmup_steps)
        return optax.join_schedules([rise, after], [self.warmup_steps])

    def build(self, total_steps: int, tables: tuple[str, ...] = ()) -> optax.GradientTransformation | RowwiseAdam:
        """Transformation of gradients into updates, for a run of `total_steps` steps.

        Args:
            total_steps: length of the run.
            tables: parameters that the model reads by rows alone.

        Raises:
            InputError: `sparse` is set, but there are no such tables.
        """
        parts = [] if self.clip is None else [_clip(self.clip)]
        slower = [] if self.ssm_rate == 1.0 else [_scale_group(SSM_PATH, self.ssm_rate)]
        dense = optax.chain(*parts, *self._update(self.rate(total_steps)), *slower)
        if not self.sparse:
            return dense
        if not tables:
            raise InputError("optim.sparse updates item tables by rows, but this model has none")
        return RowwiseAdam(dense, tables, self.rate(total_steps), self.b1, self.b2, self.eps, self.clip)

    def _update(self, rate: optax.Schedule) -> list[optax.GradientTransformation]:
        return [optax.adam(rate, self.b1, self.b2, self.eps)]


def _clip(limit: float) -> optax.GradientTransformationExtraArgs:
    """`optax.clip_by_global_norm`, except that it may be told the norm rather than compute it once more."""

    def update(updates: Params, state: Any, params: Params = None, *, grad_norm: Array | None = None, **_: Any):
        norm = global_norm(updates) if grad_norm is None else grad_norm
        scale = jnp.minimum(1.0, limit / jnp.maximum(norm, 1e-30))
        return jax.tree.map(lambda leaf: leaf * scale, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def _scale_group(pattern: str, factor: float) -> optax.GradientTransformation:
    """Multiplies the updates of parameters whose path matches."""

    def update(updates: Params, params: Params | None) -> Params:
        del params
        return jax.tree.map_with_path(
            lambda path, leaf: leaf * factor if re.search(pattern, path_name(path)) else leaf, updates
        )

    return optax.stateless(update)


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter, ICLR 2019).

    Attributes:
        weight_decay: share of a parameter that is taken off per step, times the learning rate.
        no_decay: regular expressions; a parameter whose path (`encoder/block_0/norm/scale`) has a match for one of
            them is not decayed. The default leaves out biases, norms, embeddings and state space parameters.
    """

    weight_decay: float = 0.0
    no_decay: tuple[str, ...] = (
        r"(^|/)bias$",
        r"norm",
        r"(^|/)scale$",
        r"(^|/)(items|output|positions)$",
        r"embed",
        SSM_PATH,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, weight_decay=at_least(0))
        check_patterns(self, "no_decay")

    def _update(self, rate: optax.Schedule) -> list[optax.GradientTransformation]:
        return [
            optax.adamw(
                rate, self.b1, self.b2, self.eps, weight_decay=self.weight_decay, mask=lambda tree: self.decayed(tree)
            )
        ]

    def decayed(self, params: Params) -> Any:
        """A tree like `params` of booleans: which of them decay."""

        def decays(path: tuple[Any, ...], _: Any) -> bool:
            return not any(re.search(pattern, path_name(path)) for pattern in self.no_decay)

        return jax.tree_util.tree_map_with_path(decays, params)
