"""The data set: journeys in a folder, one file each, gathered into one table of decisions."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from glideslope.controller.features import Cycle, features
from glideslope.studies.arc.experience import Journey, Segment

SUFFIX = ".parquet"

SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "journey": pl.String,
    "family": pl.String,
    "seed": pl.Int64,
    "optimizer": pl.String,
    "initial_rate": pl.Float64,
    "epochs": pl.Int32,
    "segment": pl.Int32,
    "rate": pl.Float64,
    "train_losses": pl.List(pl.Float32),
    "val_losses": pl.List(pl.Float32),
    "branch_losses": pl.List(pl.Float32),
    "repeated_loss": pl.Float32,
    "taken": pl.Int8,
    "label": pl.Int8,
    "corrected_label": pl.Int8,
}
"""One row per segment of a path; those without a label end a path."""


def write(folder: Path, journey: Journey, segments: Sequence[Segment]) -> Path:
    """Keep a journey that is done: a file of its own, whole or not there at all."""
    return _put(folder, journey.journey_id, _table(journey, segments))


def scatter(table: pl.DataFrame, folder: Path) -> None:
    """The inverse of `gather`: a file for every journey of a table that the folder lacks."""
    for (journey,), rows in table.group_by("journey", maintain_order=True):
        if not (folder / f"{journey}{SUFFIX}").exists():
            _put(folder, str(journey), rows)


def _put(folder: Path, journey: str, rows: pl.DataFrame) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".part", delete=False) as file:
        rows.write_parquet(file.name, compression="zstd")
    path = folder / f"{journey}{SUFFIX}"
    os.replace(file.name, path)
    return path


def is_there(folder: Path, journey: Journey) -> bool:
    """Whether a journey is done."""
    return (folder / f"{journey.journey_id}{SUFFIX}").exists()


def gather(folder: Path) -> pl.DataFrame:
    """All journeys of a folder, sorted, as one table.

    Raises:
        FileNotFoundError: there is none.
    """
    paths = sorted(folder.glob(f"*{SUFFIX}"))
    if not paths:
        raise FileNotFoundError(f"{folder} holds no experience yet: run `glideslope arc collect --out {folder}`.")
    return pl.concat([pl.read_parquet(path) for path in paths]).sort("journey", "segment")


def read(path: Path) -> pl.DataFrame:
    """A table that was written with `write_parquet`.

    Raises:
        FileNotFoundError: it is not there.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: run `glideslope arc collect` first, or name another --data.")
    return pl.read_parquet(path)


def _table(journey: Journey, segments: Sequence[Segment]) -> pl.DataFrame:
    rows = [
        {
            "journey": journey.journey_id,
            "family": journey.family,
            "seed": journey.seed,
            "optimizer": journey.optimizer,
            "initial_rate": journey.rate,
            "epochs": journey.epochs,
            "segment": segment.index,
            "rate": segment.rate,
            "train_losses": segment.train_losses,
            "val_losses": segment.val_losses,
            "branch_losses": segment.branch_losses,
            "repeated_loss": segment.repeated_loss,
            "taken": segment.taken,
            "label": segment.label,
            "corrected_label": segment.corrected_label,
        }
        for segment in segments
    ]
    return pl.DataFrame(rows, schema=SCHEMA)


@dataclass(frozen=True)
class Points:
    """Decisions to learn from.

    Args:
        inputs: (num_points, 300, 3) float32, see `controller/features.py`.
        labels: (num_points,) int64, 0 raise, 1 keep, 2 lower.
        families: (num_points,) names.
    """

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]
    families: NDArray[np.str_]

    def of(self, wanted: NDArray[np.bool_]) -> Points:
        """Some of them."""
        return Points(self.inputs[wanted], self.labels[wanted], self.families[wanted])


def points(table: pl.DataFrame, variant: str, corrected: bool = True) -> Points:
    """Every decision of a table, from the cycles that led to it.

    Args:
        variant: of the features.
        corrected: whether labels are those of `Segment.corrected_label`.
    """
    found = list(_decisions(table, variant, "corrected_label" if corrected else "label"))
    return Points(
        np.stack([inputs for inputs, _, _ in found]),
        np.array([label for _, label, _ in found], dtype=np.int64),
        np.array([family for _, _, family in found]),
    )


def _decisions(table: pl.DataFrame, variant: str, column: str) -> Iterator[tuple[NDArray[np.float32], int, str]]:
    for path in table.sort("journey", "segment").partition_by("journey", maintain_order=True):
        cycles: list[Cycle] = []
        for row in path.iter_rows(named=True):
            cycles.append(Cycle(_floats(row["train_losses"]), _floats(row["val_losses"]), row["rate"]))
            if row[column] >= 0:
                yield features(cycles, variant), row[column], row["family"]


def _floats(values: Iterable[float | None]) -> tuple[float, ...]:
    return tuple(math.nan if value is None else float(value) for value in values)
