"""`glideslope tasks`: what there is to train on, and with which methods."""

from __future__ import annotations

import inspect
from dataclasses import asdict

import torch
import typer

from glideslope.report.tables import Table
from glideslope.trials.lookup import find_method, find_task, registered_methods, registered_tasks
from glideslope.trials.task import Task


def tasks() -> None:
    """List every task with its size, source and what it needs, and every training method."""
    rows = []
    for name in registered_tasks():
        task = find_task(name)
        metric = f"{task.metric.name}{f', {task.metric.unit}' if task.metric.unit else ''}"
        needs = task.needs or "nothing (embedded)"
        rows.append((name, _size(task), task.batch_size, task.maximum_epochs, metric, needs, task.source))
    columns = ("task", "parameters", "batch", "epochs", "metric", "needs", "source")
    note = "Files are looked for in --data DIR or GLIDESLOPE_DATA. Your own tasks: my_package.module:task."
    typer.echo(Table("Tasks", columns, tuple(rows), note).to_text())
    typer.echo()
    typer.echo(_methods().to_text())


def _size(task: Task) -> str:
    if task.num_parameters is not None:
        return f"{task.num_parameters:,}"
    with torch.device("meta"):  # shapes without numbers: the largest would take seconds and half a gigabyte
        return f"{sum(weight.numel() for weight in task.model(0).parameters()):,}"


def _methods() -> Table:
    rows = []
    for name in registered_methods():
        kind = find_method(name)
        settings = ", ".join(f"{field} {value}" for field, value in asdict(kind()).items())  # type: ignore[call-overload]
        rows.append((name, settings or "-", (inspect.getdoc(kind) or "").partition("\n")[0], kind.source))
    note = (
        "Switched on behind the task, each once: mnist1d-mlp+label_smoothing+mixup. Your own: +my_package.module:Class."
    )
    return Table("Training methods", ("method", "settings", "what it does", "source"), tuple(rows), note)
