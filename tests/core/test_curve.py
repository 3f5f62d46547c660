"""Curves: exact at their points, straight in between, inverted as they are read, silent outside and next to NaN."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glideslope import Band, Curve, Epochs, Steps, Tokens, WallClock, frontier, price_of_separate

NAN, INF = math.nan, math.inf
BANDED = Curve(
    (100, 200, 400),
    {"accuracy": Band((0.8, 0.9, 0.94), (0.78, 0.88, 0.93), (0.82, 0.92, 0.95))},
    seconds=(10, 20, 40),
    name="cyclic",
)
BROKEN = Curve((100, 200, 400, 800), {"accuracy": Band((0.8, NAN, 0.9, 0.94))})


def test_at_a_point_the_curve_is_what_was_measured():
    for budget in ("200ba", Steps(200), Epochs(2, updates_per_epoch=100), WallClock(20), "20sec"):
        reading = BANDED.at(budget)["accuracy"]
        assert (reading.value, reading.low, reading.high) == (0.9, 0.88, 0.92)
        assert reading.is_known


def test_between_points_it_is_straight_over_the_logarithm_of_the_cost_with_its_interval():
    middle = Curve((100, 10_000), {"a": Band((0.0, 1.0), (-1.0, 0.5), (0.0, 2.0))}).at("1000ba")["a"]
    assert (middle.value, middle.low, middle.high) == pytest.approx((0.5, -0.25, 1.0))


@pytest.mark.parametrize("budget", ["99ba", "401ba"])
def test_outside_it_says_nothing_and_says_so(budget):
    reading = BANDED.at(budget)["accuracy"]
    assert math.isnan(reading.value)
    assert str(reading) == f"{budget[:-2]} updates lie outside the curve, which goes from 100 to 400."


def test_a_cost_lies_in_the_interval_of_the_edges():
    reading = BANDED.cost_to_reach(accuracy=0.9)
    assert reading.value == pytest.approx(200)
    # The better edge goes from 0.82 to 0.92, the worse one from 0.88 to 0.93.
    assert reading.low == pytest.approx(100 * 2**0.8)
    assert reading.high == pytest.approx(200 * 2**0.4)


def test_the_direction_is_that_of_the_curve():
    falling = Curve((100, 200, 400), {"loss": Band((1.0, 0.5, 0.25), (0.9, 0.4, 0.2), (1.1, 0.6, 0.3))})
    reading = falling.cost_to_reach(loss=0.5)
    assert reading.value == pytest.approx(200)
    assert reading.low < 200 < reading.high


@given(st.floats(0.5, 0.99))
def test_what_is_read_at_the_cost_of_a_value_is_that_value(wanted):
    curve = Curve((50, 130, 700, 1100), {"accuracy": Band((0.5, 0.8, 0.95, 0.99))}, seconds=(1, 3, 9, 30))
    seconds = curve.cost_to_reach("seconds", accuracy=wanted)
    assert curve.at(WallClock(seconds.value))["accuracy"].value == pytest.approx(wanted)


def test_a_value_out_of_reach_is_answered_by_the_bound_that_still_holds():
    beyond = BANDED.cost_to_reach(accuracy=0.96)
    assert (beyond.low, beyond.high) == (400, INF)
    assert beyond.reason == "accuracy 0.96 is not reached: the best is 0.94, after 400 updates."
    maybe = BANDED.cost_to_reach(accuracy=0.945)
    assert not maybe.is_known
    assert 200 < maybe.low < 400  # the better edge gets there
    before = BANDED.cost_to_reach(accuracy=0.7)
    assert (before.low, before.high) == (0, 100)
    assert before.reason == "accuracy 0.7 is reached before the curve begins: 0.8 after 100 updates."
    assert math.isnan(beyond.value)
    assert math.isnan(before.value)


def test_a_diverged_point_is_named_and_leaves_the_others_standing():
    assert BROKEN.diverged("accuracy") == (200.0,)
    assert BROKEN.at("800ba")["accuracy"].value == 0.94
    for budget in ("150ba", "200ba", "300ba"):
        assert "nan after 200 updates: the run diverged there" in BROKEN.at(budget)["accuracy"].reason
    across = BROKEN.cost_to_reach(accuracy=0.85)
    assert (across.value, across.low, across.high) == (400, 100, 400)
    assert BROKEN.cost_to_reach(accuracy=0.92).value == pytest.approx(400 * 2**0.5)
    lost = Curve((1, 2), {"loss": Band((NAN, INF))})
    assert lost.cost_to_reach(loss=1.0).reason == "loss is a number at no point: the run diverged."


def test_one_point_has_no_direction():
    single = Curve((100,), {"loss": Band((0.5,))})
    assert single.cost_to_reach(loss=0.5).value == 100
    assert "known at one point alone, 0.5 after 100 updates" in single.cost_to_reach(loss=0.4).reason


def test_an_interval_without_bounds_says_so_in_the_cost():
    curve = Curve((100, 200), {"loss": Band((1.0, 0.5), (-INF, -INF), (INF, INF))})
    reading = curve.cost_to_reach(loss=0.7)
    assert 100 < reading.value < 200
    assert (reading.low, reading.high) == (0, INF)
    assert curve.at("150ba")["loss"].high == INF


def test_money_is_time_times_a_price():
    assert BANDED.costs("money", price_per_hour=3.6) == pytest.approx((0.01, 0.02, 0.04))
    assert BANDED.cost_to_reach("money", 3.6, accuracy=0.9).value == pytest.approx(0.02)
    with pytest.raises(ValueError, match=r"money is seconds times a price: say price_per_hour=…\."):
        BANDED.costs("money")


def test_a_longer_budget_that_took_less_time_is_read_in_the_order_of_time():
    curve = Curve((100, 200, 400), {"accuracy": Band((0.8, 0.9, 0.94))}, seconds=(10, 30, 20))
    assert curve.at("20sec")["accuracy"].value == 0.94
    assert curve.at("30sec")["accuracy"].value == 0.9


@pytest.mark.parametrize("curve", [BANDED, BROKEN, Curve((1, 2), {"a": Band((1, 2), (-INF, 1), (INF, 3))})])
def test_it_comes_back_from_its_json(curve):
    data = curve.to_dict()
    again = Curve.from_dict(json.loads(json.dumps(data, allow_nan=False)))
    assert again.to_dict() == data
    assert again.costs() == curve.costs()
    assert [again.at("2ba")[name].low for name in again.metrics] == pytest.approx(
        [curve.at("2ba")[name].low for name in curve.metrics], nan_ok=True
    )


POINTS = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6)), min_size=1, max_size=8, unique_by=lambda p: p[0])


@given(st.lists(POINTS, min_size=1, max_size=3), st.booleans())
def test_the_frontier_is_what_nothing_dominates(all_points, higher):
    curves = []
    for index, points in enumerate(all_points):
        updates, values = zip(*sorted(points), strict=True)
        curves.append(Curve(updates, {"m": Band(values)}, name=str(index)))
    choices = curves[0].frontier(*curves[1:], metric="m", higher_is_better=higher)
    assert choices == frontier(curves, "m", higher)
    assert len(choices) == sum(map(len, all_points))
    assert [choice.cost for choice in choices] == sorted(choice.cost for choice in choices)
    sign = 1 if higher else -1
    for choice in choices:
        dominated = any(
            other.cost <= choice.cost
            and sign * other.value >= sign * choice.value
            and (other.cost, other.value) != (choice.cost, choice.value)
            for other in choices
        )
        assert choice.is_dominated == dominated


def test_the_frontier_takes_metric_and_direction_from_the_curve_where_it_can():
    worse = Curve((50, 300), {"accuracy": Band((0.7, 0.85))}, seconds=(1, 100), name="other")
    kept = [(c.curve, c.cost) for c in BANDED.frontier(worse) if not c.is_dominated]
    assert kept == [("other", 50), ("cyclic", 100), ("cyclic", 200), ("cyclic", 400)]
    priced = [c.cost for c in BANDED.frontier(worse, axis="money", price_per_hour=3600) if not c.is_dominated]
    assert priced == pytest.approx([1, 10, 20, 40])
    assert len(BANDED.frontier(BROKEN)) == 6  # the diverged point cannot be bought
    with pytest.raises(ValueError, match=r"say by which metric: frontier\(…, metric=…\) with one of a, b\."):
        Curve((1,), {"a": Band((1,)), "b": Band((1,))}).frontier()
    with pytest.raises(ValueError, match=r"a is known at 1 points here; say higher_is_better=True or False\."):
        Curve((1,), {"a": Band((1,))}).frontier()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Curve((), {}), r"`updates` is \(\), but must satisfy at least one point\."),
        (lambda: Curve((2, 1), {}), r"`updates` is \(2.0, 1.0\), but must satisfy 0 < T_1 < T_2 < …\."),
        (lambda: Curve((0, 1), {}), r"`updates` is .* 0 < T_1"),
        (lambda: Curve((1, 2), {"a": Band((1,))}), r"`a` is \(1.0,\), but must satisfy 2 values\."),
        (lambda: Curve((1, 2), {}, seconds=(1,)), r"`seconds` is .* one per point, or none\."),
        (lambda: Curve((1,), {}, seconds=(0,)), r"`seconds` is .* 0 < seconds < inf\."),
        (lambda: Band((1, 2), lows=(1,)), r"`lows` is \(1.0,\), but must satisfy one per value: 2\."),
        (lambda: Band((1,), (2,), (3,)), r"`lows, highs` is \(2.0, 3.0\), but must satisfy low <= 1.0 <= high\."),
        (lambda: BANDED.at(Tokens(5)), r"5tok counts tokens; a curve is read at updates or at seconds\."),
        (lambda: BROKEN.at("5sec"), r"the seconds of the curve '' were not measured; ask for updates\."),
        (lambda: BANDED.cost_to_reach(acuracy=1), r"unknown metric 'acuracy'\. Did you mean 'accuracy'\?"),
        (lambda: BANDED.cost_to_reach(), r"cost_to_reach takes one metric"),
        (lambda: BANDED.costs("hours"), r"unknown axis 'hours'\. Known: money, seconds, updates\."),
        (lambda: BANDED.costs("money", -1), r"`price_per_hour` is -1, but must satisfy"),
    ],
)
def test_what_is_no_curve_or_no_question_is_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_the_price_of_separate_runs():
    assert price_of_separate([16, 32, 64, 128, 256, 512]) == 1008 / 512
