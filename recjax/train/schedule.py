"""Calendar of a run in steps: validation, saving, end."""

from dataclasses import dataclass
from typing import Literal

from recjax.limits import COUNT, INT, above, at_least, between, check_patterns, refuse, require
from recjax.train.pretrain import Pretrain
from recjax.train.stages import EVERYTHING, Stage
from recjax.typing import InputError


@dataclass(frozen=True)
class Train:
    """Length of training, and what is done on the way.

    Attributes:
        steps: optimiser steps; give this or `epochs`.
        epochs: passes over the training data.
        evaluate_every: steps between validations, or None for once an epoch; 0 = never.
        patience: validations without a better `metric` after which training ends, or None.
        metric: what "better" is measured by, larger being better: a figure of the first evaluator, or one of another as
            `NAME.METRIC`.
        validation_users: how many users validation looks at, or None for all.
        accumulate: parts a batch is split into to save memory; the result is that of the whole batch. None: on a CPU as
            many as leave its cache room for a part, where rows do not see each other; otherwise one.
        ema: decay of a moving average of the parameters, which is then what is evaluated and used; None for none.
        save_every: steps between checkpoints, or None for one at each validation. The best is always saved.
        keep: latest checkpoints that are kept, beside the best; with one alone, there is nothing to fall back on.
        log_every: steps between lines of the log.
        start_from: folder of a run whose best parameters this one starts from, instead of random ones; all the rest
            (step, optimiser, average) starts anew. A tokenizer of that run is copied and used. With stages, the first
            of them starts there and the run from the last stage, or from the one that `stage:NAME` names.
        take: regular expressions; of the parameters to start from, those with a match in their path are taken over, and
            all others start afresh. By default everything is taken and has to fit; nothing is where this is empty.
        freeze: regular expressions; a parameter whose path (`encoder/block_0/norm/scale`) has a match for one of them
            stays as it is, beside those that the model declares frozen (`recjax.nn.groups.FROZEN`).
        stages: runs that come before this one, in its folder, each starting from the one before, see
            `recjax.train.stages`.
        pretrain: spend a share of `steps` on denoising the training data first, see `recjax.train.pretrain`.
    """

    steps: int | None = None
    epochs: float | None = None
    evaluate_every: int | None = None
    patience: int | None = None
    metric: str = "ndcg@10"
    validation_users: int | None = None
    accumulate: int | None = None
    ema: float | None = None
    save_every: int | None = None
    keep: int = 2
    log_every: int = 50
    start_from: str | None = None
    take: tuple[str, ...] = EVERYTHING
    freeze: tuple[str, ...] = ()
    stages: tuple[Stage, ...] = ()
    pretrain: Pretrain | None = None

    def __post_init__(self) -> None:
        counts = ("steps", "patience", "validation_users", "accumulate", "save_every", "keep", "log_every")
        require(
            self,
            **{name: COUNT for name in counts},
            epochs=above(0, most=INT),
            evaluate_every=at_least(0),
            ema=between(0, 1),
        )
        if (self.steps is None) == (self.epochs is None):
            raise InputError("train: give either steps or epochs, and leave the other none")
        if self.pretrain is not None and (self.steps is None or self.steps < 2):
            refuse(self, "steps", "2 or more, for pretrain divides them")
        if self.pretrain is not None and self.stages:
            raise InputError("train.pretrain is a stage by itself; give it or train.stages, and leave the other")
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise InputError(f"train.stages are called {', '.join(names)}, expected different names")
        check_patterns(self, "take")
        check_patterns(self, "freeze")

    @property
    def parts(self) -> int:
        """Parts that a batch has to be divisible into: those asked for."""
        return self.accumulate or 1

    @property
    def task_steps(self) -> int | None:
        """Steps that are left to the task itself."""
        if self.steps is None or self.pretrain is None:
            return self.steps
        return self.steps - self.pretrain.steps(self.steps)


@dataclass(frozen=True)
class Calendar:
    """The steps at which something is due.

    Attributes:
        total: steps of the run.
        evaluate_every: steps between validations; 0 = never.
        save_every: steps between checkpoints.
        log_every: steps between lines of the log.
        refresh_every: steps between refreshes of frozen parameters; 0 = never.
        weigh_every: steps between changes of the shares of a mixture; 0 = never.
    """

    total: int
    evaluate_every: int
    save_every: int
    log_every: int
    refresh_every: int = 0
    weigh_every: int = 0

    @classmethod
    def of(
        cls,
        train: Train,
        total: int,
        epoch: int,
        validated: bool,
        refresh: int | Literal["epoch", "start"] | None = None,
        weigh: int = 0,
    ) -> "Calendar":
        """The calendar of a run of `total` steps, `epoch` to a pass over the data.

        Args:
            train: the settings.
            total: steps of the run.
            epoch: steps of an epoch.
            validated: whether there is anything to validate on.
            refresh: steps between refreshes, "epoch" for one in each, "start" for one before the first step alone, None
                for never.
            weigh: steps between changes of the shares of a mixture, 0 for never.

        Raises:
            InputError: patience without validation, or `refresh` is something else.
        """
        every = epoch if train.evaluate_every is None else train.evaluate_every
        every = every if validated else 0
        if train.patience is not None and not every:
            raise InputError("train.patience is set, but the split or evaluate_every = 0 rules out validation")
        if refresh not in (None, "epoch", "start") and not (type(refresh) is int and refresh >= 0):
            shown = "a method, not a property" if callable(refresh) else repr(refresh)
            raise InputError(f"refresh_every of the model is {shown}, expected steps, 'epoch', 'start' or None")
        refresh_every = epoch if refresh == "epoch" else total if refresh == "start" else refresh or 0
        return cls(total, every, train.save_every or every or epoch, train.log_every, refresh_every, weigh)

    def validates(self, step: int) -> bool:
        return bool(self.evaluate_every) and (step % self.evaluate_every == 0 or step == self.total)

    def saves(self, step: int) -> bool:
        return step % self.save_every == 0 or step == self.total

    def logs(self, step: int) -> bool:
        return step % self.log_every == 0 or step == self.total

    def anything(self, step: int) -> bool:
        """True if the loop has something to do after this step beside going on."""
        return self.validates(step) or self.saves(step) or self.refreshes(step) or self.weighs(step)

    def refreshes(self, step: int) -> bool:
        """True if frozen parameters are refreshed before the step that follows `step` steps; never after the last."""
        return bool(self.refresh_every) and step % self.refresh_every == 0 and step < self.total

    def weighs(self, step: int) -> bool:
        """True if the shares of a mixture change before the step that follows `step` steps; not before the first."""
        return bool(self.weigh_every) and step > 0 and step % self.weigh_every == 0 and step < self.total
