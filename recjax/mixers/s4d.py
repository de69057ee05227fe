"""S4D: S4 with a diagonal matrix."""

from dataclasses import dataclass
from typing import Any, Literal

from recjax.mixers.parts.state_space import Declared, StateSpace, channels
from recjax.ops.scan.ssm import Diagonal, DiagonalStep, bilinear, diagonal_kernel, diagonal_pairs, zoh
from recjax.typing import Array, Float

Discretisation = Literal["zoh", "bilinear"]


@dataclass(frozen=True)
class S4D(StateSpace):
    """S4D (Gu et al. 2022): a diagonal state space, whose kernel is a sum of exponentials.

    As accurate as S4 in the paper and much cheaper: a kernel takes L * states / 2 exponentials for each channel. With
    zero-order hold and all inputs 1 it is DSS-exp (Gupta, Gu & Berant 2022). Their softmax over the positions of a row
    is not offered: it would make a history's representation depend on the length of its row.

    Attributes: those of `recjax.mixers.parts.state_space.StateSpace`, and
        init: poles at the start of training, see `recjax.ops.scan.ssm.diagonal_pairs`.
        discretisation: "zoh", an input held for a step, or "bilinear", the trapezoidal rule.
    """

    init: Diagonal = "lin"
    discretisation: Discretisation = "zoh"

    def __post_init__(self) -> None:
        super().__post_init__()

    def declared(self, width: int) -> Declared:
        poles, inputs = diagonal_pairs(self.init, self.states)
        return self._declared(width, poles, B=inputs)

    def step(self, ssm: Any, width: int) -> DiagonalStep:
        rule = zoh if self.discretisation == "zoh" else bilinear
        return rule(*channels(ssm, width, "B"))

    def kernel(self, ssm: Any, c: Array, length: int) -> Float[Array, "d k l"]:
        return diagonal_kernel(self.step(ssm, c.shape[0]), c, length)
