"""Examples of every registered member: an argument named `profile`, `sampling` or `multiplier` runs over them all."""

import pytest

from glideslope import (
    Constant,
    Cosine,
    Cycles,
    EveryStep,
    Exponential,
    Fractal,
    InversePower,
    Knots,
    Linear,
    Milestones,
    OneMinusSqrt,
    Plateaus,
    Polynomial,
    Reflected,
    Rex,
    Scaled,
    Schedule,
    Sequence,
    Step,
    Truncated,
    Warmup,
)

PROFILES = {
    "constant": [Constant()],
    "linear": [Linear()],
    "cosine": [Cosine()],
    "exponential": [Exponential(), Exponential(-0.5), Exponential(-12.0), Exponential(0.0)],
    "rex": [Rex(), Rex(0.0), Rex(0.9), Rex(0.999)],
    "polynomial": [Polynomial(2), Polynomial(0.5), Polynomial(1), Polynomial(3.7)],
    "one_minus_sqrt": [OneMinusSqrt()],
    "inverse_power": [InversePower(0.5, 8), InversePower(1, 0.1), InversePower(2.5, 1000), InversePower(0, 5)],
    "step": [Step(), Step((0.1, 0.2, 0.3, 0.9), 0.5), Step((0.33, 0.66), 0.0), Step((), 0.1), Step((0.5,), 1.0)],
    "knots": [
        Knots((0, 1), (1, 0)),
        Knots((0, 1), (0.1, 0.7), (0.6, 0.9), (1, 0.001)),
        Knots((0, 1), (0.3, 0), (1, 1)),
    ],
    "fractal": [Fractal(), Fractal(1), Fractal(3, 0.01), Fractal(6, 0.9)],
}
SAMPLINGS = {
    "every_step": [EveryStep()],
    "plateaus": [Plateaus(n) for n in (1, 2, 3, 7, 10, 20, 22, 49, 100, 1000)],
    "milestones": [Milestones(0.5, 0.75), Milestones(0.33, 0.66), Milestones(0.25, 0.5, 0.75), Milestones(0.07)],
}
SCHEDULES = {
    "schedule": [
        Schedule(Rex()),
        Schedule(Rex(0.9), Plateaus(10), warmup=0.1, delay=0.25, floor=0.05),
        Schedule(Cosine(), Milestones(0.5, 0.75), warmup=Warmup(0.3, start=0.0)),
        Schedule(Schedule(Linear(), delay=0.5), warmup=0.05),
        Schedule(Cycles(Cosine(), 0.25), Plateaus(20), floor=0.1),
    ],
    "cycles": [
        Cycles(Cosine(), period=0.25),
        Cycles(Cosine(), period=0.3, peak_decay=0.5),
        Cycles(Linear(), period=10 / 70, multiplier=2),
        Cycles(Schedule(Rex(), warmup=0.1), period=0.08, multiplier=1.5, peak_decay=0.9),
        Cycles(Linear(), period=0.3, multiplier=0.75),
        Cycles.evenly(Cycles.evenly(Linear(), 1), 2),
    ],
    "sequence": [
        Sequence((Reflected(Linear()), Linear())),
        Sequence((Constant(), Cycles(Linear(), 0.5), Rex()), at=(0.2, 0.6)),
    ],
    "reflected": [Reflected(Linear()), Reflected(Schedule(Rex(), warmup=0.2))],
    "scaled": [Scaled(Linear(), 0.3), Scaled(Schedule(Cosine(), warmup=0.1), 1.0), Scaled(Step(), 0.0)],
    "truncated": [
        Truncated(Linear(), of=4),
        Truncated(Step(), of=1),
        Truncated(Schedule(Cosine(), Plateaus(4)), of=1.5),
    ],
}


def _all(family):
    return [example for examples in family.values() for example in examples]


_ARGUMENTS = {
    "profile": _all(PROFILES),
    "sampling": _all(SAMPLINGS),
    "multiplier": _all(PROFILES) + _all(SCHEDULES),
}


def pytest_generate_tests(metafunc):
    for name, examples in _ARGUMENTS.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, examples, ids=str)


@pytest.fixture
def examples():
    """Kind → registered name → examples."""
    return {"profile": PROFILES, "sampling": SAMPLINGS, "schedule": SCHEDULES}
