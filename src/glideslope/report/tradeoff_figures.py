"""Figures of tradeoff curves: the curves, what reaches a target, the frontier, fidelity and cost, as plotly figures.

Rooms of one floor do not know each other: curves and choices are whatever looks like those of `core/curve.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, Protocol

import numpy as np
import plotly.graph_objects as go

from glideslope.report.fidelity import Fidelity
from glideslope.report.figures import GREY, Style, axis_title, escaped, finished, listed, menu
from glideslope.report.tradeoff_tables import Cost

Axis = Literal["updates", "seconds", "money"]

AXIS_TITLES: Mapping[Axis, str] = {
    "updates": "budget, updates",
    "seconds": "training time, s",
    "money": "training cost, at {price:g} per hour",
}

BIAS_BAR = 0.5
"""Seed standard deviations: an estimator with less bias than this is called good."""

BIAS_EDGE = 3.0
"""Where the panel of biases ends: one bad control would press all others against 0."""


class BandLike(Protocol):
    """One metric at every point of a curve: (num_points,) each."""

    @property
    def values(self) -> tuple[float, ...]: ...
    @property
    def lows(self) -> tuple[float, ...]: ...
    @property
    def highs(self) -> tuple[float, ...]: ...


class ReadingLike(Protocol):
    """An answer read from a curve; `value` is NaN where there is none."""

    @property
    def value(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


class CurveLike(Protocol):
    """Metrics against cost."""

    @property
    def name(self) -> str: ...
    @property
    def seconds(self) -> tuple[float, ...]: ...
    @property
    def metrics(self) -> Mapping[str, Any]: ...
    def costs(self, axis: Axis = "updates", price_per_hour: float | None = None) -> tuple[float, ...]: ...
    def cost_to_reach(
        self, axis: Axis = "updates", price_per_hour: float | None = None, **target: float
    ) -> ReadingLike: ...


class ChoiceLike(Protocol):
    """A point of one of several curves, as something that can be bought."""

    @property
    def curve(self) -> str: ...
    @property
    def cost(self) -> float: ...
    @property
    def value(self) -> float: ...
    @property
    def is_dominated(self) -> bool: ...


def tradeoff_curves(
    curves: Sequence[CurveLike],
    looks: Mapping[str, Style],
    metric: str,
    higher_is_better: bool,
    price_per_hour: float | None = None,
) -> go.Figure:
    """Curves with their bands over the budget on a logarithmic axis; buttons change what the budget is counted in.

    Seconds can be chosen where every curve has them, money if there is a price too. A point at which training diverged
    is drawn as a gap.

    Args:
        curves: any number, each with the metric.
        looks: from `figures.styles`, holding every curve's name.
        metric: name of the metric.
        higher_is_better: its direction.
        price_per_hour: of training, > 0, in any currency.
    """
    figure = go.Figure()
    axes = _axes(curves, price_per_hour)
    drawn = {axis: _lines(curves, metric, axis, price_per_hour) for axis in axes}
    for curve, line in zip(curves, drawn["updates"], strict=True):
        _add(figure, curve.name, line, looks[curve.name])
    _cost_axis(figure, "updates", _costs(drawn["updates"]), price_per_hour)
    figure.update_yaxes(title_text=axis_title(metric, higher_is_better))
    if len(axes) > 1:
        figure.update_layout(updatemenus=[_buttons(drawn, price_per_hour)])
    return finished(figure, height=480)


@dataclass(frozen=True)
class _Line:
    """A curve and the outline of its band, as plotly takes them: None is a gap, or begins the next polygon."""

    x: list[float | None]
    y: list[float | None]
    band_x: list[float | None]
    band_y: list[float | None]


def _axes(curves: Sequence[CurveLike], price_per_hour: float | None) -> list[Axis]:
    if not curves:
        raise ValueError("there is nothing to draw. Give at least one curve.")
    axes: list[Axis] = ["updates"]
    if all(curve.seconds for curve in curves):
        axes += ["seconds"] if price_per_hour is None else ["seconds", "money"]
    return axes


def _lines(curves: Iterable[CurveLike], metric: str, axis: Axis, price_per_hour: float | None) -> list[_Line]:
    return [_line(curve, metric, axis, price_per_hour) for curve in curves]


def _line(curve: CurveLike, metric: str, axis: Axis, price_per_hour: float | None) -> _Line:
    if metric not in curve.metrics:
        raise ValueError(f"the curve {curve.name!r} has no {metric!r}. It has: {', '.join(curve.metrics)}.")
    band: BandLike = curve.metrics[metric]
    # By cost: on a shared machine a longer budget may have taken less time.
    points = sorted(zip(curve.costs(axis, price_per_hour), band.values, band.lows, band.highs, strict=True))
    costs, values, lows, highs = (list(column) for column in zip(*points, strict=True))
    # A value without an interval stands for one of no width; a band is drawn where some have one.
    has_band = any(low < high for low, high in zip(lows, highs, strict=True))
    outline_x: list[float | None] = []
    outline_y: list[float | None] = []
    for is_bounded, run in groupby(points, key=lambda point: all(map(math.isfinite, point))):
        if not (is_bounded and has_band):
            continue
        some = list(run)
        outline_x += [*(p[0] for p in some), *(p[0] for p in reversed(some)), None]
        outline_y += [*(p[3] for p in some), *(p[2] for p in reversed(some)), None]
    return _Line(listed(costs), listed(values), outline_x[:-1], outline_y[:-1])


def _costs(lines: Iterable[_Line]) -> list[float]:
    return [cost for line in lines for cost in line.x if cost is not None]


def _cost_axis(figure: go.Figure, axis: Axis, costs: Sequence[float], price_per_hour: float | None) -> None:
    titles = _cost_titles(axis, costs, price_per_hour)
    figure.update_xaxes(type="log", **{name.replace(".", "_"): value for name, value in titles.items()})


def _cost_titles(axis: Axis, costs: Sequence[float], price_per_hour: float | None) -> dict[str, object]:
    """What an axis of costs says: plotly's own ticks between powers of ten are bare digits."""
    first, last = math.log10(min(costs)) - 0.1, math.log10(max(costs)) + 0.1
    digits = (1, 2, 5) if last - first < 4 else (1,)
    powers = range(math.floor(first), math.ceil(last) + 1)
    ticks = [digit * 10.0**power for power in powers for digit in digits]
    shown = [tick for tick in ticks if first <= math.log10(tick) <= last]
    return {
        "title.text": AXIS_TITLES[axis].format(price=price_per_hour or 0),
        "tickvals": shown,
        "ticktext": [_number(tick) for tick in shown],
    }


def _add(figure: go.Figure, name: str, line: _Line, look: Style) -> None:
    """Two traces: the band below, then the line."""
    red, green, blue = (int(look.color[place : place + 2], 16) for place in (1, 3, 5))
    figure.add_trace(
        go.Scatter(
            x=line.band_x,
            y=line.band_y,
            mode="lines",
            fill="toself",
            fillcolor=f"rgba({red}, {green}, {blue}, 0.18)",
            line={"width": 0},
            legendgroup=escaped(name),
            showlegend=False,
            hoverinfo="skip",
        )
    )
    figure.add_trace(
        go.Scatter(
            x=line.x,
            y=line.y,
            mode="lines+markers",
            name=escaped(name),
            legendgroup=escaped(name),
            line={"color": look.color, "dash": look.dash, "width": 2},
            marker={"symbol": look.symbol, "size": 7},
            hovertemplate="%{x:.4g}: %{y:.4g}",
        )
    )


def _buttons(drawn: Mapping[Axis, Sequence[_Line]], price_per_hour: float | None) -> dict[str, object]:
    buttons = [
        {
            "label": axis,
            "method": "update",
            "args": [
                {
                    "x": [part for line in lines for part in (line.band_x, line.x)],
                    "y": [part for line in lines for part in (line.band_y, line.y)],
                },
                {f"xaxis.{name}": value for name, value in _cost_titles(axis, _costs(lines), price_per_hour).items()},
            ],
        }
        for axis, lines in drawn.items()
    ]
    return {**menu(buttons), "type": "buttons", "direction": "right"}


@dataclass(frozen=True)
class Answer:
    """The cheapest of several curves to reach a target.

    Args:
        target: of the metric.
        curve: its name; "" if none reaches the target.
        cost: the least; NaN if none reaches it.
        low, high: interval of the cost.
        reference_cost: the reference's; NaN if it does not reach the target.
    """

    target: float
    curve: str
    cost: float
    low: float
    high: float
    reference_cost: float

    @property
    def saving(self) -> float:
        """Share of the reference's cost that is saved, below 1; NaN if either does not reach the target."""
        return 1 - self.cost / self.reference_cost


def cheapest(
    curves: Sequence[CurveLike],
    metric: str,
    target: float,
    reference: str,
    axis: Axis = "updates",
    price_per_hour: float | None = None,
) -> Answer:
    """Which of the curves reaches a target at the least cost, and what the reference costs there.

    The cost is that of the one run that lands on the target, not of finding the curve.
    """
    found = {curve.name: curve.cost_to_reach(axis, price_per_hour, **{metric: target}) for curve in curves}
    if reference not in found:
        raise ValueError(f"there is no curve {reference!r} to compare with. There are: {', '.join(found)}.")
    reached = [name for name, reading in found.items() if math.isfinite(reading.value)]
    if not reached:
        return Answer(target, "", math.nan, math.nan, math.nan, math.nan)
    # Of equally cheap ones the reference, so that it is not said to be beaten by its twin.
    best = min(reached, key=lambda name: (found[name].value, name != reference))
    reading = found[best]
    return Answer(target, best, reading.value, reading.low, reading.high, found[reference].value)


def target_slider(
    curves: Sequence[CurveLike],
    looks: Mapping[str, Style],
    metric: str,
    higher_is_better: bool,
    reference: str,
    axis: Axis = "updates",
    price_per_hour: float | None = None,
    num_targets: int = 41,
) -> go.Figure:
    """Curves with a line that a slider moves: at each target, the cheapest way there and what it saves.

    Targets are spread evenly between the worst and the best value of all curves.

    Args:
        curves: any number, each with the metric.
        looks: from `figures.styles`.
        metric: name of the metric.
        higher_is_better: its direction.
        reference: name of the curve that a saving is counted against.
        axis: what cost is counted in.
        price_per_hour: for money.
        num_targets: steps of the slider.
    """
    if not curves:
        raise ValueError("there is nothing to draw. Give at least one curve.")
    figure = go.Figure()
    lines = _lines(curves, metric, axis, price_per_hour)
    for curve, line in zip(curves, lines, strict=True):
        _add(figure, curve.name, line, looks[curve.name])
    values = [value for line in lines for value in line.y if value is not None]
    if not values:
        raise ValueError(f"no curve has a finite {metric}: every run diverged.")
    targets = np.linspace(min(values), max(values), num_targets)
    answers = [cheapest(curves, metric, float(target), reference, axis, price_per_hour) for target in targets]
    start = (2 * num_targets) // 3 if higher_is_better else num_targets // 3
    states = [_state(answer, metric, higher_is_better, reference, axis) for answer in answers]
    dashed = {"type": "line", "line": {"color": GREY, "dash": "dash", "width": 1.5}}
    figure.update_layout(
        shapes=[
            {**dashed, "xref": "paper", "x0": 0, "x1": 1},
            {**dashed, "yref": "paper", "y0": 0, "y1": 1},
        ],
        annotations=[
            {
                "xref": "paper",
                "yref": "paper",
                "x": 0,
                "y": 1.02,
                "xanchor": "left",
                "yanchor": "bottom",
                "align": "left",
                "showarrow": False,
                "font": {"size": 14},
            }
        ],
        sliders=[
            {
                "active": start,
                "steps": [
                    {"label": f"{answer.target:.4g}", "method": "relayout", "args": [state]}
                    for answer, state in zip(answers, states, strict=True)
                ],
                "currentvalue": {"visible": False},  # the annotation says it
                "pad": {"t": 84, "b": 24},
                "ticklen": 0,
                "minorticklen": 0,
                "font": {"size": 1, "color": "rgba(0,0,0,0)"},  # labels of all steps would lie on each other
                "bgcolor": GREY,
                "activebgcolor": GREY,
                "bordercolor": GREY,
            }
        ],
    )
    figure.update_layout(states[start])
    _cost_axis(figure, axis, _costs(lines), price_per_hour)
    figure.update_yaxes(title_text=axis_title(metric, higher_is_better))
    finished(figure, height=600)
    figure.update_layout(margin={"t": 64})
    return figure


def _sign(higher_is_better: bool) -> str:
    return "≥" if higher_is_better else "≤"


def _state(answer: Answer, metric: str, higher_is_better: bool, reference: str, axis: Axis) -> dict[str, object]:
    """What one place of the slider sets in the layout."""
    is_reached = math.isfinite(answer.cost)
    return {
        "shapes[0].y0": answer.target,
        "shapes[0].y1": answer.target,
        "shapes[1].x0": answer.cost if is_reached else 1,
        "shapes[1].x1": answer.cost if is_reached else 1,
        "shapes[1].visible": is_reached,
        "annotations[0].text": _sentence(answer, metric, higher_is_better, reference, axis),
    }


def _sentence(answer: Answer, metric: str, higher_is_better: bool, reference: str, axis: Axis) -> str:
    wanted = f"{escaped(metric)} {_sign(higher_is_better)} {answer.target:.4g}: "
    if not answer.curve:
        return wanted + "no curve tells of reaching it"
    unit = "" if axis == "money" else f" {axis}"
    interval = f" [{_number(answer.low)}, {_number(answer.high)}]" if answer.low < answer.high else ""
    way = f"<b>{escaped(answer.curve)}</b><br>{_number(answer.cost)}{unit}{interval}"
    if answer.curve == reference:
        return f"{wanted}{way}"
    if not math.isfinite(answer.reference_cost):
        return f"{wanted}{way}; {escaped(reference)} is not known to reach it"
    return f"{wanted}{way}; saves {100 * answer.saving:.0f} % against {escaped(reference)}"


def _number(number: float) -> str:
    """Three significant digits, whole numbers from a hundred on.

    >>> _number(1234.5), _number(1.2345), _number(float("inf"))
    ('1,234', '1.23', '∞')
    """
    if math.isinf(number):
        return "∞"
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def frontier_figure(
    choices: Sequence[ChoiceLike],
    looks: Mapping[str, Style],
    metric: str,
    higher_is_better: bool,
    axis: Axis = "updates",
    price_per_hour: float | None = None,
) -> go.Figure:
    """The Pareto set of several curves: what nothing else beats in both cost and metric; the dominated points in grey.

    Args:
        choices: from `core.curve.frontier`.
        looks: from `figures.styles`.
        metric: name of the metric.
        higher_is_better: its direction.
        axis: what the costs are counted in.
        price_per_hour: for money, to be named.
    """
    if not choices:
        raise ValueError("there is nothing to draw. Give at least one choice.")
    figure = go.Figure()
    best = sorted((choice for choice in choices if not choice.is_dominated), key=lambda choice: choice.cost)
    figure.add_trace(
        go.Scatter(
            x=[choice.cost for choice in best],
            y=[choice.value for choice in best],
            mode="lines",
            line={"color": GREY, "width": 1.5, "shape": "hv"},
            name="frontier",
            hoverinfo="skip",
        )
    )
    worse = [choice for choice in choices if choice.is_dominated]
    if worse:
        figure.add_trace(
            go.Scatter(
                x=[choice.cost for choice in worse],
                y=[choice.value for choice in worse],
                mode="markers",
                marker={
                    "color": GREY,
                    "opacity": 0.45,
                    "size": 7,
                    "symbol": [looks[choice.curve].symbol for choice in worse],
                },
                name="dominated",
                text=[escaped(choice.curve) for choice in worse],
                hovertemplate="%{text}, %{x:.4g}: %{y:.4g}<extra>dominated</extra>",
            )
        )
    for name in dict.fromkeys(choice.curve for choice in best):
        mine = [choice for choice in best if choice.curve == name]
        figure.add_trace(
            go.Scatter(
                x=[choice.cost for choice in mine],
                y=[choice.value for choice in mine],
                mode="markers",
                marker={"color": looks[name].color, "symbol": looks[name].symbol, "size": 11},
                name=escaped(name),
                hovertemplate="%{x:.4g}: %{y:.4g}",
            )
        )
    _cost_axis(figure, axis, [choice.cost for choice in choices], price_per_hour)
    figure.update_yaxes(title_text=axis_title(metric, higher_is_better))
    return finished(figure, height=480)


def fidelity_panel(fidelities: Sequence[Fidelity], looks: Mapping[str, Style]) -> go.Figure:
    """Bias of every estimator on every task as a dot with its 90 % interval; what is good lies in the shaded stretch.

    A bias beyond `BIAS_EDGE` is drawn there as an arrow, with its value.

    Args:
        fidelities: of any tasks.
        looks: from `figures.styles`, holding every estimator.
    """
    if not fidelities:
        raise ValueError("there is nothing to draw. Give at least one estimator's fidelity.")
    figure = go.Figure()
    tasks = list(dict.fromkeys(one.task for one in fidelities))
    names = list(dict.fromkeys(one.estimator for one in fidelities))
    for place, name in enumerate(names):
        mine = [one for one in fidelities if one.estimator == name]
        biases = [one.bias_seed_sd for one in mine]
        is_far = [bias.value > BIAS_EDGE for bias in biases]
        offset = 0.7 * ((place + 0.5) / len(names) - 0.5)  # estimators of a task stand below each other
        figure.add_trace(
            go.Scatter(
                x=listed([min(bias.value, BIAS_EDGE) for bias in biases]),
                y=[tasks.index(one.task) + offset for one in mine],
                mode="markers+text",
                name=escaped(name),
                marker={
                    "color": looks[name].color,
                    "symbol": ["triangle-right" if far else looks[name].symbol for far in is_far],
                    "size": 9,
                },
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": listed([0 if far else b.high - b.value for far, b in zip(is_far, biases, strict=True)]),
                    "arrayminus": listed(
                        [0 if far else b.value - b.low for far, b in zip(is_far, biases, strict=True)]
                    ),
                    "color": looks[name].color,
                    "thickness": 1.5,
                    "width": 0,
                },
                text=[f"{bias.value:.1f}" if far else "" for far, bias in zip(is_far, biases, strict=True)],
                textposition="middle left",
                cliponaxis=False,
                customdata=[
                    f"{escaped(one.task)}: {bias.value:.2f} [{bias.low:.2f}, {bias.high:.2f}]"
                    for one, bias in zip(mine, biases, strict=True)
                ],
                hovertemplate="%{customdata}",
            )
        )
    figure.add_shape(
        type="rect",
        x0=0,
        x1=BIAS_BAR,
        y0=0,
        y1=1,
        yref="paper",
        fillcolor="rgba(0, 158, 115, 0.14)",
        line={"width": 0},
        layer="below",
    )
    reference = ", ".join(dict.fromkeys(escaped(one.reference) for one in fidelities))
    ends = [end for one in fidelities for end in (one.bias_seed_sd.value, one.bias_seed_sd.high) if math.isfinite(end)]
    last = min(BIAS_EDGE, max([2 * BIAS_BAR, *ends]))
    figure.update_xaxes(title_text=f"mean |bias|, seed standard deviations of {reference}", range=[0, 1.03 * last])
    figure.update_yaxes(
        tickvals=list(range(len(tasks))),
        ticktext=[escaped(task) for task in tasks],
        range=[len(tasks) - 0.5, -0.5],
        showgrid=False,
    )
    return finished(figure, height=140 + len(tasks) * max(50, 18 * len(names)))


def cost_bars(ledger: Sequence[Cost]) -> go.Figure:
    """Planned and measured cost of a whole curve by each estimator, as bars; one full run and the first's as lines.

    Args:
        ledger: from `tradeoff_tables.costs`, the reference first.
    """
    if not ledger:
        raise ValueError("there is nothing to draw. Give at least one estimator's cost.")
    figure = go.Figure()
    names = [escaped(one.estimator) for one in ledger]
    planned, measured = [one.planned for one in ledger], [one.measured for one in ledger]
    for title, numbers, color in (("planned", planned, GREY), ("measured", measured, "#0072b2")):
        figure.add_trace(
            go.Bar(
                x=listed(numbers),
                y=names,
                orientation="h",
                name=title,
                marker={"color": color},
                text=[f"{number:.2f}" if math.isfinite(number) else "" for number in numbers],
                textposition="outside",
                cliponaxis=False,
                hovertemplate=f"{title} %{{x:.3f}}<extra></extra>",
            )
        )
    for cost in {1.0, ledger[0].planned}:
        figure.add_shape(
            type="line", x0=cost, x1=cost, y0=0, y1=1, yref="paper", line={"color": GREY, "dash": "dot", "width": 1.5}
        )
    figure.update_layout(barmode="group", bargap=0.3)
    figure.update_xaxes(title_text="cost of the whole curve, runs of the largest budget", rangemode="tozero")
    figure.update_yaxes(autorange="reversed", type="category")
    return finished(figure, height=140 + 46 * max(3, len(ledger)))
