"""The command's verbs, and what becomes of their errors."""

from __future__ import annotations

import sqlite3
import sys

import typer
from rich.console import Console
from rich.markup import escape

from glideslope.cli.arc import arc
from glideslope.cli.compare import compare
from glideslope.cli.convergence import convergence
from glideslope.cli.data import data
from glideslope.cli.export import export
from glideslope.cli.find_lr import find_lr
from glideslope.cli.rank import rank
from glideslope.cli.report import report
from glideslope.cli.show import show
from glideslope.cli.tasks import tasks
from glideslope.cli.tradeoff import tradeoff
from glideslope.cli.trials import trials
from glideslope.trials.store import StoreError

app = typer.Typer(
    help="Train neural networks on a budget: schedules, trials, evidence.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for verb in (compare, tradeoff, convergence, find_lr, report, rank, show, tasks, data, trials, export):
    app.command()(verb)
app.add_typer(arc, name="arc")


def main() -> None:
    """Run the command line. Errors of the user's making are one line and exit code 2."""
    sys.path.insert(0, "")  # a task may come from the user's own module, beside them
    try:
        app()
    except (ValueError, OSError, ImportError, StoreError, sqlite3.Error) as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"[red]error:[/red] {escape(str(error))}")
        sys.exit(2)
