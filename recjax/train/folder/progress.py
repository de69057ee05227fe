"""Progress of a run besides its arrays: the best validation, patience, sums not yet logged."""

from dataclasses import asdict, dataclass, field
from typing import Any

from recjax.typing import InputError


@dataclass
class Progress:
    """Saved with every checkpoint, so that a resumed run decides and logs as the unbroken one would.

    Attributes:
        best_step: step of the best validation so far.
        best_value: value of the validation metric there.
        stale: validations since then.
        stopped: why training ended before its last step, or None.
        window: sums and weights since the last line of the log, by metric.
        shares: changes of the shares of a mixture, each with its `step`, the held-out `losses` of the datasets and the
            `weights` from there on.
    """

    best_step: int | None = None
    best_value: float | None = None
    stale: int = 0
    stopped: str | None = None
    window: dict[str, list[float]] = field(default_factory=dict)
    shares: list[dict[str, Any]] = field(default_factory=list)

    def add(self, sums: dict[str, tuple[float, float]]) -> None:
        """Adds a step's sums to the window."""
        for name, (total, weight) in sums.items():
            entry = self.window.setdefault(name, [0.0, 0.0])
            entry[0] += float(total)
            entry[1] += float(weight)

    def means(self) -> dict[str, float]:
        """Weighted means over the window, which starts anew."""
        window, self.window = self.window, {}
        return {name: total / weight for name, (total, weight) in window.items() if weight}

    def validated(self, step: int, metrics: dict[str, float], metric: str, patience: int | None) -> bool:
        """Takes note of a validation; whether it is the best so far.

        Raises:
            InputError: `metric` is not among those measured.
        """
        if metric not in metrics:
            raise InputError(f"train.metric is {metric!r}, but validation measures: {', '.join(metrics)}")
        value = float(metrics[metric])
        if self.best_value is None or value > self.best_value:
            self.best_step, self.best_value, self.stale = step, value, 0
            return True
        self.stale += 1
        if patience is not None and self.stale >= patience:
            self.stopped = f"no better {metric} in {self.stale} validations"
        return False

    def reconsider(self, patience: int | None) -> None:
        """Lets training that ran out of patience go on, where it is to have more."""
        if patience is None or self.stale < patience:
            self.stopped = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
