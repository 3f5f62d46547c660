"""Who runs trials: the contract, and the executors that keep it."""

from glideslope.trials.executors.base import Executor
from glideslope.trials.executors.in_process import InProcess
from glideslope.trials.executors.population import Populations
from glideslope.trials.executors.processes import Processes
from glideslope.trials.executors.ray import RayCluster
from glideslope.trials.executors.torchrun import Torchrun

__all__ = ["Executor", "InProcess", "Populations", "Processes", "RayCluster", "Torchrun"]
