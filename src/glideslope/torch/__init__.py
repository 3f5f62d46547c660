"""Glideslope for PyTorch."""

from glideslope.core.meter import BudgetExhausted, BudgetMismatch, Clock
from glideslope.torch.range_test import RangeTest, Suggestion, range_test
from glideslope.torch.scheduler import BudgetScheduler
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
