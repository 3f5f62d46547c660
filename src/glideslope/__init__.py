"""Glideslope: train neural networks on a budget.

`import glideslope` loads NumPy and nothing else; `glideslope.torch` needs PyTorch.
"""

from glideslope.controller import Plateau
from glideslope.core.budget import Budget, Deadline, Epochs, Samples, Steps, Tokens, WallClock, parse_budget
from glideslope.core.catalog import NAMED, SAMPLING_RATES, one_cycle
from glideslope.core.control import Clamped, Controller, Decision, Observation
from glideslope.core.meter import BudgetExhausted, BudgetMismatch, Clock, Meter
from glideslope.core.plan import Absolute, Plan, Preamble, Relative, for_budget
from glideslope.core.policy import Policy
from glideslope.core.profiles import (
    Constant,
    Cosine,
    Exponential,
    Fractal,
    Knots,
    Linear,
    Multiplier,
    OneMinusSqrt,
    Polynomial,
    Profile,
    Rex,
    Step,
)
from glideslope.core.sampling import EveryStep, Milestones, Plateaus, Sampling
from glideslope.core.schedule import Cycles, Reflected, Schedule, Sequence, Truncated, Warmup
from glideslope.core.spec import from_json, parse, parse_plan, parse_policy, parse_schedule, to_json, to_text
from glideslope.core.stopping import EarlyStopping
from glideslope.core.value import registered

__version__ = "0.1.0"

__all__ = [
    "NAMED",
    "SAMPLING_RATES",
    "Absolute",
    "Budget",
    "BudgetExhausted",
    "BudgetMismatch",
    "Clamped",
    "Clock",
    "Constant",
    "Controller",
    "Cosine",
    "Cycles",
    "Deadline",
    "Decision",
    "EarlyStopping",
    "Epochs",
    "EveryStep",
    "Exponential",
    "Fractal",
    "Knots",
    "Linear",
    "Meter",
    "Milestones",
    "Multiplier",
    "Observation",
    "OneMinusSqrt",
    "Plan",
    "Plateau",
    "Plateaus",
    "Policy",
    "Polynomial",
    "Preamble",
    "Profile",
    "Reflected",
    "Relative",
    "Rex",
    "Samples",
    "Sampling",
    "Schedule",
    "Sequence",
    "Step",
    "Steps",
    "Tokens",
    "Truncated",
    "WallClock",
    "Warmup",
    "for_budget",
    "from_json",
    "one_cycle",
    "parse",
    "parse_budget",
    "parse_plan",
    "parse_policy",
    "parse_schedule",
    "registered",
    "to_json",
    "to_text",
]
