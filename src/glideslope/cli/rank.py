"""`glideslope rank results.csv`: the REX paper's Table 1 for anyone's own results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from glideslope.report.coverage import measure_coverage
from glideslope.report.ranking import expected_ranking, nominal_ranking
from glideslope.report.results import group, read_csv
from glideslope.report.study_tables import expected_json, expected_table, ranking_table

BOOTSTRAP_SEED = 0


def rank(
    results: Annotated[
        Path, typer.Argument(help="CSV with task,optimizer,budget,schedule,score and optional seed,regime.")
    ],
    higher_is_better: Annotated[
        bool, typer.Option("--higher-is-better", help="The score is an accuracy, not an error or a loss.")
    ] = False,
    merge: Annotated[
        list[str] | None,
        typer.Option("--merge", help="NAME=A,B: rank A and B as one, the better score of each cell. May be repeated."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Rank schedules: how often each is Top-1 and Top-3 at low, high and all budgets."""
    merges = parse_merges(merge or [])
    cells = group(read_csv(results))
    ranking = nominal_ranking(cells, higher_is_better=higher_is_better, merge=merges)
    every = set(cells[0].schedules)
    paired = all(cell.paired and set(cell.schedules) == every and len(cell.seeds) > 1 for cell in cells)
    document = ranking.to_json()
    text = [ranking_table(ranking).to_text()]
    if paired:
        generator = np.random.default_rng(BOOTSTRAP_SEED)
        expected = expected_ranking(cells, generator, higher_is_better=higher_is_better, merge=merges)
        coverage = measure_coverage(cells, generator, higher_is_better=higher_is_better, merge=merges)
        document["expected"] = expected_json(expected, coverage)
        text.append(expected_table(expected, coverage).to_text())
    else:
        text.append("Expected Top-k is left out: it needs 2 seeds or more, the same for all schedules, in every cell.")
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
