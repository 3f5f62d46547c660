"""Glideslope for Keras 3, on any of its backends."""

try:
    import keras  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "keras":  # its backend is missing, which it says itself
        raise
    raise ImportError('glideslope.keras needs Keras: pip install "glideslope[keras]"') from error

from glideslope.core.meter import BudgetExhausted, BudgetMismatch, Clock
from glideslope.keras.callback import GlideslopeCallback
from glideslope.keras.schedule import BudgetSchedule

__all__ = ["BudgetExhausted", "BudgetMismatch", "BudgetSchedule", "Clock", "GlideslopeCallback"]
