"""`glideslope data`: which data sets are there, which are missing, and how to get them."""

from __future__ import annotations

import json

import typer

from glideslope.cli.options import AsJson, Data, use_data
from glideslope.report.tables import Table
from glideslope.tasks.data import FOLDER_VARIABLE, data_folder
from glideslope.tasks.data_sets import Found, look_for_all
from glideslope.trials.lookup import find_task, registered_tasks


def data(data: Data = None, as_json: AsJson = False) -> None:
    """List every data set with the tasks that need it: what is there, what is missing, and how to get it."""
    use_data(data)
    found = look_for_all()
    users: dict[str, list[str]] = {}
    for name in registered_tasks():
        users.setdefault(find_task(name).needs or "", []).append(name)
    if as_json:
        typer.echo(json.dumps([_to_json(one, users) for one in found], indent=2))
        return
    rows = [(_name(one), _state(one), _size(one), ", ".join(users.get(one.name, []))) for one in found]
    folder = data_folder()
    unset = f"No data folder is set: name it with --data DIR or the environment variable {FOLDER_VARIABLE}."
    where = f"Looked for in {folder}." if folder else unset
    note = f"{where} The folders of GLUE belong to glue-bert and glue-minilm, which ask for one corpus at a time."
    typer.echo(Table("Data sets", ("data set", "state", "size", "tasks"), tuple(rows), note).to_text())
    for one in found:
        if not one.is_there or one.doubt:
            typer.echo(f"\n{_name(one)}{f' ({one.doubt})' if one.doubt else ''}: {one.obtain}")


def _name(found: Found) -> str:
    return f"{found.name}: {found.layout}" if found.layout else found.name


def _state(found: Found) -> str:
    if not found.is_there:
        return "incomplete" if found.doubt else "missing"
    if found.doubt:
        return "another file"
    return f"there, {found.known}" if found.known else "there"


def _size(found: Found) -> str:
    if found.path is None or not found.path.is_file():
        return "-"
    return f"{found.path.stat().st_size / 1e6:.1f} MB"


def _to_json(found: Found, users: dict[str, list[str]]) -> dict[str, object]:
    return {
        "name": found.name,
        "layout": found.layout,
        "path": str(found.path) if found.path else None,
        "state": _state(found),
        "doubt": found.doubt,
        "tasks": users.get(found.name, []),
        "obtain": found.obtain,
    }
