"""`glideslope rank results.csv`: the REX paper's Table 1 for anyone's own results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from glideslope.report import published
from glideslope.report.coverage import measure_coverage
from glideslope.report.ranking import expected_ranking, nominal_ranking
from glideslope.report.result_files import read_csv, read_report
from glideslope.report.results import Result, group, in_common
from glideslope.report.study_tables import expected_json, expected_table, ranking_table

BOOTSTRAP_SEED = 0


def rank(
    results: Annotated[
        list[Path],
        typer.Argument(
            help="CSV with task,optimizer,budget,schedule,score and optional seed,regime; or the JSON of `compare`. Of "
            "several files, the schedules that all have are ranked."
        ),
    ],
    higher_is_better: Annotated[
        bool, typer.Option("--higher-is-better", help="Scores of a CSV are accuracies, not errors or losses.")
    ] = False,
    merge: Annotated[
        list[str] | None,
        typer.Option("--merge", help="NAME=A,B: rank A and B as one, the better score of each cell. May be repeated."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Rank schedules: how often each is Top-1 and Top-3 at low, high and all budgets."""
    merges = parse_merges(merge or [])
    runs: list[Result] = []
    directions: dict[str, bool] = {}
    for path in results:
        found, of_tasks = read_report(path) if path.suffix == ".json" else (read_csv(path), {})
        runs += found
        directions |= {result.task: higher_is_better for result in found} | of_tasks
    cells = group(runs)
    left_out: tuple[str, ...] = ()
    if len(results) > 1:
        cells, left_out = in_common(cells)
    ranking = nominal_ranking(cells, higher_is_better=directions, merge=merges)
    every = set(cells[0].schedules)
    paired = all(cell.paired and set(cell.schedules) == every and len(cell.seeds) > 1 for cell in cells)
    document = ranking.to_json()
    text = [ranking_table(ranking).to_text()]
    expected = None
    if paired:
        generator = np.random.default_rng(BOOTSTRAP_SEED)
        expected = expected_ranking(cells, generator, higher_is_better=directions, merge=merges)
        coverage = measure_coverage(cells, generator, higher_is_better=directions, merge=merges)
        document["expected"] = expected_json(expected, coverage)
        text.append(expected_table(expected, coverage).to_text())
    else:
        text.append("Expected Top-k is left out: it needs 2 seeds or more, the same for all schedules, in every cell.")
    if set(published.TOP) <= set(ranking.counts):
        beside = published.top_table(ranking, expected)
        document["beside_the_paper"] = beside.to_json()
        text.append(beside.to_text())
    if left_out:
        document["left_out"] = list(left_out)
        text.append(f"Left out, for not all files have them: {', '.join(left_out)}.")
    typer.echo(json.dumps(document, indent=2, allow_nan=False) if as_json else "\n\n".join(text))


def parse_merges(texts: list[str]) -> dict[str, tuple[str, ...]]:
    """Read merges such as "step=step,plateau".

    >>> parse_merges(["step=step,plateau"])
    {'step': ('step', 'plateau')}
    """
    merges: dict[str, tuple[str, ...]] = {}
    for text in texts:
        name, separator, members = text.partition("=")
        parts = tuple(part.strip() for part in members.split(","))
        if not (separator and name.strip() and all(parts)):
            raise ValueError(f"cannot read the merge {text!r}. Write NAME=A,B, for example step=step,plateau.")
        if name.strip() in merges:
            raise ValueError(f"merge {name.strip()!r} is given twice. Put all its members into one --merge.")
        merges[name.strip()] = parts
    return merges
