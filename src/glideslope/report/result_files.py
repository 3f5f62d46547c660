"""Files of results: a CSV with one run per line, and the JSON of a comparison."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from glideslope.report.results import Regime, Result, percent

COLUMNS = ("task", "optimizer", "budget", "schedule", "score")
OPTIONAL_COLUMNS = ("seed", "regime")
DIVERGED_WORDS = ("", "nan", "diverged")


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
