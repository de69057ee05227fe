"""S4: a structured state space that starts from Legendre coefficients of the past."""

from dataclasses import dataclass
from typing import Any

from recjax.mixers.parts.state_space import Declared, StateSpace, channels
from recjax.ops.scan.ssm import DPLRStep, bilinear_dplr, dplr_kernel, legs_pairs
from recjax.typing import Array, Float


@dataclass(frozen=True)
class S4(StateSpace):
    """S4 (Gu, Goel & Ré 2022): HiPPO-LegS as a diagonal plus low-rank matrix, by the trapezoidal rule.

    A step of training makes one kernel of L taps for each channel, whatever the number of rows: L * states complex
    divisions and states^3 log L products. A single event takes a time linear in the states.

    The inputs are those of HiPPO-LegS, with the phases in which they are real and positive.

    Attributes: those of `recjax.mixers.parts.state_space.StateSpace`.
    """

    def declared(self, width: int) -> Declared:
        poles, low_rank, inputs = legs_pairs(self.states)
        return self._declared(width, poles, B=inputs, P=low_rank)

    def step(self, ssm: Any, width: int) -> DPLRStep:
        return bilinear_dplr(*channels(ssm, width, "B", "P"))

    def kernel(self, ssm: Any, c: Array, length: int) -> Float[Array, "d k l"]:
        dt, poles, inputs, low_rank = channels(ssm, c.shape[0], "B", "P")
        return dplr_kernel(dt, poles, inputs, low_rank, c, length)
