"""Libraries whose schedules are functions of the update count: optax and Keras."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
from conformance_runs import (
    Ask,
    Composed,
    CountedRun,
    Cycles,
    Library,
    NotApplicable,
    Offer,
    Plateaued,
    PlateauRun,
    cosine_at,
    exact_shapes,
)

FLOAT32 = 1.2e-7
"""One rounding of the peak in the numbers both hand out."""


def _exchange(run: CountedRun, updates: int) -> None:
    run.exchange(updates)


# ---------------------------------------------------------------- optax


@cache
def _compiled_plateau() -> Any:
    """(state, loss) → state, compiled once: outside `jit` its branches would be compiled at every call."""
    import jax
    import jax.numpy as jnp
    import optax

    rule = optax.contrib.reduce_on_plateau(factor=0.5, patience=2)
    return rule.init(jnp.zeros(1)), jax.jit(lambda state, loss: rule.update(jnp.zeros(1), state, value=loss)[1])


class OptaxPlateau(PlateauRun):
    """The scale is in optax's state, a tree of arrays that checkpoints hold whole."""

    def __init__(self, state: Any = None) -> None:
        start, self._update = _compiled_plateau()
        self._state = start if state is None else state

    @property
    def rate(self) -> float:
        return float(self._state.scale)

    def observe(self, loss: float) -> None:
        self._state = self._update(self._state, loss)

    def saved_and_resumed(self) -> OptaxPlateau:
        return OptaxPlateau(self._state)


def optax_library() -> Library:
    """The schedules of optax."""
    if importlib.util.find_spec("optax") is None:
        return Library("optax", None)
    import jax
    import optax as x

    exact = exact_shapes()

    def counted(schedule: Callable[[Any], Any]) -> Callable[[Any], CountedRun]:
        def make(ask: Any) -> Callable[[np.ndarray], np.ndarray]:
            at = schedule(ask)
            return lambda counts: np.asarray(at(counts.astype(np.int32)))

        return lambda ask: CountedRun(ask, make)

    def offer(name: str, schedule: Callable[[Any], Any], **more: Any) -> Offer:
        return Offer(name, counted(schedule), rebudget=_exchange, start_is_asked=True, epsilon=FLOAT32, **more)

    def one_cycle(name: str, schedule: Callable[..., Any]) -> Offer:
        # It takes one count at a time, so it is mapped over the counts.
        mapped = lambda ask: jax.vmap(schedule(ask.updates, ask.bases[0]))  # noqa: E731
        return offer(name, mapped, end=1 / 250_000, has_floor=False)

    def low(ask: Ask) -> float:
        return ask.floor * ask.bases[0]

    def sgdr(ask: Cycles) -> Any:
        starts = [*ask.restarts(), ask.updates]
        if len(starts) > 20:
            raise NotApplicable("a schedule is joined of its cycles, here too many")
        peaks = [ask.bases[0] * ask.peak_decay**index for index in range(len(starts) - 1)]
        # The last cycle too has its full length, whether the budget ends inside it or not.
        lengths = [ask.first * ask.growth**index for index in range(len(peaks))]
        return x.sgdr_schedule(
            [
                {
                    "init_value": peak,
                    "peak_value": peak,
                    "warmup_steps": 0,
                    "decay_steps": length,
                    "end_value": low(ask),
                }
                for peak, length in zip(peaks, lengths, strict=True)
            ]
        )

    joined = lambda ask: x.join_schedules(  # noqa: E731
        [x.linear_schedule(0.01, 0.1, 5), x.cosine_decay_schedule(0.1, 15)], [5]
    )
    return Library(
        "optax",
        f"{version('optax')} (jax {version('jax')})",
        decays=(
            offer("linear_schedule", lambda a: x.linear_schedule(a.bases[0], low(a), a.updates), exact=exact["linear"]),
            offer(
                "cosine_decay_schedule",
                lambda a: x.cosine_decay_schedule(a.bases[0], a.updates, a.floor),
                exact=exact["cosine"],
            ),
            offer(
                "polynomial_schedule(power=2)",
                lambda a: x.polynomial_schedule(a.bases[0], low(a), 2, a.updates),
                exact=exact["square"],
            ),
        ),
        steps=(
            offer("exponential_decay", lambda a: x.exponential_decay(a.bases[0], 1, 0.9), has_floor=False),
            offer(
                "piecewise_constant_schedule",
                lambda a: x.piecewise_constant_schedule(a.bases[0], {5: 0.5, 10: 0.5}),
                has_floor=False,
            ),
        ),
        warmups=(
            offer(
                "warmup_cosine_decay_schedule",
                lambda a: x.warmup_cosine_decay_schedule(0.0, a.bases[0], a.warmup, a.updates, low(a)),
            ),
        ),
        one_cycles=(
            one_cycle("cosine_onecycle_schedule", x.cosine_onecycle_schedule),
            one_cycle("linear_onecycle_schedule", x.linear_onecycle_schedule),
        ),
        restarts=(offer("sgdr_schedule", sgdr),),
        compositions=(
            Composed(
                "join_schedules(linear, cosine)",
                lambda: counted(joined)(Ask()),
                lambda k: 0.01 + 0.018 * k if k < 5 else 0.1 * cosine_at((k - 5) / 15),
            ),
        ),
        plateaus=(Plateaued("contrib.reduce_on_plateau", OptaxPlateau),),
    )


# ---------------------------------------------------------------- keras


def keras_library() -> Library:
    """The schedules of `keras.optimizers.schedules`, on the backend that the process has chosen."""
    if importlib.util.find_spec("keras") is None:
        return Library("keras", None)
    import keras
    from keras.optimizers import schedules as k

    exact = exact_shapes()

    def counted(schedule: Callable[[Any], Any]) -> Callable[[Any], CountedRun]:
        def make(ask: Any) -> Callable[[np.ndarray], np.ndarray]:
            at = schedule(ask)
            return lambda counts: np.array([float(at(int(count))) for count in counts])

        return lambda ask: CountedRun(ask, make, block=1)

    def offer(name: str, schedule: Callable[[Any], Any], **more: Any) -> Offer:
        return Offer(
            name,
            counted(schedule),
            floor_is_absolute=False,
            rebudget=_exchange,
            start_is_asked=True,
            epsilon=FLOAT32,
            **more,
        )

    return Library(
        "keras",
        f"{version('keras')} ({keras.config.backend()})",
        decays=(
            offer("CosineDecay", lambda a: k.CosineDecay(a.bases[0], a.updates, a.floor), exact=exact["cosine"]),
            offer(
                "PolynomialDecay(power=2)",
                lambda a: k.PolynomialDecay(a.bases[0], a.updates, a.floor * a.bases[0], 2.0),
                exact=exact["square"],
            ),
        ),
        steps=(
            offer("ExponentialDecay", lambda a: k.ExponentialDecay(a.bases[0], 1, 0.9), has_floor=False),
            offer(
                "PiecewiseConstantDecay",
                lambda a: k.PiecewiseConstantDecay([5, 10], [0.1, 0.05, 0.025]),
                has_floor=False,
            ),
        ),
        warmups=(
            offer(
                "CosineDecay(warmup_target)",
                lambda a: k.CosineDecay(0.0, a.updates, a.floor, warmup_target=a.bases[0], warmup_steps=a.warmup),
            ),
        ),
        restarts=(
            offer(
                "CosineDecayRestarts",
                lambda a: k.CosineDecayRestarts(a.bases[0], a.first, float(a.growth), a.peak_decay, a.floor),
            ),
        ),
        lacks={
            "one_cycles": "no one-cycle schedule",
            "compositions": "nothing to put together",
            "plateaus": "ReduceLROnPlateau is a callback without a state to save",
        },
    )
