"""Glideslope for PyTorch."""

from glideslope.torch.scheduler import BudgetMismatch, BudgetScheduler
from glideslope.torch.sgdw import SGDW

__all__ = ["SGDW", "BudgetMismatch", "BudgetScheduler"]
