"""Glideslope for PyTorch."""

from glideslope.core.meter import BudgetExhausted, Clock
from glideslope.torch.scheduler import BudgetMismatch, BudgetScheduler
from glideslope.torch.sgdw import SGDW

__all__ = ["SGDW", "BudgetExhausted", "BudgetMismatch", "BudgetScheduler", "Clock"]
