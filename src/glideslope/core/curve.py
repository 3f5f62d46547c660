"""Curve: what every budget buys. Metrics against cost, read between the points, inverted, and compared; pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from glideslope.core.budget import Budget, parse_budget
from glideslope.core.value import require, unknown

Axis = Literal["updates", "seconds", "money"]
AXES = ("updates", "seconds", "money")


@dataclass(frozen=True)
class Reading:
    """An answer read from a curve, or why there is none.

    Args:
        value: the metric or the cost that was asked for; NaN if the curve does not tell.
        low, high: interval around it; both are `value` where the curve has no intervals. Of a cost outside of the curve
            they still say where it lies: [last cost, inf] or [0, first cost]. Of a metric that is not told: NaN.
        reason: empty, or why the curve does not tell.
    """

    value: float
    low: float
    high: float
    reason: str = ""

    @property
    def is_known(self) -> bool:
        """Whether there is an answer."""
        return not self.reason

    def __str__(self) -> str:
        return self.reason or f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


def _untold(reason: str, low: float = math.nan, high: float = math.nan) -> Reading:
    return Reading(math.nan, low, high, reason)


@dataclass(frozen=True)
class Band:
    """One metric at every point of a curve.

    Args:
        values: (num_points,); NaN or infinite where the run diverged or the metric is undefined.
        lows, highs: (num_points,) interval of each, low <= value <= high; infinite where nothing bounds it; left out:
            no interval.
    """

    values: tuple[float, ...]
    lows: tuple[float, ...] = ()
    highs: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("values", "lows", "highs"):
            object.__setattr__(self, name, tuple(map(float, getattr(self, name) or self.values)))
        count = len(self.values)
        require(len(self.lows) == count, "lows", self.lows, f"one per value: {count}")
        require(len(self.highs) == count, "highs", self.highs, f"one per value: {count}")
        for value, low, high in zip(self.values, self.lows, self.highs, strict=True):
            ordered = low <= value <= high or not math.isfinite(value)
            require(ordered, "lows, highs", (low, high), f"low <= {value} <= high")


@dataclass(frozen=True)
class Curve:
    """Metrics against cost.

    Between the points a metric is a straight line over the logarithm of the cost, for that is how budgets are spaced.
    Outside of them the curve says nothing, and says so; next to a point at which the run diverged likewise.

    Args:
        updates: (num_points,) length of each budget in optimizer updates, 0 < T_1 < T_2 < …; at least one.
        metrics: name → its values.
        seconds: (num_points,) time of the training that led to each point, evaluation apart, > 0; left out: not
            measured.
        name: how it was estimated, for tables and figures.

    >>> curve = Curve((100, 200, 400), {"accuracy": Band((0.8, 0.9, 0.94))})
    >>> round(curve.cost_to_reach(accuracy=0.85).value)
    141
    >>> curve.cost_to_reach(accuracy=0.95).reason
    'accuracy 0.95 is not reached: the best is 0.94, after 400 updates.'
    >>> curve.at("200ba")["accuracy"].value
    0.9
    """

    updates: tuple[float, ...]
    metrics: Mapping[str, Band]
    seconds: tuple[float, ...] = ()
    name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "updates", tuple(map(float, self.updates)))
        object.__setattr__(self, "seconds", tuple(map(float, self.seconds)))
        object.__setattr__(self, "metrics", dict(self.metrics))
        require(len(self.updates) > 0, "updates", self.updates, "at least one point")
        require(all(a < b for a, b in pairwise((0.0, *self.updates))), "updates", self.updates, "0 < T_1 < T_2 < …")
        require(len(self.seconds) in (0, len(self.updates)), "seconds", self.seconds, "one per point, or none")
        require(all(0 < s < math.inf for s in self.seconds), "seconds", self.seconds, "0 < seconds < inf")
        for metric, band in self.metrics.items():
            require(len(band.values) == len(self.updates), metric, band.values, f"{len(self.updates)} values")

    def costs(self, axis: Axis = "updates", price_per_hour: float | None = None) -> tuple[float, ...]:
        """(num_points,) cost of each point.

        Args:
            axis: "updates", "seconds", or "money", which needs the next.
            price_per_hour: what an hour of training costs, > 0, in any currency.
        """
        if axis not in AXES:
            raise unknown("axis", axis, AXES)
        if axis == "updates":
            return self.updates
        if not self.seconds:
            raise ValueError(f"the seconds of the curve {self.name!r} were not measured; ask for updates.")
        if axis == "seconds":
            return self.seconds
        if price_per_hour is None:
            raise ValueError("money is seconds times a price: say price_per_hour=….")
        require(0 < price_per_hour < math.inf, "price_per_hour", price_per_hour, "0 < price_per_hour < inf")
        return tuple(seconds * price_per_hour / 3600 for seconds in self.seconds)

    def diverged(self, metric: str) -> tuple[float, ...]:
        """The budgets, in updates, at which a metric is no finite number: the run diverged, or it is undefined there.

        >>> Curve((100, 200), {"loss": Band((0.3, float("nan")))}).diverged("loss")
        (200.0,)
        """
        values = self._band(metric).values
        return tuple(u for u, value in zip(self.updates, values, strict=True) if not math.isfinite(value))

    def at(self, budget: str | Budget) -> dict[str, Reading]:
        """What a budget buys: metric → reading.

        Args:
            budget: `Steps`, `Epochs` that know their updates, or `WallClock`, or the text of one.
        """
        wanted = parse_budget(budget)
        if wanted.unit not in ("updates", "seconds"):
            raise ValueError(f"{wanted} counts {wanted.unit}; a curve is read at updates or at seconds.")
        axis: Axis = "seconds" if wanted.unit == "seconds" else "updates"
        return {metric: _read(metric, self._points(metric, axis), wanted.limit, axis) for metric in self.metrics}

    def cost_to_reach(self, axis: Axis = "updates", price_per_hour: float | None = None, **target: float) -> Reading:
        """The least cost at which a metric reaches a value: `curve.cost_to_reach(accuracy=0.94)`.

        Better is the way that the metric goes from the first to the last point where it is known. The interval runs
        from where the better edge of the metric's interval reaches the value (0: before the curve begins) to where the
        worse edge does (inf: never). Across a diverged point nothing is interpolated: the cost is that of the next
        point that has reached the value, and the interval begins at the point before.

        Args:
            axis: "updates", "seconds" or "money".
            price_per_hour: for money.
            target: one metric and the value to reach.
        """
        if len(target) != 1:
            raise ValueError(f"cost_to_reach takes one metric, e.g. cost_to_reach(accuracy=0.94), and got {target}.")
        ((metric, wanted),) = target.items()
        return _invert(metric, self._points(metric, axis, price_per_hour), float(wanted), axis)

    def frontier(
        self,
        *others: Curve,
        metric: str | None = None,
        higher_is_better: bool | None = None,
        axis: Axis = "updates",
        price_per_hour: float | None = None,
    ) -> tuple[Choice, ...]:
        """The Pareto set of this curve and others: see the function `frontier`.

        Args:
            metric: may be left out where this curve has one only.
            higher_is_better: left out: the way this curve goes from its first to its last known point.
        """
        if metric is None:
            if len(self.metrics) != 1:
                raise ValueError(f"say by which metric: frontier(…, metric=…) with one of {', '.join(self.metrics)}.")
            (metric,) = self.metrics
        if higher_is_better is None:
            known = [value for value in self._band(metric).values if math.isfinite(value)]
            if len(known) < 2:
                raise ValueError(f"{metric} is known at {len(known)} points here; say higher_is_better=True or False.")
            higher_is_better = known[-1] >= known[0]
        return frontier((self, *others), metric, higher_is_better, axis, price_per_hour)

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON types; numbers that are not finite as words, for JSON has none."""
        return {
            "name": self.name,
            "updates": list(self.updates),
            "seconds": list(self.seconds),
            "metrics": {
                metric: {
                    "values": _plain(band.values),
                    "lows": _plain(band.lows),
                    "highs": _plain(band.highs),
                }
                for metric, band in self.metrics.items()
            },
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Curve:
        """The inverse of `to_dict`."""
        metrics = {
            metric: Band(*(tuple(map(float, band[name])) for name in ("values", "lows", "highs")))
            for metric, band in data["metrics"].items()
        }
        return cls(tuple(data["updates"]), metrics, tuple(data["seconds"]), data["name"])

    def _band(self, metric: str) -> Band:
        if metric not in self.metrics:
            raise unknown("metric", metric, self.metrics)
        return self.metrics[metric]

    def _points(self, metric: str, axis: Axis, price_per_hour: float | None = None) -> list[_Point]:
        band = self._band(metric)
        columns = zip(self.costs(axis, price_per_hour), band.values, band.lows, band.highs, strict=True)
        # By cost: on a shared machine a longer budget may have taken less time.
        return sorted((_Point(*row) for row in columns), key=lambda point: point.cost)


@dataclass(frozen=True)
class Choice:
    """A point of one of several curves, as something that can be bought.

    Args:
        curve: its name.
        cost: in the unit asked for.
        value: of the metric.
        is_dominated: whether another choice is at least as cheap and at least as good, and better in one of the two.
    """

    curve: str
    cost: float
    value: float
    is_dominated: bool = False


def frontier(
    curves: Iterable[Curve],
    metric: str,
    higher_is_better: bool,
    axis: Axis = "updates",
    price_per_hour: float | None = None,
) -> tuple[Choice, ...]:
    """Every point of several curves, cheapest first, the dominated ones marked: what is left is the Pareto set.

    Args:
        curves: any number; those without the metric are left out, and points that diverged.
        metric: the one they are judged by.
        higher_is_better: its direction.
        axis: cost in "updates", "seconds" or "money".
        price_per_hour: for money.

    >>> slow = Curve((100, 200), {"error": Band((20, 10))}, name="slow")
    >>> fast = Curve((100, 200), {"error": Band((15, 12))}, name="fast")
    >>> [(choice.curve, choice.cost) for choice in frontier([slow, fast], "error", False) if not choice.is_dominated]
    [('fast', 100.0), ('slow', 200.0)]
    """
    choices = [
        Choice(curve.name, cost, value)
        for curve in curves
        if metric in curve.metrics
        for cost, value in zip(curve.costs(axis, price_per_hour), curve.metrics[metric].values, strict=True)
        if math.isfinite(value)
    ]
    sign = -1.0 if higher_is_better else 1.0
    # Cheapest first, and the best of equally cheap ones: then whatever is not better than all before it is dominated.
    choices.sort(key=lambda choice: (choice.cost, sign * choice.value))
    best, best_cost = math.inf, math.nan
    found = []
    for choice in choices:
        loss = sign * choice.value
        is_twin = loss == best and choice.cost == best_cost
        found.append(Choice(choice.curve, choice.cost, choice.value, loss >= best and not is_twin))
        if loss < best:
            best, best_cost = loss, choice.cost
    return tuple(found)


def price_of_separate(budgets: Sequence[float]) -> float:
    """ρ = ΣT_k / T_K: what the separate runs of all budgets cost, in full runs, and hence what one run saves.

    Source: MosaicML, "Efficiently Estimating Pareto Frontiers with Cyclic Learning Rate Schedules", 2022.

    >>> round(price_of_separate([16, 32, 64, 128, 256, 512]), 2)
    1.97
    """
    return sum(budgets) / max(budgets)


class _Point(NamedTuple):
    cost: float
    value: float
    low: float
    high: float

    @property
    def is_known(self) -> bool:
        return math.isfinite(self.value)


def _read(metric: str, points: list[_Point], cost: float, axis: str) -> Reading:
    first, last = points[0].cost, points[-1].cost
    if not first <= cost <= last:
        return _untold(f"{cost:g} {axis} lie outside the curve, which goes from {first:g} to {last:g}.")
    after = next(point for point in points if point.cost >= cost)
    before = after if after.cost == cost else [point for point in points if point.cost < cost][-1]
    for point in (before, after):
        if not point.is_known:
            return _untold(f"{metric} is {point.value} after {point.cost:g} {axis}: the run diverged there.")
    if before is after:
        return Reading(after.value, after.low, after.high)
    share = math.log(cost / before.cost) / math.log(after.cost / before.cost)
    value, low, high = (a * (1 - share) + b * share for a, b in zip(before[1:], after[1:], strict=True))
    return Reading(value, low, high)


def _invert(metric: str, points: list[_Point], wanted: float, axis: str) -> Reading:
    places = [place for place, point in enumerate(points) if point.is_known]
    if not places:
        return _untold(f"{metric} is a number at no point: the run diverged.")
    known = [points[place] for place in places]
    gaps = [after - before > 1 for before, after in pairwise(places)]
    first, last = known[0], known[-1]
    if len(known) == 1 and first.value != wanted:
        return _untold(
            f"{metric} is known at one point alone, {first.value:g} after {first.cost:g} {axis}: it tells no direction."
        )
    sign = 1.0 if last.value >= first.value else -1.0
    edges = [(point.high, point.low) if sign > 0 else (point.low, point.high) for point in known]
    costs = [point.cost for point in known]
    reached = _crossing(costs, [sign * point.value for point in known], sign * wanted, gaps, at_gap=1)
    earliest = _crossing(costs, [sign * better for better, _ in edges], sign * wanted, gaps, at_gap=0)
    latest = _crossing(costs, [sign * worse for _, worse in edges], sign * wanted, gaps, at_gap=1)
    if reached == 0:
        reason = f"{metric} {wanted:g} is reached before the curve begins: {first.value:g} after {first.cost:g} {axis}."
        return _untold(reason, 0.0, first.cost if latest == 0 else latest)
    if reached == math.inf:
        best = max(known, key=lambda point: sign * point.value)
        reason = f"{metric} {wanted:g} is not reached: the best is {best.value:g}, after {best.cost:g} {axis}."
        return _untold(reason, last.cost if earliest == math.inf else earliest, math.inf)
    return Reading(reached, earliest, latest)


def _crossing(costs: list[float], heights: list[float], wanted: float, gaps: list[bool], at_gap: int) -> float:
    """The first cost at which a line over log cost rises to `wanted`: 0 if it begins above, inf if it never does.

    Args:
        gaps: (num_points - 1,) whether something diverged between two points, so that there is no line.
        at_gap: which end of a gap, 0 or 1, stands for a crossing inside it.
    """
    if heights[0] >= wanted:
        return costs[0] if heights[0] == wanted else 0.0
    for index, gap in enumerate(gaps):
        below, above = heights[index : index + 2]
        if above >= wanted:
            if gap or not math.isfinite(below) or not math.isfinite(above):
                return costs[index + at_gap]
            cost, next_cost = costs[index : index + 2]
            return float(cost * (next_cost / cost) ** ((wanted - below) / (above - below)))
    return math.inf


def _plain(numbers: Iterable[float]) -> list[float | str]:
    return [number if math.isfinite(number) else str(number) for number in numbers]
