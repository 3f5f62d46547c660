"""Glideslope for PyTorch."""

from glideslope.core.meter import BudgetExhausted, Clock
from glideslope.torch.range_test import RangeTest, Suggestion, range_test
from glideslope.torch.scheduler import BudgetMismatch, BudgetScheduler
from glideslope.torch.sgdw import SGDW

__all__ = [
    "SGDW",
    "BudgetExhausted",
    "BudgetMismatch",
    "BudgetScheduler",
    "Clock",
    "RangeTest",
    "Suggestion",
    "range_test",
]
