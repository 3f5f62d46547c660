"""Figures: schedule shapes, rate sensitivity and seed strips as plotly figures, from plain data."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray
from plotly.subplots import make_subplots

from glideslope.report.panel import Direction, is_higher_better
from glideslope.report.results import Cell

# Okabe and Ito's colours, which stay apart for colour-blind readers, without black and yellow (one of the two vanishes
# on a dark or a white page) and with a violet in their place. Source: jfly.uni-koeln.de/color, 2008.
COLORS = ("#d55e00", "#009e73", "#cc79a7", "#0072b2", "#56b4e9", "#e69f00", "#7f6fd8", "#8a8a8a")
DASHES = ("solid", "dash", "dot", "dashdot")
SYMBOLS = ("circle", "diamond", "square", "triangle-up")

GREY = "#8a8a8a"
GRID = "rgba(128, 128, 128, 0.25)"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"


@dataclass(frozen=True)
class Style:
    """How one schedule is drawn in every figure.

    Args:
        color: "#rrggbb".
        dash: plotly's name of the line pattern.
        symbol: plotly's name of the marker.
    """

    color: str
    dash: str
    symbol: str


def _style(color: str, pattern: int = 0) -> Style:
    return Style(color, DASHES[pattern], SYMBOLS[pattern])


KNOWN_STYLES: Mapping[str, Style] = {
    "rex": _style("#d55e00"),
    "linear": _style("#009e73"),
    "cosine": _style("#cc79a7"),
    "step": _style("#0072b2"),
    "plateau": _style("#56b4e9"),
    "one_cycle": _style("#e69f00"),
    "exponential": _style("#7f6fd8"),
    "none": _style(GREY),
}
"""The paper's schedules look the same in every report."""


def styles(schedules: Sequence[str]) -> dict[str, Style]:
    """Give every schedule of a study its own look. Compute it once, and hand it to all figures of the report.

    The paper's schedules have fixed colours. A variant ("rex+warmup(10%)") takes its base's colour with another line
    pattern if it can; the others take what is free. There are 32 looks; beyond that they repeat.

    >>> looks = styles(["rex", "rex+warmup(10%)"])
    >>> looks["rex"].color == looks["rex+warmup(10%)"].color, looks["rex+warmup(10%)"].dash
    (True, 'dash')
    """
    looks = {name: KNOWN_STYLES[name] for name in schedules if name in KNOWN_STYLES}
    every = [_style(color, pattern) for pattern in range(len(DASHES)) for color in COLORS]
    for name in schedules:
        if name in looks:
            continue
        base = name.split("+")[0].split("@")[0].split("(")[0].strip()
        used = set(looks.values())
        # A variant never takes the solid line, which is its base's own, whether or not the base is in this study.
        own = [_style(KNOWN_STYLES[base].color, pattern) for pattern in (1, 2, 3)] if base in KNOWN_STYLES else []
        free = [look for look in (*own, *every) if look not in used]
        looks[name] = free[0] if free else every[len(looks) % len(every)]
    return {name: looks[name] for name in schedules}


@dataclass(frozen=True)
class Curve:
    """A line to draw.

    Args:
        x: (num_points,).
        y: (num_points,); NaN leaves a gap.
    """

    x: ArrayLike
    y: ArrayLike


@dataclass(frozen=True)
class Sensitivity:
    """How one schedule's score depends on its base rate.

    Args:
        rates: (num_rates,) base rates tried, > 0.
        scores: (num_rates,) score of each; not finite where training diverged.
        spreads: (num_rates,) standard deviations, drawn where they are finite; None draws none.
    """

    rates: ArrayLike
    scores: ArrayLike
    spreads: ArrayLike | None = None


def schedule_shapes(
    multipliers: Mapping[str, Curve],
    looks: Mapping[str, Style],
    momenta: Mapping[str, Curve] | None = None,
    rate_title: str = "multiplier of the base rate",
) -> go.Figure:
    """Curves of schedules over the share of the budget spent; a second panel for momentum if there is any.

    Args:
        multipliers: schedule → progress (0..1) and multiplier.
        looks: from `styles`, holding every schedule.
        momenta: schedule → progress and momentum, for plans that schedule it.
        rate_title: what the first panel's axis says.
    """
    rows = 2 if momenta else 1
    figure = make_subplots(rows=rows, cols=1, shared_xaxes=True, vertical_spacing=0.06, row_heights=[0.7, 0.3][:rows])
    for row, curves in enumerate((multipliers, momenta or {}), start=1):
        for name, curve in curves.items():
            figure.add_trace(
                go.Scatter(
                    x=listed(curve.x),
                    y=listed(curve.y),
                    mode="lines",
                    name=escaped(name),
                    legendgroup=escaped(name),
                    showlegend=row == 1 or name not in multipliers,
                    line={"color": looks[name].color, "dash": looks[name].dash, "width": 2},
                    hovertemplate="%{y:.4g}",
                ),
                row=row,
                col=1,
            )
    figure.update_yaxes(title_text=escaped(rate_title), rangemode="tozero", row=1, col=1)
    if momenta:
        figure.update_yaxes(title_text="momentum", row=2, col=1)
    figure.update_xaxes(title_text="share of the budget spent", tickformat=".0%", row=rows, col=1)
    figure.update_layout(hovermode="x unified")
    return finished(figure, height=560 if momenta else 440)


def rate_sensitivity(
    panels: Mapping[str, Mapping[str, Sensitivity]],
    looks: Mapping[str, Style],
    metric: str,
    higher_is_better: bool | Mapping[str, bool] = False,
) -> go.Figure:
    """Score against base rate on a logarithmic axis, a line per schedule: the REX paper's Figure 3.

    One panel is seen at a time, chosen from a menu. The best rate of each line is ringed. A rate at which training
    diverged is drawn as a gap.

    Args:
        panels: label ("task / optimizer / budget") → schedule → `Sensitivity`.
        looks: from `styles`.
        metric: name and unit of the score; "" where tasks differ.
        higher_is_better: direction, for all panels or label → bool.
    """
    figure = go.Figure()
    titles: list[str] = []
    owners: list[int] = []
    for index, (label, lines) in enumerate(panels.items()):
        upward = is_higher_better(higher_is_better, label)
        titles.append(axis_title(metric, upward))
        for name, line in lines.items():
            rates, scores, spreads = _sorted(line)
            usable = np.isfinite(scores)
            sizes = [7] * rates.size
            rings = [0] * rates.size
            if usable.any():
                best = int(np.where(usable, scores if upward else -scores, -np.inf).argmax())
                sizes[best], rings[best] = 12, 2
            figure.add_trace(
                go.Scatter(
                    x=listed(rates),
                    y=listed(scores),
                    error_y=None if line.spreads is None else {"array": listed(spreads), "thickness": 1, "width": 2},
                    mode="lines+markers",
                    name=escaped(name),
                    line={"color": looks[name].color, "dash": looks[name].dash, "width": 1.8},
                    marker={
                        "symbol": looks[name].symbol,
                        "size": sizes,
                        "line": {"width": rings, "color": GREY},
                    },
                    visible=index == 0,
                    hovertemplate="rate %{x:.3g}: %{y:.4g}",
                )
            )
            owners.append(index)
    figure.update_xaxes(type="log", title_text="base learning rate", dtick=1, exponentformat="power")
    return finished(_choose(figure, list(panels), titles, owners, axis="yaxis"), height=480)


def rate_range(
    losses: Curve, smoothed: Curve, marks: Mapping[str, float], accuracies: Curve | None = None
) -> go.Figure:
    """What a range test saw: loss against rate on a logarithmic axis, with suggested rates as upright lines.

    Args:
        losses: rate and training loss of each update.
        smoothed: rate and running mean of the loss.
        marks: rule → the rate it suggests.
        accuracies: rate and accuracy, drawn in a panel of its own.
    """
    figure = make_subplots(rows=2 if accuracies else 1, cols=1, shared_xaxes=True, vertical_spacing=0.06)
    figure.add_trace(go.Scatter(**_line(losses, "loss of each update"), line={"color": GREY, "width": 1}), row=1, col=1)
    figure.add_trace(go.Scatter(**_line(smoothed, "smoothed"), line={"color": COLORS[3], "width": 2.5}), row=1, col=1)
    figure.update_yaxes(title_text="training loss", row=1, col=1)
    finite = [loss for loss in listed(smoothed.y) if loss is not None]
    if finite:  # single losses at the end of the test would flatten everything else
        low, high = min(finite), max(finite[: max(1, len(finite) * 9 // 10)])
        margin = 0.15 * (high - low or abs(high) or 1.0)
        figure.update_yaxes(range=[low - margin, high + margin], row=1, col=1)
    if accuracies:
        line = go.Scatter(**_line(accuracies, "accuracy"), line={"color": COLORS[1], "width": 2})
        figure.add_trace(line, row=2, col=1)
        figure.update_yaxes(title_text="accuracy", row=2, col=1)
    for index, (rule, rate) in enumerate(marks.items()):
        figure.add_shape(
            type="line",
            x0=rate,
            x1=rate,
            y0=0,
            y1=1,
            yref="paper",
            line={"color": COLORS[(0, 2, 5)[index % 3]], "dash": DASHES[1 + index % 3], "width": 2},
            name=escaped(f"{rule}: {rate:.2g}"),
            showlegend=True,
        )
    figure.update_xaxes(type="log", dtick=1, exponentformat="power")
    figure.update_xaxes(title_text="learning rate", row=2 if accuracies else 1, col=1)
    return finished(figure, height=620 if accuracies else 440)


def _line(curve: Curve, name: str) -> dict[str, object]:
    return {"x": listed(curve.x), "y": listed(curve.y), "mode": "lines", "name": name, "hovertemplate": "%{y:.4g}"}


def seed_strips(
    cells: Sequence[Cell],
    looks: Mapping[str, Style],
    schedules: Sequence[str],
    metrics: Mapping[str, str],
    higher_is_better: Direction = False,
) -> go.Figure:
    """Every run as a dot: a row per schedule, its mean as a bar, one cell at a time from a menu.

    A run that diverged has no place on the axis; the row says how many there were.

    Args:
        cells: what can be chosen.
        looks: from `styles`.
        schedules: rows, top to bottom.
        metrics: task → name and unit of the score.
        higher_is_better: direction, for all tasks or task → bool.
    """
    figure = go.Figure()
    titles: list[str] = []
    owners: list[int] = []
    for index, cell in enumerate(cells):
        titles.append(axis_title(metrics[cell.task], is_higher_better(higher_is_better, cell.task)))
        for name in (name for name in schedules if name in cell.scores):
            scores = cell.values(name)
            finite = scores[np.isfinite(scores)]
            diverged = scores.size - finite.size
            row = escaped(name) + (f" ({diverged} diverged)" if diverged else "")
            seeds = [
                "no seed" if seed is None else f"seed {seed}"
                for seed, score in cell.scores[name].items()
                if math.isfinite(score)
            ]
            figure.add_trace(
                go.Scatter(
                    x=listed(finite) if finite.size else [None],
                    y=[row] * max(1, finite.size),
                    text=seeds,
                    mode="markers",
                    marker={"color": looks[name].color, "symbol": looks[name].symbol, "size": 10, "opacity": 0.8},
                    visible=index == 0,
                    showlegend=False,
                    hovertemplate="%{x:.4g} (%{text})<extra></extra>",
                )
            )
            mean = float(finite.mean()) if finite.size else None
            figure.add_trace(
                go.Scatter(
                    x=[mean],
                    y=[row],
                    mode="markers",
                    marker={
                        "symbol": "line-ns",
                        "size": 22,
                        "line": {"width": 2.5, "color": looks[name].color},
                    },
                    visible=index == 0,
                    showlegend=False,
                    hovertemplate="mean %{x:.4g}<extra></extra>",
                )
            )
            owners += [index, index]
    figure.update_yaxes(autorange="reversed", type="category", automargin=True)
    labels = [cell.label for cell in cells]
    return finished(_choose(figure, labels, titles, owners, axis="xaxis"), height=140 + 34 * max(4, len(schedules)))


def _choose(
    figure: go.Figure, labels: Sequence[str], titles: Sequence[str], owners: Sequence[int], axis: str
) -> go.Figure:
    """Add the menu that shows one group of traces at a time; `owners` says which group each trace is of."""
    if not labels:
        raise ValueError("there is nothing to draw. Give at least one cell with results.")
    figure.update_layout({axis: {"title": {"text": titles[0]}}})
    if len(labels) == 1:
        figure.update_layout(title={"text": escaped(labels[0]), "font": {"size": 14}})
        return figure
    buttons = [
        {
            "label": escaped(label),
            "method": "update",
            "args": [{"visible": [owner == index for owner in owners]}, {f"{axis}.title.text": titles[index]}],
        }
        for index, label in enumerate(labels)
    ]
    figure.update_layout(updatemenus=[menu(buttons)])
    return figure


def menu(buttons: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Choices above a figure, as an entry of plotly's `updatemenus`: a list that opens downwards."""
    return {
        "buttons": buttons,
        "direction": "down",
        "x": 0,
        "xanchor": "left",
        "y": 1.02,
        "yanchor": "bottom",
        "pad": {"b": 4},
        # plotly paints the entry under the pointer in a light colour of its own: the menu is light on any page.
        "bgcolor": "#ffffff",
        "bordercolor": GREY,
        "font": {"color": "#222222", "size": 13},
    }


def finished(figure: go.Figure, height: int) -> go.Figure:
    """What all figures share. Backgrounds are clear and greys middling: both a light and a dark page can hold them."""
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 64, "r": 28, "t": 56 if figure.layout.updatemenus or figure.layout.title.text else 16, "b": 56},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": FONT, "size": 13, "color": GREY},
        legend={"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom"},
        hoverlabel={"namelength": -1},
    )
    figure.update_xaxes(gridcolor=GRID, zeroline=False, linecolor=GREY, automargin=True)
    figure.update_yaxes(gridcolor=GRID, zeroline=False, linecolor=GREY, automargin=True)
    return figure


def axis_title(metric: str, upward: bool) -> str:
    return f"{escaped(metric or 'score')} ({'higher' if upward else 'lower'} is better)"


def escaped(name: str) -> str:
    """Text for plotly, which reads a small HTML of its own: shown as it is written."""
    return html.escape(name, quote=False)


def _sorted(line: Sensitivity) -> NDArray[np.float64]:
    """Rates, scores and spreads, by increasing rate: (3, num_rates)."""
    spreads = np.full(np.shape(line.rates), math.nan) if line.spreads is None else line.spreads
    columns = np.array([line.rates, line.scores, spreads], dtype=np.float64)
    return columns[:, np.argsort(columns[0], kind="stable")]


def listed(values: ArrayLike) -> list[float | None]:
    """Numbers as plain JSON: what is not finite becomes null, which plotly draws as a gap."""
    return [float(value) if math.isfinite(value) else None for value in np.asarray(values, dtype=np.float64).ravel()]
