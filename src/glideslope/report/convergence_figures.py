"""Figures of budgeted convergence: norms, rates and losses over a run; scores over budgets. From plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from plotly.colors import find_intermediate_color, hex_to_rgb
from plotly.subplots import make_subplots

from glideslope.report.figures import Style, escaped, finished, listed
from glideslope.report.grid import grid, title_below

LEAST, MIDDLE, MOST = (86, 180, 233), (127, 111, 216), (213, 94, 0)
"""Colours of the smallest budget, of one in the middle, of the largest: blue, violet, vermilion."""

ACROSS, BETWEEN = 0.015, 0.04
"""Gaps between columns and rows of panels, as shares of the figure."""


@dataclass(frozen=True)
class Band:
    """A line with what lies around it.

    Args:
        x: (num_points,).
        y: (num_points,); NaN leaves a gap.
        low, high: (num_points,) ends of the band; both empty for none.
    """

    x: ArrayLike
    y: ArrayLike
    low: ArrayLike = ()
    high: ArrayLike = ()

    @classmethod
    def over_seeds(cls, x: ArrayLike, values: ArrayLike) -> Band:
        """Mean and range of several runs.

        Args:
            x: (num_points,).
            values: (num_seeds, num_points).
        """
        block = np.asarray(values, dtype=np.float64)
        return cls(x, block.mean(0), block.min(0), block.max(0))


def budget_colors(count: int) -> tuple[str, ...]:
    """Colours in an order that can be seen, from the smallest budget to the largest.

    >>> budget_colors(3)
    ('rgb(86, 180, 233)', 'rgb(127, 111, 216)', 'rgb(213, 94, 0)')
    """
    found = []
    for place in np.linspace(0, 2, count) if count > 1 else (2.0,):
        low, high = (LEAST, MIDDLE) if place <= 1 else (MIDDLE, MOST)
        red, green, blue = find_intermediate_color(low, high, place if place <= 1 else place - 1)
        found.append(f"rgb({round(red)}, {round(green)}, {round(blue)})")
    return tuple(found)


def courses(
    rows: Mapping[str, Mapping[str, Mapping[str, Band]]], log_rows: Sequence[str] = (), height: int = 760
) -> go.Figure:
    """What happens over the share of the budget spent: a row of panels per quantity, a column per schedule.

    Args:
        rows: quantity → schedule → budget's label → `Band`; the same schedules and budgets in every row.
        log_rows: quantities on a logarithmic axis.
        height: in pixels.
    """
    columns = list(next(iter(rows.values())))
    labels = list(dict.fromkeys(label for column in next(iter(rows.values())).values() for label in column))
    colors = dict(zip(labels, budget_colors(len(labels)), strict=True))
    figure = grid(list(rows), columns, ACROSS, BETWEEN)
    for row, (quantity, by_column) in enumerate(rows.items(), start=1):
        for column, name in enumerate(columns, start=1):
            for label, band in by_column[name].items():
                look = {"color": colors[label], "width": 1.8}
                _add(figure, band, label, look, row, column, is_first=row == column == 1)
        bands = [band for by_label in by_column.values() for band in by_label.values()]
        figure.update_yaxes(**_axis_of(bands, is_log=quantity in log_rows), row=row)
    figure.update_xaxes(tickvals=[0, 0.5, 1], ticktext=["0", "½", "1"], range=[0, 1.03])
    title_below(figure, "share of the budget spent")
    return _finished(figure, height)


def over_budgets(
    panels: Mapping[str, Mapping[str, Band]], looks: Mapping[str, Style], metric: str, height: int = 440
) -> go.Figure:
    """Scores against the budget on a logarithmic axis: a panel each, a line per entry.

    Args:
        panels: title → line's name → budgets (as shares, > 0) and scores.
        looks: line's name → `Style`.
        metric: what the upright axis says.
        height: in pixels.
    """
    figure = grid([metric], list(panels), ACROSS, BETWEEN)
    known: set[str] = set()
    for column, lines in enumerate(panels.values(), start=1):
        for name, band in lines.items():
            look = {"color": looks[name].color, "dash": looks[name].dash, "width": 1.8}
            error = {}
            if np.size(band.low):
                up, down = np.asarray(band.high) - np.asarray(band.y), np.asarray(band.y) - np.asarray(band.low)
                error = {"error_y": {"array": listed(up), "arrayminus": listed(down), "width": 3, "thickness": 1}}
            figure.add_trace(
                go.Scatter(
                    x=listed(band.x),
                    y=listed(band.y),
                    mode="lines+markers",
                    name=escaped(name),
                    legendgroup=escaped(name),
                    showlegend=name not in known,
                    line=look,
                    marker={"symbol": looks[name].symbol, "size": 6},
                    hovertemplate="%{x:.3~%}: %{y:.4g}",
                    **error,
                ),
                row=1,
                col=column,
            )
            known.add(name)
    shares = sorted(
        {float(share) for lines in panels.values() for band in lines.values() for share in np.asarray(band.x)}
    )
    shown = _apart(shares, 0.05 * len(panels))
    figure.update_xaxes(type="log", tickvals=shown, ticktext=[f"{100 * share:.10g}%" for share in shown])
    figure.update_yaxes(**_axis_of([band for lines in panels.values() for band in lines.values()], is_log=False))
    title_below(figure, "budget, share of the maximum")
    return _finished(figure, height)


def lines_over_run(
    panels: Mapping[str, Mapping[str, Band]],
    looks: Mapping[str, Style],
    log_panels: Sequence[str] = (),
    height: int = 440,
) -> go.Figure:
    """Several quantities over one run, side by side, with an axis each: a line per entry.

    Args:
        panels: quantity → line's name → share of the budget spent and value.
        looks: line's name → `Style`.
        log_panels: quantities on a logarithmic axis.
        height: in pixels.
    """
    figure = make_subplots(rows=1, cols=len(panels), horizontal_spacing=0.09)
    known: set[str] = set()
    for column, (quantity, lines) in enumerate(panels.items(), start=1):
        for name, band in lines.items():
            look = {"color": looks[name].color, "dash": looks[name].dash, "width": 1.8}
            _add(figure, band, name, look, 1, column, is_first=name not in known)
            known.add(name)
        axis = _axis_of(list(lines.values()), is_log=quantity in log_panels)
        figure.update_yaxes(title_text=escaped(quantity), **axis, col=column)
    figure.update_xaxes(tickvals=[0, 0.25, 0.5, 0.75, 1], tickformat=".0%", range=[0, 1.02])
    figure.update_xaxes(title_text="share of the budget spent")
    return finished(figure, height)


def _axis_of(bands: Sequence[Band], is_log: bool) -> dict[str, Any]:
    """Kind, range and ticks of an upright axis that holds all bands."""
    ends = np.concatenate([np.ravel(part) for band in bands for part in (band.y, band.low, band.high)]).astype(float)
    usable = ends[np.isfinite(ends) & ((ends > 0) | (not is_log))]
    if not usable.size:
        return {}
    if not is_log:
        margin = 0.06 * (usable.max() - usable.min() or 1.0)
        return {"type": "linear", "range": [usable.min() - margin, usable.max() + margin]}
    low, high = np.log10(usable.min()), np.log10(usable.max())
    ticks = [float(f"{digit}e{power}") for power in range(math.floor(low), math.ceil(high) + 1) for digit in (1, 2, 5)]
    if high - low > 3:  # decades alone
        ticks = ticks[::3]
    return {
        "type": "log",
        "range": [low - 0.06 * (high - low) - 0.02, high + 0.06 * (high - low) + 0.02],
        "tickvals": ticks,
        "ticktext": [f"{tick:g}" for tick in ticks],
    }


def _apart(shares: Sequence[float], distance: float) -> list[float]:
    """Of increasing shares those whose labels do not touch: from the last down, so far apart on a logarithmic axis.

    >>> _apart([0.01, 0.05, 0.1, 0.25, 0.5, 1.0], 0.25)
    [0.01, 0.05, 0.25, 1.0]

    Args:
        shares: > 0.
        distance: as a share of the axis.
    """
    span = math.log(shares[-1] / shares[0]) if shares else 0.0
    kept: list[float] = []
    for share in reversed(shares):
        if not kept or math.log(kept[-1] / share) >= distance * span:
            kept.append(share)
    return kept[::-1]


def _finished(figure: go.Figure, height: int) -> go.Figure:
    """As every figure, with room for the columns' names above and the legend below."""
    finished(figure, height)
    return figure.update_layout(margin={"t": 40, "b": 88})


def _add(figure: go.Figure, band: Band, name: str, look: dict[str, Any], row: int, column: int, is_first: bool) -> None:
    group = escaped(name)
    if np.size(band.low):
        x, low, high = listed(band.x), listed(band.low), listed(band.high)
        figure.add_trace(
            go.Scatter(
                x=x + x[::-1],
                y=high + low[::-1],
                fill="toself",
                fillcolor=_faint(look["color"]),
                line={"width": 0},
                mode="lines",
                hoverinfo="skip",
                legendgroup=group,
                showlegend=False,
            ),
            row=row,
            col=column,
        )
    line = go.Scatter(
        x=listed(band.x),
        y=listed(band.y),
        mode="lines",
        name=group,
        legendgroup=group,
        showlegend=is_first,
        line=look,
        hovertemplate="%{y:.4g}",
    )
    figure.add_trace(line, row=row, col=column)


def _faint(color: str) -> str:
    """The colour of a band around a line of a colour "#rrggbb" or "rgb(r, g, b)"."""
    if color.startswith("#"):
        return f"rgba{(*hex_to_rgb(color), 0.18)}"
    return f"rgba({color[4:-1]}, 0.18)"
