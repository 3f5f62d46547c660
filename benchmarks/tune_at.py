"""What it costs, and what it saves, to tune every rate at one budget and to reuse it at the others.

    python benchmarks/tune_at.py --out runs/tune_at       # three minutes on 2 cores; run again to go on

The default comparison of two embedded tasks, with rates tuned at each budget, against the same with rates tuned at one
budget alone. Per row: updates of the whole study; and over the cells of the other budgets, in how many the rate is the
same, by how much a mean score is worse, in percent, and Kendall's tau of the schedules within each (task, optimizer,
budget), median and quartiles. The last row is the yardstick: the rates of the first, reported on three other seeds.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from glideslope.report.rank_correlation import kendall
from glideslope.report.results import percent
from glideslope.report.tables import Table
from glideslope.studies import compare
from glideslope.studies.compare import PAPER_SCHEDULES, Place
from glideslope.studies.setting import Setting
from glideslope.trials import planner
from glideslope.trials.executors import Populations
from glideslope.trials.store import Store

TASKS = ("mnist1d-mlp", "digits-autoencoder")
OPTIMIZERS = ("sgdm", "adam")
SEEDS = 3
TUNED_AT = (0.01, 0.05, 0.10, 0.25, 1.0)


def means(answer: compare.Answer, seeds: range) -> dict[Place, float]:
    """Mean score of every cell over some of its seeds, lower is better; inf where one diverged."""
    scores = defaultdict(list)
    for result in answer.results:
        if result.seed in seeds:
            score = result.score if math.isfinite(result.score) else math.inf
            scores[Place(result.task, result.optimizer, result.fraction, result.schedule)].append(score)
    return {place: float(np.mean(found)) for place, found in scores.items()}


def taus(first: Mapping[Place, float], second: Mapping[Place, float]) -> list[float]:
    """Kendall's tau of the schedules in every (task, optimizer, budget)."""
    rows = defaultdict(list)
    for place in first:
        rows[place[:3]].append((first[place], second[place]))
    found = [float(kendall(*(np.array(side)[None] for side in zip(*row, strict=True)))[0]) for row in rows.values()]
    return [tau for tau in found if not math.isnan(tau)]


def row(name: str, updates: str, same: float, before: Mapping[Place, float], after: Mapping[Place, float]) -> list[str]:
    """A line of the table: how much worse `after` is than `before`, cell by cell."""
    worse = [100 * (after[place] / before[place] - 1) for place in before if math.isfinite(before[place])]
    middle, most = np.quantile(worse, (0.5, 0.9))
    low, tau, high = np.quantile(taus(before, after), (0.25, 0.5, 0.75))
    return [
        name,
        updates,
        f"{100 * same:.0f} %",
        f"{middle:+.1f}",
        f"{most:+.1f}",
        f"{tau:.2f} ({low:.2f} to {high:.2f})",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/tune_at"))
    out = parser.parse_args().out
    settings = tuple(Setting.of(name, OPTIMIZERS) for name in TASKS)
    question = compare.Question(settings, PAPER_SCHEDULES, num_seeds=SEEDS, uncounted=())
    with Populations() as executor, Store(out) as store:

        def answered(question: compare.Question) -> compare.Answer:
            records = planner.run_study(compare.cells(question).values(), store, executor)
            return compare.answer(question, records)

        each = answered(question)
        ours, others = range(1, SEEDS + 1), range(SEEDS + 1, 2 * SEEDS + 1)
        before = means(each, ours)
        rows = [["each budget", f"{each.num_updates:,}", "", "", "", ""]]
        for share in TUNED_AT:
            once = answered(replace(question, tune_at=share))
            places = [place for place in each.choices if place.budget != share]  # there, both are the same trials
            same = [math.isclose(once.choices[place].rate, each.choices[place].rate) for place in places]
            updates = f"{once.num_updates:,} ({once.num_updates / each.num_updates:.0%})"
            elsewhere = {place: before[place] for place in places}
            rows.append(row(percent(share), updates, float(np.mean(same)), elsewhere, means(once, ours)))
        reseeded = means(answered(replace(question, num_seeds=2 * SEEDS)), others)
        rows.append(row("each budget, other seeds", "", 1.0, before, reseeded))
    columns = ("tuned at", "updates", "same rate", "worse, %: median", "90th percentile", "Kendall's tau (quartiles)")
    print(Table("Rates tuned once", columns, tuple(map(tuple, rows)), "").to_text())


if __name__ == "__main__":
    main()
