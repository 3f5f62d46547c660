"""`glideslope find-lr`: a learning-rate range test on a task."""

from __future__ import annotations

import math
import os
import sys
from typing import Annotated

import plotext
import typer

from glideslope.cli.options import Data, Html
from glideslope.report import page
from glideslope.report.page import Figure, Section
from glideslope.report.tables import Table
from glideslope.studies.find_rate import find_rate
from glideslope.torch.range_test import RangeTest


def find_lr(
    task: Annotated[str, typer.Argument(help="A task (see `glideslope tasks`) or package.module:attribute.")],
    optimizer: Annotated[str, typer.Option(help='E.g. "adamw(weight_decay=0.05)".')] = "sgdm",
    start: Annotated[float, typer.Option(help="First rate.")] = 1e-6,
    stop: Annotated[float, typer.Option(help="Last rate.")] = 10.0,
    updates: Annotated[int | None, typer.Option(help="Length. Left out: one epoch, but at least 100.")] = None,
    spacing: Annotated[str, typer.Option(help="exponential or linear.")] = "exponential",
    accuracy: Annotated[bool, typer.Option(help="Measure the validation accuracy after every update.")] = False,
    seed: Annotated[int, typer.Option(help="Of weights, data order and noise.")] = 0,
    data: Data = None,
    html: Html = None,
) -> None:
    """Raise the learning rate from update to update, watch the loss, and suggest rates with their reasons."""
    if data is not None:
        os.environ["GLIDESLOPE_DATA"] = str(data.resolve())
    test = find_rate(
        task,
        optimizer,
        start,
        stop,
        num_updates=updates,
        spacing=spacing,  # type: ignore[arg-type]  # checked there
        with_accuracy=accuracy,
        seed=seed,
    )
    _draw(test, f"{task}, {optimizer}", spacing)
    table = _suggestions(test)
    typer.echo(table.to_text())
    if html is not None:
        lead = f"{task} with {optimizer}: {len(test.rates)} updates from rate {start:g} on, seed {seed}."
        sections = [Section("Loss against rate", [Figure(test.figure)]), Section("Suggestions", [table])]
        page.write(html, "Range test", lead, sections)
        typer.echo(f"wrote {html}", err=True)


def _suggestions(test: RangeTest) -> Table:
    rows = tuple(
        (name, "-" if rate is None else f"{rate:.3g}", reason)
        for name, rate, reason in ((rule, found.rate, found.reason) for rule, found in test.suggestions.items())
    )
    ended = "The loss ran away, which ended the test." if test.diverged else "The test reached its last rate."
    return Table("Suggested rates", ("by", "rate", "reason"), rows, ended)


def _draw(test: RangeTest, title: str, spacing: str) -> None:
    plotext.clear_figure()
    plotext.theme("clear" if not sys.stdout.isatty() else "pro")
    plotext.plotsize(100, 24)
    points = [point for point in zip(test.rates, test.smoothed, strict=True) if math.isfinite(point[1])]
    if spacing == "exponential":
        plotext.xscale("log")
        decades = range(math.ceil(math.log10(points[0][0]) - 1e-9), math.floor(math.log10(points[-1][0]) + 1e-9) + 1)
        plotext.xticks([10.0**decade for decade in decades], [f"1e{decade}" for decade in decades])
    plotext.plot([rate for rate, _ in points], [loss for _, loss in points], label="smoothed training loss")
    plotext.title(title)
    plotext.xlabel("learning rate")
    typer.echo(plotext.build())
