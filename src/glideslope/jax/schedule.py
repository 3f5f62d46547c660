"""Schedules as optax takes them: a callable from the update count to a value, usable under `jit`, `vmap` and `scan`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from glideslope.core.budget import Budget, parse_budget
from glideslope.core.plan import Plan, for_budget
from glideslope.core.profiles import Multiplier
from glideslope.core.spec import parse_plan
from glideslope.core.value import require, unknown

try:
    import jax
    import jax.numpy as jnp
except ImportError as error:
    raise ImportError('glideslope.jax needs JAX: pip install "glideslope[jax]"') from error


def optax_schedule(
    schedule: str | Multiplier | Plan, budget: str | Budget, peak: float, hyperparameter: str = "lr"
) -> Callable[[Any], jax.Array]:
    """A schedule over a budget of updates, for `optax.sgd(learning_rate=…)` or `optax.inject_hyperparams`.

    The value of update k of N is peak × multiplier(k/N); after the budget the last value is held. Progress is computed
    in float64 inside the function, whatever `jax_enable_x64` says: float32 would merge neighbouring updates beyond
    N = 10^7.

    Args:
        schedule: a schedule or plan, or its text.
        budget: `Steps`, or `Epochs` that know their `updates_per_epoch`, or the text of one.
        peak: base value of the hyperparameter.
        hyperparameter: which of the plan's: "momentum" of `one_cycle()` is moved in its own range, whatever the peak.

    Returns:
        A function of the update count (an integer scalar or array) whose result has its shape, float32.

    >>> import optax
    >>> optimizer = optax.adam(optax_schedule("rex + warmup(5%)", "10000ba", peak=1e-3))
    """
    total = parse_budget(budget)
    if total.unit != "updates":
        raise ValueError(
            f"{total} counts {total.unit}, but optax counts updates. Give Steps, or Epochs with updates_per_epoch; for "
            "wall clock and tokens pass the progress yourself: progress_schedule."
        )
    value = progress_schedule(schedule, total, peak, hyperparameter)
    limit = total.limit

    def at(count: Any) -> jax.Array:
        with jax.enable_x64(True):
            return value(jax.lax.convert_element_type(count, jnp.float64) / limit)

    return at


def progress_schedule(
    schedule: str | Multiplier | Plan, budget: str | Budget, peak: float, hyperparameter: str = "lr"
) -> Callable[[Any], jax.Array]:
    """A schedule as a function of progress, for budgets that only the host can count: wall clock, samples, tokens.

    Let a `glideslope.Meter` count, and pass its progress into the jitted update as an array, for example through
    `optax.inject_hyperparams`: a changing array recompiles nothing.

    Args:
        schedule, budget, peak, hyperparameter: as in `optax_schedule`.

    Returns:
        A function of progress in [0, 1] (clipped) whose result has its shape, float32.
    """
    require(peak >= 0, "peak", peak, "peak >= 0")
    plan = for_budget(parse_plan(schedule), parse_budget(budget))
    if plan.preamble is not None:
        raise ValueError(
            f"{plan.preamble} comes before the budget, which a function of its progress cannot see. Put a warmup "
            'inside the budget instead: "linear + warmup(5%)".'
        )
    if hyperparameter not in plan:
        raise unknown("hyperparameter of the plan", hyperparameter, [name for name, _ in plan.courses])
    course = plan[hyperparameter]

    def at(progress: Any) -> jax.Array:
        with jax.enable_x64(True):
            precise = jnp.clip(jax.lax.convert_element_type(progress, jnp.float64), 0.0, 1.0)
            return jax.lax.convert_element_type(course.value(precise, peak), jnp.float32)

    return at
