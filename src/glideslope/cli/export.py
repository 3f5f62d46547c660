"""`glideslope export`: the trials of a store as a table for other programs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glideslope.report.tables import Table
from glideslope.trials.record import Record
from glideslope.trials.shelf import StoreView
from glideslope.trials.summary import COLUMNS, Column, Selection

if TYPE_CHECKING:
    import polars

PATH_COLUMNS: Mapping[str, Column] = {
    "executor": Column("TEXT", "in-process, processes, population, …"),
    "device": Column("TEXT", "where it was computed"),
    "members": Column("INTEGER", "trials computed together with it, itself included"),
    "method": Column("TEXT", "how a population computed it; null for a trial alone"),
}
"""What stands in the place of `path`."""

EXPORTED: Mapping[str, Column] = {
    name: column
    for own, whole in COLUMNS.items()
    for name, column in (PATH_COLUMNS if own == "path" else {own: whole}).items()
}
"""Column of an export → type and meaning: one row per trial."""

SERIES_COLUMNS: Mapping[str, Column] = {
    "trial_id": Column("TEXT", "identity of the trial"),
    "series": Column("TEXT", "train_loss, rate, a probe's name, validation_loss, validation_metric or gain"),
    "update": Column(
        "INTEGER", "train_loss, rate and norms but the full one: of this update, from 0; the others: after so many"
    ),
    "value": Column("REAL", "a gain is given where a controller changed it; it is 1 before"),
}
"""Column of an export with --series → type and meaning: one row per number that was recorded."""

TRIALS_AT_ONCE = 1000


def export(
    folder: Annotated[Path, typer.Argument(help="The --out folder of a study.")],
    out: Annotated[
        Path | None, typer.Argument(help="A file .parquet, .csv or .json. Left out: the columns are explained.")
    ] = None,
    series: Annotated[
        bool, typer.Option("--series", help="One row per recorded number of every trial: losses, rates, validations.")
    ] = False,
    status: Annotated[str | None, typer.Option(help="Only finished, diverged or failed trials.")] = None,
    task: Annotated[str | None, typer.Option(help="Only tasks with this in their name.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="Only optimizers with this in their text.")] = None,
    schedule: Annotated[str | None, typer.Option(help="Only schedules with this in their text.")] = None,
    seed: Annotated[int | None, typer.Option(help="Only this seed of the initial weights.")] = None,
) -> None:
    """Write the trials of a store as Parquet, CSV or JSON: one row per trial, or with --series one per number."""
    selection = Selection(None, status, task, optimizer, schedule, seed)
    write = _writer(out) if out is not None else None
    with StoreView(folder) as store:
        if out is None or write is None:
            typer.echo(_explained(SERIES_COLUMNS if series else EXPORTED).to_text())
            return
        table = _series(store, selection) if series else _trials(store, selection)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f"{out.name}.partial")
    try:
        write(table, partial)
        os.replace(partial, out)  # whoever reads it sees all of it
    finally:
        partial.unlink(missing_ok=True)
    typer.echo(f"wrote {len(table):,} rows to {out}", err=True)


def _writer(out: Path) -> Callable[[polars.DataFrame, Path], object]:
    import polars  # a tenth of a second that other verbs need not wait

    writers: dict[str, Callable[[polars.DataFrame, Path], object]] = {
        ".parquet": polars.DataFrame.write_parquet,
        ".csv": polars.DataFrame.write_csv,
        ".json": polars.DataFrame.write_json,
    }
    if out.suffix not in writers:
        raise ValueError(f"cannot write {out.name}: the ending must be {', '.join(writers)}.")
    return writers[out.suffix]


def _explained(columns: Mapping[str, Column]) -> Table:
    rows = tuple((name, column.kind.lower(), column.meaning) for name, column in columns.items())
    note = "CSV writes null as an empty field; JSON has null for NaN and infinity too."
    return Table("Columns", ("column", "type", "meaning"), rows, note)


def _trials(store: StoreView, selection: Selection) -> polars.DataFrame:
    import polars

    place = list(COLUMNS).index("path")
    rows = [(*row[:place], *_path(row[place]), *row[place + 1 :]) for row in store.rows(selection)]
    return polars.DataFrame(rows, schema=_schema(EXPORTED), orient="row")


@cache
def _path(text: str) -> tuple[Any, ...]:
    """The values of `PATH_COLUMNS`; thousands of trials have the same."""
    path = json.loads(text)
    return path.get("executor"), path.get("device"), path.get("K"), path.get("method")


def _schema(columns: Mapping[str, Column]) -> dict[str, Any]:
    import polars

    kinds = {"TEXT": polars.String, "INTEGER": polars.Int64, "REAL": polars.Float64}
    return {name: kinds[column.kind] for name, column in columns.items()}


def _series(store: StoreView, selection: Selection) -> polars.DataFrame:
    import polars

    # 40 numbers of memory a row would be too many for 100,000 trials: ids and names become codes, portion by portion.
    words = polars.col("trial_id", "series").cast(polars.Categorical)
    records = store.each_record(selection)
    portions: list[polars.DataFrame] = []
    while not portions or len(portions[-1]):
        rows = [row for record in islice(records, TRIALS_AT_ONCE) for row in _numbers(record)]
        portions.append(polars.DataFrame(rows, schema=_schema(SERIES_COLUMNS), orient="row").with_columns(words))
    return polars.concat(portions)


def _numbers(record: Record) -> Iterator[tuple[str, str, int, float]]:
    """The rows of a record."""
    series = record.series
    for name, values in {"train_loss": series.train_loss, "rate": series.rate, **series.probes}.items():
        for update, value in zip(series.updates, values, strict=True):
            yield record.trial_id, name, update, value
    for look in record.validation:
        yield record.trial_id, "validation_loss", look.update, look.loss
        yield record.trial_id, "validation_metric", look.update, look.metric
    for name, values in record.measured.items():
        for look, value in zip(record.validation, values, strict=True):
            yield record.trial_id, name, look.update, value
    for update, gain, _ in record.decisions:
        yield record.trial_id, "gain", update, gain
