"""Result: one finished run as plain data. Cell: all runs that compete under one (task, optimizer, budget)."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Regime = Literal["low", "high"]

LOW_BUDGET = 0.25
"""Budgets below this share of a task's maximum are "low": Chen, Wolfe, Kyrillidis, MLSys 2022, Table 1."""

COLUMNS = ("task", "optimizer", "budget", "schedule", "score")
OPTIONAL_COLUMNS = ("seed", "regime")
DIVERGED_WORDS = ("", "nan", "diverged")


@dataclass(frozen=True)
class Result:
    """The final score of one run.

    Args:
        task: name of the task.
        optimizer: name of the optimizer.
        budget: the budget's label, such as "5%" or "3" (epochs).
        fraction: budget / the task's maximum budget, > 0; 1 is the full budget.
        schedule: name of the schedule.
        seed: the run's seed; None where it is not known. Runs of one cell with equal seeds are paired.
        score: the metric at the last step, in the metric's own unit; NaN or infinite means that the run diverged.
        regime: "low" or "high" to override the 25 % rule, None to follow it.

    >>> Result("digits", "sgdm", "5%", 0.05, "rex", 0, float("nan")).diverged
    True
    """

    task: str
    optimizer: str
    budget: str
    fraction: float
    schedule: str
    seed: int | None
    score: float
    regime: Regime | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.fraction) and self.fraction > 0):
            raise ValueError(f"`fraction` is {self.fraction}, but a budget must be a positive share of the maximum.")
        if self.regime not in (None, "low", "high"):
            raise ValueError(f"unknown regime {self.regime!r}. Known: high, low.")

    @property
    def diverged(self) -> bool:
        """Whether the score is NaN or infinite."""
        return not math.isfinite(self.score)


def percent(share: float) -> str:
    """The label of a budget that is a share of the maximum.

    >>> percent(0.01), percent(0.125)
    ('1%', '12.5%')
    """
    return f"{100 * share:.10g}%"


def regime_of(fraction: float) -> Regime:
    """The paper's rule: below 25 % of the maximum is low, from 25 % on it is high.

    >>> [regime_of(share) for share in (0.1, 0.25, 1.0)]
    ['low', 'high', 'high']
    """
    # 0.3 / 1.2 and its like may round to just under a quarter; a budget of exactly 25 % is high.
    return "low" if fraction < LOW_BUDGET - 1e-9 else "high"


@dataclass(frozen=True)
class Cell:
    """All runs under one (task, optimizer, budget): what schedules are ranked within.

    Args:
        task, optimizer, budget, fraction: as in `Result`.
        regime: "low" or "high".
        scores: schedule → seed → score; a score that is not finite diverged.
    """

    task: str
    optimizer: str
    budget: str
    fraction: float
    regime: Regime
    scores: Mapping[str, Mapping[int | None, float]]

    @property
    def label(self) -> str:
        """How tables and errors call the cell: "task / optimizer / budget"."""
        return f"{self.task} / {self.optimizer} / {self.budget}"

    @property
    def schedules(self) -> tuple[str, ...]:
        """Names of the schedules, in order of first appearance."""
        return tuple(self.scores)

    @property
    def seeds(self) -> tuple[int | None, ...]:
        """Seeds of the first schedule, in order; if the cell is `paired`, those of every schedule."""
        return tuple(next(iter(self.scores.values())))

    @property
    def paired(self) -> bool:
        """Whether every schedule was run with the same seeds, so that differences can be taken seed by seed."""
        return all(set(by_seed) == set(self.seeds) for by_seed in self.scores.values())

    def values(self, schedule: str) -> NDArray[np.float64]:
        """Scores of one schedule, in its own order of seeds. Returns: (num_seeds,)."""
        return np.array(list(self.scores[schedule].values()), dtype=np.float64)

    def matrix(self, schedules: Sequence[str]) -> NDArray[np.float64]:
        """Scores paired by seed. Returns: (num_schedules, num_seeds)."""
        missing = [name for name in schedules if name not in self.scores]
        if missing:
            present = ", ".join(self.scores)
            raise ValueError(f"cell {self.label} has no runs of {', '.join(missing)}. It has: {present}.")
        if not self.paired:
            raise ValueError(
                f"cell {self.label} does not have the same seeds for every schedule, so its runs cannot be paired: "
                + "; ".join(f"{name} has {_list_seeds(by_seed)}" for name, by_seed in self.scores.items())
                + "."
            )
        return np.array([[self.scores[name][seed] for seed in self.seeds] for name in schedules], dtype=np.float64)

    def mean(self, schedule: str) -> float:
        """Mean score over seeds; NaN if any seed diverged, because a mean with an infinite loss in it is infinite.

        >>> cell = Cell("t", "sgdm", "5%", 0.05, "low", {"rex": {0: 1.0, 1: 2.0}, "none": {0: 1.0, 1: float("inf")}})
        >>> cell.mean("rex"), cell.mean("none")
        (1.5, nan)
        """
        values = self.values(schedule)
        # fsum is exact, so equal sets of scores tie whatever the order of their seeds.
        return math.fsum(values) / values.size if np.isfinite(values).all() else math.nan


def group(results: Iterable[Result]) -> tuple[Cell, ...]:
    """Gather runs into cells, in order of first appearance.

    Raises ValueError on two results with the same task, optimizer, budget, schedule and seed, and on a cell whose
    results disagree about its fraction or regime.

    >>> cells = group(Result("t", "sgdm", "5%", 0.05, name, 0, score) for name, score in (("rex", 1.0), ("step", 2.0)))
    >>> cells[0].label, cells[0].schedules, cells[0].regime
    ('t / sgdm / 5%', ('rex', 'step'), 'low')
    """
    first: dict[tuple[str, str, str], Result] = {}
    scores: dict[tuple[str, str, str], dict[str, dict[int | None, float]]] = {}
    for result in results:
        key = (result.task, result.optimizer, result.budget)
        known = first.setdefault(key, result)
        if (known.fraction, known.regime) != (result.fraction, result.regime):
            raise ValueError(
                f"cell {' / '.join(key)} is given both as fraction {known.fraction}, regime {known.regime} and as "
                f"fraction {result.fraction}, regime {result.regime}. All runs of a cell share one budget."
            )
        by_seed = scores.setdefault(key, {}).setdefault(result.schedule, {})
        if result.seed in by_seed:
            seed = "without a seed" if result.seed is None else f"with seed {result.seed}"
            raise ValueError(f"cell {' / '.join(key)} has two results of {result.schedule!r} {seed}. Keep one.")
        by_seed[result.seed] = result.score
    return tuple(
        Cell(*key, one.fraction, one.regime or regime_of(one.fraction), scores[key]) for key, one in first.items()
    )


@dataclass(frozen=True)
class Complete:
    """The part of an unfinished study that can be compared.

    Args:
        cells: cells in which every schedule has the same, at least one, seeds.
        omitted: one line per cell or seed left out, saying what is missing.
    """

    cells: tuple[Cell, ...]
    omitted: tuple[str, ...]


def complete_part(cells: Sequence[Cell], schedules: Sequence[str]) -> Complete:
    """Keep what every schedule has: cells that hold them all, and in each the seeds they share.

    For looking into a study that is still running. Nothing is imputed: what is left out is listed in `omitted`.

    >>> cell = Cell("t", "sgdm", "5%", 0.05, "low", {"rex": {0: 1.0, 1: 2.0}, "step": {0: 3.0}})
    >>> complete_part([cell], ["rex", "step"]).omitted
    ('t / sgdm / 5%: seed 1 is missing for step',)
    """
    kept: list[Cell] = []
    omitted: list[str] = []
    for cell in cells:
        absent = [name for name in schedules if not cell.scores.get(name)]
        if absent:
            omitted.append(f"{cell.label}: no runs of {', '.join(absent)}")
            continue
        every = dict.fromkeys(seed for name in schedules for seed in cell.scores[name])
        shared = [seed for seed in every if all(seed in cell.scores[name] for name in schedules)]
        for seed in every:
            if seed not in shared:
                lacking = [name for name in schedules if seed not in cell.scores[name]]
                omitted.append(f"{cell.label}: seed {seed} is missing for {', '.join(lacking)}")
        if shared:
            scores = {name: {seed: cell.scores[name][seed] for seed in shared} for name in schedules}
            kept.append(Cell(cell.task, cell.optimizer, cell.budget, cell.fraction, cell.regime, scores))
    return Complete(tuple(kept), tuple(omitted))


@dataclass(frozen=True)
class _Row:
    line: int
    task: str
    optimizer: str
    budget_text: str
    budget: float
    percent: bool
    schedule: str
    seed: int | None
    score: float
    regime: Regime | None

    @property
    def label(self) -> str:
        return f"{self.budget:.12g}" + ("%" if self.percent else "")


def read_csv(path: Path) -> tuple[Result, ...]:
    """Read results in long form: one run per line.

    Columns: `task`, `optimizer`, `budget`, `schedule`, `score`; optional `seed` (an integer or blank) and `regime`
    ("low", "high" or blank). Other columns are ignored. A budget is a percentage of the task's maximum ("5%") or a
    number of epochs; epochs become a fraction of the task's largest budget in the file, so one task uses one form. A
    score that is blank, `nan`, infinite or the word `diverged` counts as diverged.

    Raises:
        ValueError: names the file, the line, the value and the way out.
    """
    rows = _read_rows(path)
    largest: dict[str, float] = {}
    first_of_task: dict[str, _Row] = {}
    first_of_run: dict[tuple[str, str, str, str, int | None], _Row] = {}
    regime_of_cell: dict[tuple[str, str, str], _Row] = {}
    for row in rows:
        earlier = first_of_task.setdefault(row.task, row)
        if earlier.percent != row.percent:
            raise ValueError(
                f"{path}, line {row.line}: task {row.task!r} has the budget {row.budget_text!r}, but "
                f"{earlier.budget_text!r} on line {earlier.line}. Give all budgets of a task in percent, "
                "or all in epochs."
            )
        twin = first_of_run.setdefault((row.task, row.optimizer, row.label, row.schedule, row.seed), row)
        if twin is not row:
            seed = "no seed" if row.seed is None else f"seed {row.seed}"
            raise ValueError(
                f"{path}, line {row.line}: task {row.task!r}, optimizer {row.optimizer!r}, budget {row.label}, "
                f"schedule {row.schedule!r} with {seed} is already on line {twin.line}. Remove one of the two, "
                "or tell repeated runs apart in a `seed` column."
            )
        regime = regime_of_cell.setdefault((row.task, row.optimizer, row.label), row)
        if regime.regime != row.regime:
            raise ValueError(
                f"{path}, line {row.line}: regime {row.regime or 'blank'!r}, but {regime.regime or 'blank'!r} for the "
                f"same task, optimizer and budget on line {regime.line}. Give the whole cell one regime."
            )
        largest[row.task] = max(largest.get(row.task, 0.0), row.budget)
    return tuple(
        Result(
            task=row.task,
            optimizer=row.optimizer,
            budget=row.label,
            fraction=row.budget / (100.0 if row.percent else largest[row.task]),
            schedule=row.schedule,
            seed=row.seed,
            score=row.score,
            regime=row.regime,
        )
        for row in rows
    )


def read_report(path: Path) -> tuple[tuple[Result, ...], dict[str, bool]]:
    """Read the runs of a comparison again, from what `glideslope compare --json` printed.

    Returns:
        Its results, and of every task whether more is better.

    Raises:
        ValueError: names the file, and says what it lacks.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        results = tuple(
            Result(
                cell["task"],
                cell["optimizer"],
                percent(cell["budget"]),
                cell["budget"],
                cell["schedule"],
                int(seed),
                math.nan if score is None else score,
            )
            for cell in data["cells"]
            for seed, score in cell["scores"].items()
        )
        settings = data["question"]["settings"]
        return results, {one["task"]["name"]: one["metric"]["higher_is_better"] for one in settings}
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is no report of a comparison ({type(error).__name__}: {error}). Give the JSON that "
            "`glideslope compare --json` or `glideslope report --json` printed, or a CSV."
        ) from error


def in_common(cells: Sequence[Cell]) -> tuple[tuple[Cell, ...], tuple[str, ...]]:
    """Cells of several sources, with the schedules that all of them have; and the names of those left out.

    >>> one = Cell("a", "sgdm", "5%", 0.05, "low", {"rex": {0: 1.0}, "step": {0: 2.0}})
    >>> other = Cell("b", "sgdm", "5%", 0.05, "low", {"rex": {0: 1.0}, "none": {0: 2.0}})
    >>> [cell.schedules for cell in in_common([one, other])[0]], in_common([one, other])[1]
    ([('rex',), ('rex',)], ('step', 'none'))
    """
    every = dict.fromkeys(name for cell in cells for name in cell.schedules)
    shared = [name for name in every if all(name in cell.scores for cell in cells)]
    kept = tuple(replace(cell, scores={name: cell.scores[name] for name in shared}) for cell in cells)
    return kept, tuple(name for name in every if name not in shared)


def _read_rows(path: Path) -> list[_Row]:
    rows: list[_Row] = []
    # utf-8-sig: spreadsheets write a byte-order mark, which would otherwise become part of the first column's name.
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        try:
            header = [name.strip() for name in next(reader, [])]
            _check_header(path, header)
            for fields in reader:
                if not any(field.strip() for field in fields):
                    continue
                if len(fields) != len(header):
                    raise ValueError(
                        f"{path}, line {reader.line_num}: {len(fields)} fields, but the header has {len(header)}. "
                        "A value with a comma in it needs double quotes."
                    )
                by_name = dict(zip(header, (field.strip() for field in fields), strict=True))
                rows.append(_parse_row(path, reader.line_num, by_name))
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 text ({error.reason}). Save it as CSV in UTF-8.") from error
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num}: not readable as CSV ({error}).") from error
    if not rows:
        raise ValueError(f"{path} has a header but no results. Give one line per run.")
    return rows


def _check_header(path: Path, header: Sequence[str]) -> None:
    if not any(header):
        raise ValueError(f"{path} is empty. Expected a header with the columns {', '.join(COLUMNS)}.")
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise ValueError(
            f"{path} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}. "
            f"Found: {', '.join(header)}. Needed: {', '.join(COLUMNS)}; optional: {', '.join(OPTIONAL_COLUMNS)}."
        )
    repeated = [name for name in COLUMNS + OPTIONAL_COLUMNS if header.count(name) > 1]
    if repeated:
        raise ValueError(f"{path} has the column {repeated[0]} twice. Found: {', '.join(header)}.")


def _parse_row(path: Path, line: int, fields: Mapping[str, str]) -> _Row:
    where = f"{path}, line {line}"
    for name in ("task", "optimizer", "schedule"):
        if not fields[name]:
            raise ValueError(f"{where}: the {name} is blank. Every result needs one.")
    text = fields["budget"]
    percent = text.endswith("%")
    budget = _number(text.removesuffix("%").strip())
    if budget is None or not math.isfinite(budget):
        raise ValueError(f'{where}: budget {text!r} is not a number. Write a percentage like "5%" or epochs like "3".')
    if budget <= 0:
        raise ValueError(f"{where}: budget is {text}, but must be > 0.")
    score = math.nan if fields["score"].lower() in DIVERGED_WORDS else _number(fields["score"])
    if score is None:
        raise ValueError(
            f"{where}: score {fields['score']!r} is not a number. A run that diverged has a blank score or `diverged`."
        )
    seed_text = fields.get("seed", "")
    try:
        seed = int(seed_text) if seed_text else None
    except ValueError as error:
        raise ValueError(f"{where}: seed {seed_text!r} is not an integer.") from error
    word = fields.get("regime", "").lower()
    if word not in ("", "low", "high"):
        raise ValueError(f"{where}: unknown regime {word!r}. Known: high, low; blank follows the 25 % rule.")
    regime: Regime | None = "low" if word == "low" else "high" if word == "high" else None
    return _Row(
        line=line,
        task=fields["task"],
        optimizer=fields["optimizer"],
        budget_text=text,
        budget=budget,
        percent=percent,
        schedule=fields["schedule"],
        seed=seed,
        score=score,
        regime=regime,
    )


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _list_seeds(by_seed: Mapping[int | None, float]) -> str:
    return ", ".join("no seed" if seed is None else str(seed) for seed in by_seed)
