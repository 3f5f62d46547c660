"""A schedule as Keras' optimizers take it: a `LearningRateSchedule` that is saved and loaded with its model."""

from __future__ import annotations

import json
import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

import keras

from glideslope.core.budget import Budget, parse_budget
from glideslope.core.namespace import clip
from glideslope.core.plan import Plan, for_budget
from glideslope.core.profiles import Multiplier
from glideslope.core.spec import canonical, from_json, parse_plan, to_json
from glideslope.core.value import require, unknown


@keras.saving.register_keras_serializable(package="glideslope")
class BudgetSchedule(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """A schedule over a budget of updates, for the `learning_rate` of any Keras optimizer, on any backend.

    The value of update k of N is peak × multiplier(k/N); after the budget the last value is held. Progress is computed
    in float64 inside the compiled step, JAX's included: float32 would merge neighbouring updates beyond N = 10^7.
    It is saved with its model; import `glideslope.keras` before loading one.

    With `gradient_accumulation_steps=m` Keras shows a schedule the batches, not the updates: give m times the updates,
    or leave the rate a number and use `GlideslopeCallback`, which counts updates.

    Args:
        schedule: a schedule or plan, or its text.
        budget: `Steps`, or `Epochs` that know their `updates_per_epoch`, or the text of one.
        peak: base value of the hyperparameter, >= 0.
        hyperparameter: which of the plan's. Keras schedules the learning rate alone; other hyperparameters of a plan
            stay what they are in the optimizer.

    >>> optimizer = keras.optimizers.Adam(BudgetSchedule("rex + warmup(5%)", "10000ba", peak=1e-3))
    >>> float(optimizer.learning_rate)  # the warmup starts at a tenth
    9.999999747378752e-05
    """

    def __init__(
        self, schedule: str | Multiplier | Plan, budget: str | Budget, peak: float, hyperparameter: str = "lr"
    ) -> None:
        require(0 <= peak < math.inf, "peak", peak, "0 <= peak < inf")
        self.plan = without_preamble(parse_plan(schedule))
        self.budget = parse_budget(budget)
        self.peak = float(peak)
        self.hyperparameter = hyperparameter
        if self.budget.unit != "updates":
            raise ValueError(
                f"{self.budget} counts {self.budget.unit}, but Keras shows a schedule the number of updates. Give "
                "Steps, or Epochs with updates_per_epoch; for everything else leave the optimizer's learning rate a "
                f"number and call fit(…, callbacks=[GlideslopeCallback(…, {str(self.budget)!r})])."
            )
        if hyperparameter not in self.plan:
            raise unknown("hyperparameter of the plan", hyperparameter, [name for name, _ in self.plan.courses])
        self._course = for_budget(self.plan, self.budget)[hyperparameter]

    def __call__(self, step: Any) -> Any:
        """The value in force during update `step`, an integer or a tensor of any shape; float32 of that shape."""
        with _doubles():
            # Of Keras' operations only `cast` is safe here: the others may take float64 back to float32.
            progress = clip(keras.ops.cast(step, "float64") / self.budget.limit, 0.0, 1.0)
            # float32 whatever `floatx` says: a half-precision model has no room for a rate of 1e-8 either.
            return keras.ops.cast(self._course.value(progress, self.peak), "float32")

    def get_config(self) -> dict[str, Any]:
        """What Keras saves with the model: texts and numbers."""
        return {
            "schedule": canonical(to_json(self.plan)),
            "budget": str(self.budget),
            "peak": self.peak,
            "hyperparameter": self.hyperparameter,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The inverse of `get_config`."""
        return cls(**config | {"schedule": from_json(json.loads(config["schedule"]))})


def _doubles() -> AbstractContextManager[Any]:
    """Where float64 is what it says; JAX takes it for float32 elsewhere."""
    if keras.backend.backend() != "jax":
        return nullcontext()
    import jax

    context: AbstractContextManager[Any] = jax.enable_x64(True)
    return context


def without_preamble(plan: Plan) -> Plan:
    """The plan, if it has no preamble: that would have to be counted before the budget begins.

    Raises:
        ValueError: it has one.
    """
    if plan.preamble is not None:
        raise ValueError(
            f"{plan.preamble} comes before the budget, which nothing in Keras counts. Put a warmup inside the budget "
            'instead: "linear + warmup(5%)".'
        )
    return plan
