"""`glideslope trials`: what is in a store; one trial in full; trials run again."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from glideslope.cli.execution import make_executor, run
from glideslope.cli.options import ExecutorName, Ranks, use_data
from glideslope.core.spec import to_text
from glideslope.report.tables import Table, finite_or_none
from glideslope.trials.executors import Executor
from glideslope.trials.record import Evaluation, Record, details
from glideslope.trials.shelf import StoreView
from glideslope.trials.store import Store
from glideslope.trials.summary import COLUMNS, EVERY_TRIAL, Selection
from glideslope.trials.trial import TrialSpec

ID_LENGTH = 10
"""So many of an id's 24 characters are listed: they tell 100,000 trials apart, but for one store in 200."""
SCHEDULE_WIDTH = 40
NEWEST = 50
MOST_LOOKS = 12

T = TypeVar("T")


def trials(
    folder: Annotated[Path, typer.Argument(help="The --out folder of a study.")],
    trial: Annotated[str | None, typer.Option("--id", help="Only trials whose id begins like this.")] = None,
    status: Annotated[str | None, typer.Option(help="Only finished, diverged or failed ones.")] = None,
    task: Annotated[str | None, typer.Option(help="Only tasks with this in their name.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="Only optimizers with this in their text.")] = None,
    schedule: Annotated[str | None, typer.Option(help="Only schedules with this in their text.")] = None,
    seed: Annotated[int | None, typer.Option(help="Only this seed of the initial weights.")] = None,
    newest: Annotated[int, typer.Option(help="How many to list, those stored last; 0 for all.", min=0)] = NEWEST,
    show: Annotated[str | None, typer.Option("--show", help="One trial in full: how its id begins.")] = None,
    rerun: Annotated[
        bool,
        typer.Option(
            "--rerun",
            help="Run what is selected again, now. A record is replaced when the new one is there and did not fail; "
            "what is not reached is run by the next `compare` that asks for it.",
        ),
    ] = False,
    data: Annotated[Path | None, typer.Option(help="Data folder (or GLIDESLOPE_DATA), for --rerun.")] = None,
    executor: ExecutorName = "population",
    workers: Annotated[int | None, typer.Option(help="Worker processes, for --rerun.", min=1)] = None,
    ranks: Ranks = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the trials of a store, show one (--show ID), or run some again (--status failed --rerun)."""
    if show is not None and rerun:
        raise ValueError(f"--show looks and --rerun computes. To run that trial again: --id {show} --rerun.")
    if show is not None:
        with StoreView(folder) as store:
            spec, record = _only(store, show)
        typer.echo(_json({"spec": spec.to_json(), "record": record.to_json()}) if as_json else _described(spec, record))
        return
    selection = Selection(trial, status, task, optimizer, schedule, seed)
    if rerun:
        use_data(data)
        _run_again(folder, selection, make_executor(executor, workers, ranks=ranks), as_json)
        return
    with StoreView(folder) as store:
        count, rows = store.count(selection), store.rows(selection, newest or None)
    trials_found = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    if as_json:
        typer.echo(_json([_plain(found) for found in trials_found]))
    else:
        typer.echo(_listed(trials_found, count).to_text())


# ------------------------------------------------------------ a list


def _listed(found: Sequence[Mapping[str, Any]], count: int) -> Table:
    columns = ("id", "task", "optimizer", "schedule", "rate", "seed", "updates", "status", "metric", "seconds", "path")
    rows = tuple(
        (
            row["trial_id"][:ID_LENGTH],
            row["task"],
            row["optimizer"],
            textwrap.shorten(row["schedule"], SCHEDULE_WIDTH, placeholder=" …"),
            f"{row['rate']:.3g}",
            _seeds(row["seed_init"], row["seed_data"], row["seed_noise"]),
            row["updates"],
            row["status"],
            "-" if row["test_metric"] is None else f"{row['test_metric']:.4g}",
            f"{row['training_seconds'] + row['evaluation_seconds']:.3g}",
            way(json.loads(row["path"])),
        )
        for row in found
    )
    shown = "" if len(rows) == count else f" Listed are the {len(rows)} stored last; --newest 0 lists all."
    note = (
        f"Selected: {count}.{shown} Metric: the task's, on the test split after the last update. --show ID tells all."
    )
    return Table("Trials", columns, rows, note)


def _seeds(init: int, data: int, noise: int) -> str:
    return str(init) if init == data == noise else f"{init}/{data}/{noise}"


def way(path: Mapping[str, Any]) -> str:
    """How a trial was computed, in words.

    >>> way({"executor": "population", "device": "cpu", "K": 64, "method": "baddbmm"})
    'population of 64 (baddbmm)'
    """
    of = f" of {path['K']}" if path.get("K", 1) != 1 else ""
    return f"{path['executor']}{of}{details(path)}"


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """For strict JSON."""
    return {name: finite_or_none(value) if isinstance(value, float) else value for name, value in row.items()}


def _json(data: Any) -> str:
    return json.dumps(data, indent=2, allow_nan=False)


# ------------------------------------------------------------ one trial


def _only(store: StoreView, beginning: str) -> tuple[TrialSpec, Record]:
    selection = Selection(trial=beginning)
    found = [row[0] for row in store.rows(selection)]
    if not found:
        raise ValueError(f"no trial in {store.folder} has an id that begins with {beginning!r}.")
    if len(found) > 1:
        some = ", ".join(found[:3])
        raise ValueError(f"{len(found)} trials begin with {beginning!r}: {some}, … Give more of the id.")
    return store.specs(selection)[found[0]], store.records(selection)[found[0]]


def _described(spec: TrialSpec, record: Record) -> str:
    cost = record.cost
    facts = {
        "status": record.status,
        "task": f"{spec.task.name}, version {spec.task.version}, {spec.task.params}",
        "data": spec.task.data_sha256,
        "optimizer": str(spec.optimizer),
        "schedule": to_text(spec.policy),
        "rate": f"{spec.rate:.6g}",
        "seeds": f"init {spec.seeds.init}, data {spec.seeds.data}, noise {spec.seeds.noise}",
        "updates": f"{cost.updates} of {spec.last_update}, validated every {spec.eval_every}",
        "test": "-" if record.test is None else _seen(record.test),
        "seconds": f"{cost.training_seconds:.3g} of training, {cost.evaluation_seconds:.3g} of evaluation",
        "computed by": f"{way(record.path)} on {record.path.get('device', '?')}",
        "versions": ", ".join(f"{name} {number}" for name, number in sorted(record.versions.items())),
        "trajectory": record.trajectory_id,
    }
    parts = [Table(f"Trial {record.trial_id}", ("", " "), tuple(facts.items())).to_text()]
    if record.series.updates:
        parts.append(_series(record).to_text())
    if record.validation:
        columns = [[look.update for look in record.validation], [look.loss for look in record.validation]]
        columns += [[look.metric for look in record.validation], *map(list, record.measured.values())]
        looks = _spread(list(zip(*columns, strict=True)), MOST_LOOKS)
        rows = tuple((str(update), *(f"{number:.6g}" for number in numbers)) for update, *numbers in looks)
        note = "" if len(looks) == len(record.validation) else f"{len(looks)} of {len(record.validation)}."
        parts.append(Table("Validation", ("updates", "loss", "metric", *record.measured), rows, note).to_text())
    if record.decisions:
        rows = tuple((str(update), f"{gain:.3g}", reason) for update, gain, reason in record.decisions)
        parts.append(Table("Decisions of the controller", ("updates", "gain", "reason"), rows).to_text())
    if record.error:
        parts.append(record.error.rstrip())
    return "\n\n".join(parts)


def _seen(look: Evaluation) -> str:
    return f"metric {look.metric:.6g}, loss {look.loss:.6g} after {look.update} updates"


def _series(record: Record) -> Table:
    """First, least, greatest and last value of everything that was recorded by update."""
    series = record.series
    named = {"train loss": series.train_loss, "rate": series.rate, **series.probes}
    rows = tuple(
        (name, *(f"{value:.4g}" for value in (values[0], *_extremes(values), values[-1])))
        for name, values in named.items()
    )
    note = f"{len(series.updates)} updates were recorded, from {series.updates[0]} to {series.updates[-1]}."
    return Table("Series", ("", "first", "least", "greatest", "last"), rows, note)


def _extremes(values: Sequence[float]) -> tuple[float, float]:
    finite = [value for value in values if math.isfinite(value)]
    return (min(finite), max(finite)) if finite else (math.nan, math.nan)


def _spread(looks: Sequence[T], number: int) -> Sequence[T]:
    """So many of them, evenly, the last one among them."""
    if len(looks) <= number:
        return looks
    return [looks[-1 - round(step * (len(looks) - 1) / (number - 1))] for step in reversed(range(number))]


# ------------------------------------------------------------ again


@dataclass(frozen=True)
class _Again:
    """A cell of given trials."""

    specs: tuple[TrialSpec, ...]

    def next_specs(self, records: Mapping[str, Record]) -> list[TrialSpec]:
        return [spec for spec in self.specs if spec.trial_id not in records]


def _run_again(folder: Path, selection: Selection, executor: Executor, as_json: bool) -> None:
    if selection == EVERY_TRIAL:
        raise ValueError("--rerun runs again what is selected: say what, for example --status failed or --id 3fa2.")
    with executor as engine, Store(folder, create=False) as store:
        specs, before = store.specs(selection), store.summaries(selection)
        if not specs:
            raise ValueError(f"no trial in {folder} is selected. `glideslope trials {folder}` lists them.")
        typer.echo(f"running again: {_tally(before.values())}", err=True)
        store.run_again(specs.keys())
        records = run([_Again(tuple(specs.values()))], store, engine)
    after = {trial_id: records[trial_id] for trial_id in specs}
    changed = [trial_id for trial_id in specs if after[trial_id].outcome != before[trial_id].outcome]
    if as_json:
        told = {
            trial_id: {"before": before[trial_id].status, "now": after[trial_id].status, "changed": trial_id in changed}
            for trial_id in specs
        }
        typer.echo(_json(told))
        return
    typer.echo(f"Run again. Before: {_tally(before.values())}. Now: {_tally(after.values())}.")
    again = [trial_id for trial_id in changed if before[trial_id].status == after[trial_id].status]
    if again:
        typer.echo(f"Of the same status but with another result: {', '.join(key[:ID_LENGTH] for key in again)}.")
    for trial_id, record in after.items():
        if record.status == "failed":
            kept = "" if before[trial_id].status == "failed" else "; the record from before stays"
            typer.echo(f"{trial_id[:ID_LENGTH]} failed: {record.error.strip().splitlines()[-1]}{kept}")


def _tally(records: Iterable[Record]) -> str:
    """How many of which status.

    >>> _tally([])
    'none'
    """
    statuses = [record.status for record in records]
    counts = [f"{statuses.count(status)} {status}" for status in dict.fromkeys(sorted(statuses))]
    return ", ".join(counts) or "none"
