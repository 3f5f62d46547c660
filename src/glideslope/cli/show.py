"""`glideslope show`: what a schedule does, as a curve in the terminal and as a page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import plotext
import typer

from glideslope.core.budget import Budget, Deadline, Epochs, Steps, parse_budget
from glideslope.core.plan import Plan, for_budget
from glideslope.core.spec import parse_policy
from glideslope.report import figures, page
from glideslope.report.page import Figure, Section

POINTS = 401


def show(
    specs: Annotated[list[str] | None, typer.Argument(help='E.g. "rex(beta=0.9) @ plateaus(10)", "one_cycle".')] = None,
    budget: Annotated[str, typer.Option(help="E.g. 90ep, 10000ba, 45min.")] = "100ep",
    plan: Annotated[list[str] | None, typer.Option(help="A plan, shown with all its hyperparameters.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write one self-contained page.")] = None,
) -> None:
    """Draw schedules over a budget: the multiplier of the base rate, and the momentum where a plan has one."""
    span = parse_budget(budget)
    texts = list(dict.fromkeys([*(specs or []), *(plan or [])]))
    if not texts:
        raise ValueError('name at least one schedule, e.g. glideslope show "rex" "linear + warmup(5%)" --budget 90ep.')
    plans = {text: for_budget(_plan(text), span) for text in texts}
    progress = np.linspace(0.0, 1.0, POINTS)
    rates = {text: figures.Curve(progress, _values(entry, "lr", progress)) for text, entry in plans.items()}
    whole = set(plan or [])
    others = {
        (text, name): figures.Curve(progress, _values(entry, name, progress))
        for text, entry in plans.items()
        for name, _ in entry.courses
        if name != "lr" and (text in whole or html is not None)
    }
    _draw("multiplier of the base rate", rates, span)
    for name in dict.fromkeys(name for text, name in others if text in whole):
        _draw(name, {text: curve for (text, other), curve in others.items() if other == name and text in whole}, span)
    if html is not None:
        momenta = {text: curve for (text, name), curve in others.items() if name == "momentum"}
        figure = Figure(lambda: figures.schedule_shapes(rates, figures.styles(texts), momenta or None))
        lines = [f"{text}: {parse_policy(text)}" for text in texts]
        page.write(html, "Schedules", f"Over {span}.", [Section("Shapes", [figure]), Section("Specs", lines)])
        typer.echo(f"wrote {html}", err=True)


def _plan(text: str) -> Plan:
    return parse_policy(text).plan


def _values(plan: Plan, name: str, progress: np.ndarray) -> np.ndarray:
    if name not in plan:
        return np.ones_like(progress)
    return np.asarray(plan[name].value(progress, base=1.0))


def _draw(title: str, curves: dict[str, figures.Curve], span: Budget) -> None:
    """One chart in the terminal; the axis is the budget in its own unit."""
    unit = {Epochs: "epochs", Steps: "updates"}.get(type(span), span.unit)
    limit = span.count if isinstance(span, Epochs) else span.limit
    if isinstance(span, Deadline):
        unit, limit = "share of the time left", 1.0
    plotext.clear_figure()
    plotext.theme("clear" if not sys.stdout.isatty() else "pro")
    plotext.plotsize(100, 24)
    for text, curve in curves.items():
        plotext.plot(list(np.asarray(curve.x) * limit), list(np.asarray(curve.y)), label=text)
    plotext.title(title)
    plotext.xlabel(unit)
    typer.echo(plotext.build())
