"""Setting: the facts about a task that a study needs, as plain data, so that a report needs neither task nor data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from glideslope.controller.rules import Plateau
from glideslope.core.budget import Epochs
from glideslope.core.plan import for_budget
from glideslope.core.policy import Policy
from glideslope.core.profiles import Constant
from glideslope.core.spec import canonical, parse_policy
from glideslope.trials.lookup import canonical_name, data_sha256, find_task, task_params, task_splits
from glideslope.trials.optimizers import OptimizerSpec
from glideslope.trials.run import updates_per_epoch
from glideslope.trials.task import Metric
from glideslope.trials.trial import Seeds, TaskRef, TrialSpec


@dataclass(frozen=True)
class Setting:
    """A task as a study sees it.

    Args:
        task: the reference that goes into every trial.
        metric: what is reported.
        maximum_epochs, updates_per_epoch: together the 100 % budget.
        whole_epochs: whether budgets are rounded up to whole epochs, as the papers do.
        rates: optimizer text → where its learning-rate grid is centred.
    """

    task: TaskRef
    metric: Metric
    maximum_epochs: int
    updates_per_epoch: int
    whole_epochs: bool
    rates: tuple[tuple[str, float], ...]

    @classmethod
    def of(cls, name: str, optimizers: tuple[str, ...]) -> Setting:
        """Look the task up and load its data once, for their fingerprint."""
        task = find_task(name)
        rates = []
        for text in optimizers:
            optimizer = OptimizerSpec.parse(text)
            default = task.defaults.get(optimizer.name)
            rates.append((text, default.rate if default else optimizer.rate))
        return cls(
            task=TaskRef(canonical_name(name), task.version, canonical(task_params(task)), data_sha256(task)),
            metric=replace(task.metric, over_split=None),
            maximum_epochs=task.maximum_epochs,
            updates_per_epoch=updates_per_epoch(task, task_splits(task).train),
            whole_epochs=task.whole_epochs,
            rates=tuple(rates),
        )

    def epochs(self, share: float) -> float:
        """Length of a run at a share of the maximum; updates are whole, epochs only where the papers want it."""
        if self.whole_epochs:
            return float(max(1, math.ceil(share * self.maximum_epochs - 1e-9)))
        return max(1, round(share * self.maximum_epochs * self.updates_per_epoch)) / self.updates_per_epoch

    def trial(self, optimizer: str, share: float, precision: str = "float32") -> TrialSpec:
        """The trial at a share of the maximum, with policy, rate and seeds still to be replaced."""
        return TrialSpec(
            task=self.task,
            seeds=Seeds.all(0),
            optimizer=OptimizerSpec.parse(optimizer),
            policy=parse_policy(Constant()),
            rate=dict(self.rates)[optimizer],
            updates=round(self.epochs(share) * self.updates_per_epoch),
            eval_every=self.updates_per_epoch,
            precision=precision,
        )

    def fitted(self, policy: Policy, share: float) -> Policy:
        """The policy, told the budget where it depends on it (a truncated schedule, a preamble in epochs).

        A plateau without the time to fall is the plan alone: the first observation it could act on, one more than its
        patience, is then the last one of the run, which a preamble is a part of. Said here, nothing is run twice.
        """
        epochs = self.epochs(share)
        told = for_budget(policy, Epochs(epochs, self.updates_per_epoch))
        if isinstance(told.controller, Plateau):
            before = told.plan.preamble.updates / self.updates_per_epoch if told.plan.preamble is not None else 0.0
            if math.ceil(before + epochs) <= told.controller.patience + 1:
                return replace(told, controller=None)
        return told

    def to_json(self) -> dict[str, Any]:
        content = asdict(self)
        del content["metric"]["over_split"]  # how the task reckons, no fact that a report needs
        return content

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Setting:
        content = dict(data)
        content["task"] = TaskRef(**content["task"])
        content["metric"] = Metric(**content["metric"])
        content["rates"] = tuple((text, rate) for text, rate in content["rates"])
        return cls(**content)
