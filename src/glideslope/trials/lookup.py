"""Tasks by name: from the entry-point group `glideslope.tasks`, or a user's own module. The engine imports none."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from glideslope.core.spec import canonical
from glideslope.core.value import unknown
from glideslope.trials.task import Splits, Task

GROUP = "glideslope.tasks"


def registered_tasks() -> Mapping[str, EntryPoint]:
    """Every installed task, by name, not yet imported."""
    return {entry.name: entry for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name)}


def find_task(name: str, params: Mapping[str, Any] | None = None) -> Task:
    """The task of a name, or of an import path "package.module:attribute".

    The attribute may be a task, a class of tasks, or a function without arguments that returns a task.

    Args:
        params: fields of the task that differ from its defaults; only for tasks that are classes.
    """
    return _find_task(name, canonical(dict(params or {})))


@cache
def _find_task(name: str, params: str) -> Task:
    if ":" in name:
        module_name, _, attribute = name.partition(":")
        try:
            found = getattr(importlib.import_module(module_name), attribute)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"task {name!r} cannot be imported: {error}.") from error
    else:
        known = registered_tasks()
        if name not in known:
            raise unknown("task", name, [*known, "package.module:attribute"])
        found = known[name].load()
    if inspect.isclass(found):
        task = found(**{name: _tuples(value) for name, value in json.loads(params).items()})
    elif inspect.isroutine(found):
        task = found()
    else:
        task = found
    if not (isinstance(task, Task) and is_dataclass(task)):
        raise ValueError(
            f"{name!r} is a {type(task).__name__}, but must be a glideslope.trials.task.Task and a frozen dataclass."
        )
    return task


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples they were: tasks are hashed."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def task_params(task: Task) -> dict[str, Any]:
    """The task's fields, as they enter a trial's identity."""
    return {field.name: getattr(task, field.name) for field in fields(task)}  # type: ignore[arg-type]


@cache
def task_splits(task: Task) -> Splits:
    """The task's data, loaded once per process."""
    return task.splits()


@cache
def data_sha256(task: Task) -> str:
    """Fingerprint of all three splits: shapes, types and bytes."""
    digest = hashlib.sha256()
    splits = task_splits(task)
    for split in (splits.train, splits.validation, splits.test):
        for tensor in split:
            digest.update(f"{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
