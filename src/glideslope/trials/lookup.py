"""Tasks and training methods by name: from entry points, or from a user's own module. The engine imports none."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from glideslope.core.spec import canonical, parse_call
from glideslope.core.value import unknown
from glideslope.trials.task import Column, Splits, Task
from glideslope.trials.variant import Method, Variant, varied

GROUP = "glideslope.tasks"
METHODS_GROUP = "glideslope.methods"
WITH = "+"
"""Stands between a task and its methods, and in front of a method's settings among the parameters."""


def registered_tasks() -> Mapping[str, EntryPoint]:
    """Every installed task, by name, not yet imported."""
    return _registered(GROUP)


def registered_methods() -> Mapping[str, EntryPoint]:
    """Every installed training method, by name, not yet imported."""
    return _registered(METHODS_GROUP)


def _registered(group: str) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in sorted(entry_points(group=group), key=lambda entry: entry.name)}


def canonical_name(name: str) -> str:
    """The name with its methods in alphabetical order: the one that goes into a trial's identity.

    >>> canonical_name("mnist1d-mlp+mixup+label_smoothing")
    'mnist1d-mlp+label_smoothing+mixup'
    """
    task, *methods = name.split(WITH)
    return WITH.join([task, *sorted(methods)])


def find_task(name: str, params: Mapping[str, Any] | None = None) -> Task:
    """The task of a name, or of an import path "package.module:attribute", with the methods named behind a "+".

    The attribute may be a task, a class of tasks, or a function without arguments that returns a task. Methods are
    registered ones or classes by their import path, in any order: "mnist1d-mlp+label_smoothing+mixup". A class of tasks
    takes its fields in brackets: "shakespeare-lstm(hidden_size=64)".

    Args:
        params: fields of the task that differ from its defaults; only for tasks that are classes. Under "+method", a
            mapping of that method's fields.
    """
    return _find_task(canonical_name(name), canonical(dict(params or {})))


def find_method(name: str) -> type[Method]:
    """The training method of a name, or of an import path "package.module:Class"."""
    found = _found("method", name, registered_methods())
    if not (inspect.isclass(found) and issubclass(found, Method) and is_dataclass(found)):
        raise ValueError(
            f"{name!r} is no training method: it must be a glideslope.trials.variant.Method and a dataclass."
        )
    return found


@cache
def _find_task(name: str, params: str) -> Task:
    task_name, *method_names = name.split(WITH)
    values = {field: _tuples(value) for field, value in json.loads(params).items()}
    settings = {field: values.pop(field) for field in list(values) if field.startswith(WITH)}
    if not method_names and not settings:
        return _plain(task_name, values)
    kinds = [find_method(method_name) for method_name in method_names]
    methods = tuple(kind(**settings.pop(f"{WITH}{kind.name}", {})) for kind in kinds)
    if settings:
        raise ValueError(f"the parameters hold settings of {next(iter(settings))[1:]!r}, which {name!r} does not name.")
    return varied(find_task(task_name, values), methods)


def _plain(text: str, values: Mapping[str, Any]) -> Task:
    name, settings = parse_call(text) if text.endswith(")") else (text, {})
    found = _found("task", name, registered_tasks())
    if inspect.isclass(found):
        task = _built(found, text, {**settings, **values})
    elif settings:
        raise ValueError(f"{name!r} is no class of tasks, so it takes no settings: leave out the brackets of {text!r}.")
    elif inspect.isroutine(found):
        task = found()
    else:
        task = found
    if not (isinstance(task, Task) and is_dataclass(task)):
        raise ValueError(
            f"{name!r} is a {type(task).__name__}, but must be a glideslope.trials.task.Task and a frozen dataclass."
        )
    return task


def _built(kind: type, text: str, settings: Mapping[str, Any]) -> Any:
    known = [field.name for field in fields(kind)] if is_dataclass(kind) else []
    for name in settings:
        if known and name not in known:
            raise unknown(f"setting of {text!r}", name, known)
    return kind(**settings)


def _found(kind: str, name: str, known: Mapping[str, EntryPoint]) -> Any:
    if ":" not in name:
        if name not in known:
            raise unknown(kind, name, [*known, "package.module:attribute"])
        return known[name].load()
    module_name, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{kind} {name!r} cannot be imported: {error}.") from error


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples they were: tasks are hashed."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def task_params(task: Task) -> dict[str, Any]:
    """The task's fields, as they enter a trial's identity; those of its methods under "+method"."""
    if isinstance(task, Variant):
        settings = {f"{WITH}{method.name}": asdict(method) for method in task.methods}  # type: ignore[call-overload]
        return task_params(task.task) | settings
    return {field.name: getattr(task, field.name) for field in fields(task)}  # type: ignore[arg-type]


@cache
def task_splits(task: Task) -> Splits:
    """The task's data, loaded once per process, whatever methods it is trained with."""
    return task_splits(task.task) if isinstance(task, Variant) else task.splits()


@cache
def data_sha256(task: Task) -> str:
    """Fingerprint of all three splits, shapes, types and bytes, and of the weights that models begin with."""
    if isinstance(task, Variant):
        return data_sha256(task.task)
    digest = hashlib.sha256()
    splits = task_splits(task)
    for split in (splits.train, splits.validation, splits.test):
        for tensor in split:
            if isinstance(tensor, Column):
                digest.update(tensor.sha256.encode())
                continue
            digest.update(f"{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.contiguous().numpy().data)
    digest.update(task.pretrained_sha256().encode())
    return digest.hexdigest()
