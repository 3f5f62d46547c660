"""Values: frozen, checked and coerced at construction; errors name the argument, its value and the bound."""

import dataclasses
import inspect
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from glideslope import (
    Absolute,
    Cycles,
    Exponential,
    InversePower,
    Knots,
    Linear,
    Milestones,
    Plan,
    Plateaus,
    Rex,
    Scaled,
    Schedule,
    Step,
)
from glideslope.core.value import Value, members, registered, unknown


@pytest.mark.parametrize("number", [1, np.float32(0.5), np.float64(0.5), Decimal("0.5"), Fraction(1, 2), np.array(0.5)])
def test_numbers_of_any_library_become_plain_floats(number):
    assert type(Absolute(Linear(), number, 0).low) is float


def test_tuples_are_coerced_all_the_way_down():
    assert Knots([0, np.float64(1)], (1, 0)).points == ((0.0, 1.0), (1.0, 0.0))
    assert all(type(level) is float for point in Knots((0, 1), (1, 0)).points for level in point)
    assert Step(np.array([0.25, 0.5])).milestones == (0.25, 0.5)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused_by_name(value):
    with pytest.raises(ValueError, match=r"`gamma` is -?(nan|inf), but must satisfy gamma is finite\."):
        Exponential(value)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Rex("0.5"), r"`beta` is '0.5', but must be a number\."),
        (lambda: Rex(True), r"`beta` is True, but must be a number\."),
        (lambda: Plateaus(2.5), r"`n` is 2.5, but must be a whole number\."),
        (lambda: Step(0.5), r"`milestones` is 0.5, but must be a sequence\."),
        (lambda: Step("ab"), r"`milestones` is 'ab', but must be a sequence\."),
        (lambda: Schedule("rex"), r"`profile` is 'rex', but must be a Multiplier\."),
        (lambda: Schedule(Rex(), warmup=True), r"`warmup` is True, but must be a Warmup\."),
        (lambda: Plan({"lr": 0.1}), r"`courses` is 0.1, but must be a Course\."),
        (lambda: Knots((0, 1), 5), r"`points` is 5, but must be a sequence\."),
    ],
)
def test_a_wrong_type_is_named(build, message):
    with pytest.raises(TypeError, match=message):
        build()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Rex(1.5), r"`beta` is 1.5, but must satisfy 0 <= beta < 1\."),
        (lambda: Rex(1), r"`beta` is 1.0, but must satisfy 0 <= beta < 1\."),
        (lambda: Exponential(0.1), r"`gamma` is 0.1, but must satisfy gamma <= 0\."),
        (lambda: Plateaus(0), r"`n` is 0, but must satisfy n >= 1\."),
        (lambda: Milestones(), r"`at` is \(\), but must satisfy at least one milestone\."),
        (lambda: Milestones(0.5, 0.25), r"`at` is \(0.5, 0.25\), but must satisfy milestones strictly increasing\."),
        (lambda: Milestones(0.5, 1), r"`at` is 1.0, but must satisfy 0 < milestone < 1\."),
        (lambda: InversePower(-0.5, 1), r"`gamma` is -0.5, but must satisfy gamma >= 0\."),
        (lambda: InversePower(0.5, 0), r"`horizon_ratio` is 0.0, but must satisfy horizon_ratio > 0\."),
        (lambda: Scaled(Rex(), 1.5), r"`factor` is 1.5, but must satisfy 0 <= factor <= 1\."),
        (lambda: Step((0.5, 0.5)), r"`milestones` is .* strictly increasing\."),
        (lambda: Step(factor=1.5), r"`factor` is 1.5, but must satisfy 0 <= factor <= 1\."),
        (lambda: Knots((0, 1)), r"`points` is .* at least two points\."),
        (lambda: Knots((0, 1), (1, 2)), r"`points` is 2.0, but must satisfy 0 <= multiplier <= 1\."),
        (lambda: Knots((0.1, 1), (1, 0)), r"`points` is .* first progress 0, last progress 1\."),
        (lambda: Knots((0, 1, 2), (1, 0)), r"`points` is \(0, 1, 2\), but must satisfy length 2\."),
        (lambda: Schedule(Rex(), warmup=0.5, delay=0.5), r"`warmup \+ delay` is 1.0, but must satisfy warmup \+ delay"),
        (lambda: Schedule(Rex(), warmup=1.0), r"`share` is 1.0, but must satisfy 0 <= share < 1\."),
        (lambda: Schedule(Rex(), floor=-0.1), r"`floor` is -0.1, but must satisfy 0 <= floor <= 1\."),
        (lambda: Cycles(Rex(), 0.0), r"`period` is 0.0, but must satisfy 0 < period <= 1 \(a share of the budget\)\."),
        (lambda: Cycles(Rex(), 0.5, 0.5), r"`period / \(1 - multiplier\)` is 1.0, .* or they end before the budget\."),
        (
            lambda: Cycles(Rex(), 1e-4, 1.0001),
            r"`multiplier` is 1.0001, but must satisfy at most 1000 cycles a budget\.",
        ),
        (lambda: Plan({}), r"`courses` is \(\), but must satisfy at least one hyperparameter\."),
        (lambda: Plan({"l r": Rex()}), r"`courses` is 'l r', but must satisfy .* ASCII identifier"),
        (lambda: Plan({"λ": Rex()}), r"`courses` is 'λ', but must satisfy .* ASCII identifier"),
        (lambda: Plan({"preamble": Rex()}), r"`courses` is 'preamble', but must satisfy .* other than 'preamble'\."),
        (lambda: Plan((("lr", Rex()), ("lr", Rex()))), r"`courses` is \['lr', 'lr'\], .* each hyperparameter once\."),
    ],
)
def test_a_value_out_of_bounds_is_named_with_its_bound(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_values_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Rex().beta = 0.9


def test_every_registered_class_is_frozen_and_final():
    for cls in members().values():
        assert dataclasses.fields(cls) is not None
        assert cls.__dataclass_params__.frozen
        assert not inspect.isabstract(cls)
        # Of ours alone: the conformance suite makes mutants.
        ours = [other for other in cls.__subclasses__() if other.__module__.startswith("glideslope.")]
        assert ours == []


def test_a_name_is_given_once():
    with pytest.raises(ValueError, match="the name 'rex' is already taken by Rex"):
        registered("rex")(type("Other", (Value,), {}))


@pytest.mark.parametrize(("name", "near"), [("cosin", "cosine"), ("REX", "rex"), ("Liner", "linear")])
def test_an_unknown_name_is_answered_with_the_nearest(name, near):
    error = unknown("profile", name, ["rex", "linear", "cosine"])
    assert str(error) == f"unknown profile {name!r}. Did you mean {near!r}? Known: cosine, linear, rex."


def test_an_unknown_name_far_from_all_gets_the_list_alone():
    assert str(unknown("profile", "xyz", ["rex"])) == "unknown profile 'xyz'. Known: rex."
