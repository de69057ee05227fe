"""Compile-only: the real step and the real ranking, lowered for a pod that is not there.

What a sharded job needs of each device (bytes, products, exchanges by axis and link) is known before it is launched,
and with it how long a step takes at best. `plan` is what `recjax plan` runs.
"""

from recjax.plan.plan import Plan, plan

__all__ = ["Plan", "plan"]
