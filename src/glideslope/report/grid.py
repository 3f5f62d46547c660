"""Grids of panels: axes that agree along rows and columns, names at two edges, one title below."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from glideslope.report.figures import escaped


def grid(rows: Sequence[str], columns: Sequence[str], across: float, between: float) -> go.Figure:
    """Empty panels, with names at the upper and the left edge.

    Args:
        rows: names; they say what the upright axes show.
        columns: names, which may have several lines.
        across: gap between columns, as a share of the width.
        between: gap between rows, as a share of the height.
    """
    figure = make_subplots(
        rows=len(rows),
        cols=len(columns),
        column_titles=[escaped(name).replace("\n", "<br>") for name in columns],
        horizontal_spacing=across,
        vertical_spacing=between,
    )
    figure.update_annotations(font_size=13)
    # Not `shared_yaxes`: with a logarithmic row among them, plotly.js drew every row with the range of an empty one.
    figure.update_xaxes(showticklabels=False)
    figure.update_xaxes(showticklabels=True, row=len(rows))
    figure.update_yaxes(showticklabels=False)
    figure.update_yaxes(showticklabels=True, col=1)
    for row, name in enumerate(rows, start=1):
        figure.update_yaxes(title_text=escaped(name), row=row, col=1)
    return figure


def title_below(figure: go.Figure, text: str) -> None:
    """One title for the level axes of all panels."""
    figure.add_annotation(
        text=text, x=0.5, y=0, xref="paper", yref="paper", yanchor="top", yshift=-24, showarrow=False, font_size=13
    )
