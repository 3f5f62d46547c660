"""Policy: a plan and, if it is steered, its controller. What one row of a comparison is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from glideslope.core.control import Controller
from glideslope.core.plan import Plan
from glideslope.core.value import Value, registered


@registered("policy")
@dataclass(frozen=True)
class Policy(Value):
    """Everything that sets the rate: open loop (plan) and closed loop (controller).

    Args:
        plan: what is scheduled.
        controller: None means gain 1 throughout.

    >>> from glideslope.core.profiles import Linear
    >>> str(Policy(Plan({"lr": Linear()})))
    'linear'
    """

    kind: ClassVar[str] = "policy"
    plan: Plan
    controller: Controller | None = None
