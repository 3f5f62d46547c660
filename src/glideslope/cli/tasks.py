"""`glideslope tasks`: what there is to train on."""

from __future__ import annotations

import typer

from glideslope.report.tables import Table
from glideslope.trials.lookup import find_task, registered_tasks


def tasks() -> None:
    """List every task with its size, source and what it needs."""
    rows = []
    for name in registered_tasks():
        task = find_task(name)
        size = sum(weight.numel() for weight in task.model(0).parameters())
        metric = f"{task.metric.name}{f', {task.metric.unit}' if task.metric.unit else ''}"
        needs = task.needs or "nothing (embedded)"
        rows.append((name, f"{size:,}", task.batch_size, task.maximum_epochs, metric, needs, task.source))
    columns = ("task", "parameters", "batch", "epochs", "metric", "needs", "source")
    note = "Files are looked for in --data DIR or GLIDESLOPE_DATA. Your own tasks: my_package.module:task."
    typer.echo(Table("Tasks", columns, tuple(rows), note).to_text())
