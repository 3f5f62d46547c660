"""Figures of controllers beside schedules: rates and losses over a run, runs as boxes, decisions. From plain data."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray

from glideslope.report.controller_tables import ACTIONS
from glideslope.report.figures import COLORS, GREY, Style, axis_title, escaped, finished, listed
from glideslope.report.grid import grid, title_below

ACTION_COLORS = (COLORS[0], GREY, COLORS[3])
"""Of raise, keep and lower."""

LOG_FROM = 20.0
"""An axis of positive numbers is logarithmic where the largest is this many times the smallest."""


@dataclass(frozen=True)
class Course:
    """What one run did.

    Args:
        progress: (num_points,) share of the run at which a rate was in force.
        rates: (num_points,); both empty where rates are not known.
        epochs: (num_epochs,) share of the run at each validation.
        losses: (num_epochs,) of validation; what is not finite is a gap.
    """

    progress: ArrayLike
    rates: ArrayLike
    epochs: ArrayLike
    losses: ArrayLike


def courses(
    columns: Mapping[str, Mapping[str, Course]],
    looks: Mapping[str, Style],
    emphasized: Collection[str] = (),
    height: int = 640,
) -> go.Figure:
    """Learning rate, and below it the validation loss, over the run: a column of panels per title, a line per run.

    Args:
        columns: title → line's name → `Course`.
        looks: from `figures.styles`, holding every line's name.
        emphasized: lines to draw thick.
        height: in pixels.
    """
    figure = _grid(["learning rate", "validation loss"], list(columns))
    known: set[str] = set()
    for column, lines in enumerate(columns.values(), start=1):
        for name, course in lines.items():
            look = {"color": looks[name].color, "dash": looks[name].dash, "width": 3.2 if name in emphasized else 1.6}
            for row, (x, y) in enumerate(((course.progress, course.rates), (course.epochs, course.losses)), start=1):
                if not np.size(y):
                    continue
                trace = go.Scatter(
                    x=listed(x),
                    y=listed(y),
                    mode="lines",
                    name=escaped(name),
                    legendgroup=escaped(name),
                    showlegend=name not in known,
                    line=look,
                    hovertemplate="%{y:.4g}",
                )
                figure.add_trace(trace, row=row, col=column)
                known.add(name)
    every = [course for lines in columns.values() for course in lines.values()]
    figure.update_yaxes(**axis_range([course.rates for course in every], always_log=True), row=1)
    figure.update_yaxes(**axis_range([course.losses for course in every]), row=2)
    figure.update_xaxes(tickvals=[0, 0.5, 1], ticktext=["0", "½", "1"], range=[0, 1.03])
    return _titled(figure, "share of the run", height)


def box_plots(
    rows: Mapping[str, Mapping[str, Mapping[str, ArrayLike]]],
    looks: Mapping[str, Style],
    metric: str,
    higher_is_better: bool,
) -> go.Figure:
    """All runs as boxes with a dot each: a row of panels per way of counting, a column per initial rate.

    Runs without a number have no place on the axis: how many there are is written at its end.

    Args:
        rows: counting → column's title → system → (num_seeds,) metric; NaN or infinite where there is none.
        looks: from `figures.styles`, holding every system.
        metric: name and unit.
        higher_is_better: its direction.
    """
    titles = list(dict.fromkeys(title for columns in rows.values() for title in columns))
    systems = list(
        dict.fromkeys(system for columns in rows.values() for entries in columns.values() for system in entries)
    )
    figure = _grid(list(rows), titles)
    every = [values for columns in rows.values() for entries in columns.values() for values in entries.values()]
    axis = axis_range(every)
    for row, columns in enumerate(rows.values(), start=1):
        for column, title in enumerate(titles, start=1):
            for system, values in columns.get(title, {}).items():
                _add_box(figure, system, np.asarray(values, dtype=np.float64), looks[system], axis, row, column)
    figure.update_xaxes(**axis)
    order = [escaped(system) for system in systems]
    figure.update_yaxes(
        type="category", categoryorder="array", categoryarray=order[::-1], range=[-0.6, len(order) - 0.4]
    )
    return _titled(figure, axis_title(metric, higher_is_better), 90 + 27 * len(rows) * max(4, len(order)))


def _add_box(
    figure: go.Figure,
    system: str,
    values: NDArray[np.float64],
    look: Style,
    axis: Mapping[str, Any],
    row: int,
    column: int,
) -> None:
    finite = values[np.isfinite(values)]
    name, lost = escaped(system), values.size - finite.size
    if finite.size:
        box = go.Box(
            x=listed(finite),
            y=[name] * finite.size,
            name=name,
            orientation="h",
            boxpoints="all",
            pointpos=0,
            jitter=0.4,
            marker={"color": look.color, "size": 4},
            line={"color": look.color, "width": 1.4},
            fillcolor="rgba(0,0,0,0)",
            showlegend=False,
            hovertemplate="%{x:.4g}",
        )
        figure.add_trace(box, row=row, col=column)
    if lost:
        end = axis["range"][1] if "range" in axis else 1.0
        note = go.Scatter(
            x=[10**end if axis.get("type") == "log" else end],
            y=[name],
            mode="text",
            text=[f"{lost} of {values.size} diverged"],
            textposition="middle left",
            textfont={"size": 10, "color": GREY},
            showlegend=False,
            hoverinfo="skip",
        )
        figure.add_trace(note, row=row, col=column)


def decision_bars(rows: Mapping[str, Mapping[str, ArrayLike]], height: int | None = None) -> go.Figure:
    """Shares of raise, keep and lower, decision by decision: a row of panels per controller, a column per initial rate.

    Args:
        rows: controller → column's title → (num_decisions, 3) counts of `ACTIONS`.
        height: in pixels; None: by the number of rows.
    """
    titles = list(dict.fromkeys(title for columns in rows.values() for title in columns))
    figure = _grid(list(rows), titles)
    for row, columns in enumerate(rows.values(), start=1):
        for column, title in enumerate(titles, start=1):
            counts = np.asarray(columns.get(title, np.zeros((0, len(ACTIONS)))), dtype=np.float64)
            totals = counts.sum(axis=1, keepdims=True)
            shares = np.where(totals > 0, counts / np.maximum(totals, 1), np.nan)
            for index, (action, color) in enumerate(zip(ACTIONS, ACTION_COLORS, strict=True)):
                bars = go.Bar(
                    x=list(range(1, len(counts) + 1)),
                    y=listed(shares[:, index]),
                    name=action,
                    legendgroup=action,
                    showlegend=row == column == 1,
                    marker={"color": color},
                    customdata=counts[:, index].tolist(),
                    hovertemplate="%{y:.0%} (%{customdata:.0f})",
                )
                figure.add_trace(bars, row=row, col=column)
    figure.update_layout(barmode="stack", bargap=0.08)
    figure.update_yaxes(range=[0, 1], tickformat=".0%", tickvals=[0, 0.5, 1])
    return _titled(figure, "decision of the run", height or 130 + 170 * len(rows))


def axis_range(numbers: Iterable[ArrayLike], always_log: bool = False) -> dict[str, Any]:
    """Kind and range of an axis that holds all finite numbers; logarithmic where they are positive and far apart.

    Args:
        numbers: parts of any shape.
        always_log: logarithmic at any rate, for all numbers above 0 but the lowest hundredth.

    >>> axis_range([[1.0, 2.0], [math.nan]])["type"], axis_range([[1.0, 100.0]])["type"]
    ('linear', 'log')
    """
    parts = [np.ravel(np.asarray(part, dtype=np.float64)) for part in numbers]
    values = np.concatenate(parts) if parts else np.zeros(0)
    usable = values[np.isfinite(values)]
    positive = usable[usable > 0]
    is_wide = positive.size == usable.size and positive.size > 0 and positive.max() > LOG_FROM * positive.min()
    if is_wide or (always_log and positive.size):
        # Rates: the last hundredth of a schedule that lands at 0 would take half of the axis, and runs off it.
        low = np.log10(np.quantile(positive, 0.01) if always_log else positive.min())
        high = np.log10(positive.max())
        margin = 0.05 * (high - low) + 0.02
        return {"type": "log", "range": [low - margin, high + margin], **_ticks(low, high)}
    if not usable.size:
        return {}
    margin = 0.06 * (usable.max() - usable.min() or abs(usable.max()) or 1.0)
    return {"type": "linear", "range": [usable.min() - margin, usable.max() + margin]}


def _ticks(low: float, high: float) -> dict[str, Any]:
    """Ticks of a logarithmic axis: 1, 2, 5 within two decades, else at most about six powers of ten."""
    first, last = math.floor(low), math.ceil(high)
    if high - low <= 2:
        values = [float(f"{digit}e{power}") for power in range(first, last + 1) for digit in (1, 2, 5)]
    else:
        values = [float(f"1e{power}") for power in range(first, last + 1, max(1, round((last - first) / 6)))]
    return {"tickvals": values, "ticktext": [f"{value:g}" for value in values]}


def _grid(rows: Sequence[str], columns: Sequence[str]) -> go.Figure:
    if not columns:
        raise ValueError("there is nothing to draw. Give at least one column.")
    return grid(rows, columns, across=0.02, between=0.1 / len(rows))


def _titled(figure: go.Figure, below: str, height: int) -> go.Figure:
    """As every figure, with one title below all panels, and room for it, the columns' names and the legend."""
    title_below(figure, below)
    finished(figure, height)
    lines = 1 + max(note.text.count("<br>") for note in figure.layout.annotations)
    has_legend = any(trace.showlegend for trace in figure.data)
    return figure.update_layout(margin={"t": 22 + 18 * lines, "b": 104 if has_legend else 64})
