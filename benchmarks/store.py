"""How a store of 100,000 trials is to work with: `python benchmarks/store.py [--trials 100000] [--folder DIR]`.

Makes up a study of that many trials, shaped like `glideslope compare`'s: tasks × optimizers × budgets × schedules,
rates tuned, series as long as those of real trials. Then measures, each in a process of its own, wall and CPU seconds,
medians over rounds:

- read: the summaries of all trials
- plan: open the store, read what is known, ask every cell what is missing: nothing is
- plan, missing: the same where 1 % is, and has to be queued
- answer: open to look, read, the answer of the study
- report: the answer and the document with its tables, statistics and figures, as `glideslope report` prints it
- list, filter, export: the newest 50 trials; those that failed; one row per trial as Parquet
- put, claim: 200 finished trials, each in its transaction; 200 populations of 64 trials

The first round may have to read from the disk; the last line times a loop of Python, to compare machines by.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from glideslope.cli.export import export
from glideslope.core.spec import canonical
from glideslope.studies import compare, compare_report
from glideslope.studies.setting import Setting
from glideslope.trials.executors import Populations
from glideslope.trials.planner import Progress, run_study
from glideslope.trials.record import Cost, Evaluation, Record, Series
from glideslope.trials.run import SERIES_LENGTH
from glideslope.trials.shelf import StoreView
from glideslope.trials.store import FILE, Store
from glideslope.trials.summary import Selection, row_of
from glideslope.trials.task import Metric
from glideslope.trials.trial import TaskRef, TrialSpec

OPTIMIZERS = ("sgdm", "adam", "adamw", "rmsprop")
BUDGETS = (0.01, 0.05, 0.10, 0.25, 0.50, 1.0)
VERSIONS = {"glideslope": "0.1.0", "python": "3.11.7", "torch": "2.13.0+cpu", "numpy": "2.4.6"}
MISSING = "plan, missing"
MISSING_SHARE = 3 / 256
REPEATS = 200


def question(num_trials: int) -> compare.Question:
    """A comparison of about that many trials. Seeds make up what tasks do not."""
    tasks = 12
    seeds = max(1, round(num_trials / (tasks * len(OPTIMIZERS) * len(BUDGETS) * 9) - 8))
    settings = tuple(
        Setting(
            TaskRef(f"made-up-{number}", 1, "{}", f"{number:064x}"),
            Metric("error", unit="%"),
            maximum_epochs=50,
            updates_per_epoch=40,
            whole_epochs=False,
            rates=tuple((optimizer, 0.1) for optimizer in OPTIMIZERS),
        )
        for number in range(tasks)
    )
    return compare.Question(settings, optimizers=OPTIMIZERS, budgets=BUDGETS, num_seeds=seeds, num_tuning_seeds=2)


def made_up(spec: TrialSpec) -> Record:
    """A record that makes tuning end after a few rates, without its series."""
    luck = int(spec.trial_id[:8], 16) / 2**32
    place = f"{spec.task.name} {spec.optimizer} {spec.policy} {spec.updates}"
    best = hashlib.sha256(place.encode()).digest()[0] % 3 - 1
    metric = 10 + 3 * (math.log(spec.rate / 0.1, 3) - best) ** 2 + luck
    looks = tuple(
        Evaluation(update, metric / 10, metric) for update in range(spec.eval_every, spec.updates + 1, spec.eval_every)
    ) or (Evaluation(spec.updates, metric / 10, metric),)
    return Record(
        spec.trial_id, spec.trajectory_id, "finished", Series((), (), ()), looks, replace(looks[-1], metric=metric + 1),
        (), Cost(0.3, 0.1, spec.updates), {"executor": "population", "device": "cpu", "K": 64, "method": "baddbmm"},
        VERSIONS,
    )  # fmt: skip


def make(folder: Path, num_trials: int) -> int:
    """Fill a store; returns how many trials it has."""
    asked = question(num_trials)
    series = {updates: series_text(updates) for updates in {spec.updates for spec in first_specs(asked)}}
    records: dict[str, Record] = {}
    with Store(folder) as store:
        store.ask("compare", asked.to_json(), {"command": "made up", "commit": "-", "hardware": "-", "versions": "-"})
        with store._transaction() as connection:
            for cell in compare.cells(asked).values():
                while missing := cell.next_specs(records):
                    for spec in missing:
                        record = made_up(spec)
                        records[spec.trial_id] = record.summary
                        text = canonical(record.to_json())
                        whole = text.replace(canonical(record.to_json()["series"]), series[spec.updates], 1)
                        row = (spec.trial_id, spec.trajectory_id, "finished", canonical(spec.to_json()), whole, 1e9)
                        connection.execute("INSERT INTO trials VALUES (?, ?, ?, ?, ?, ?)", row)
                        store._put_summary(row_of(spec, record, 1e9))
    return len(records)


def first_specs(asked: compare.Question) -> list[TrialSpec]:
    return [cell.next_specs({})[0] for cell in compare.cells(asked).values()]


def series_text(updates: int) -> str:
    """A series as long as that of a trial."""
    stride = math.ceil(updates / SERIES_LENGTH)
    rows = list(range(0, updates, stride))
    values = np.random.default_rng(updates).normal(size=(2, len(rows)))
    return canonical({"probes": {}, "rate": values[0].tolist(), "train_loss": values[1].tolist(), "updates": rows})


class Planned(Exception):  # noqa: N818 - no error
    """Planning is over: a trial would be waited for."""


def plan(folder: Path) -> str:
    """What happens between the start of `compare` and its first trial."""

    def over(progress: Progress) -> None:
        raise Planned(progress.trials_known)

    with Store(folder, create=False) as store, Populations() as executor:
        asked = compare.Question.from_json(store.last_question().question)
        try:
            run_study(compare.cells(asked).values(), store, executor, over)
        except Planned as found:
            return f"{found} missing"
    raise RuntimeError("the study has run")


def read(folder: Path) -> str:
    with StoreView(folder) as store:
        return f"{len(store.summaries())} trials"


def answer(folder: Path) -> str:
    return f"{found(folder).num_trials} trials"


def found(folder: Path) -> compare.Answer:
    with StoreView(folder) as store:
        asked, records = store.last_question(), store.summaries()
    return compare.answer(compare.Question.from_json(asked.question), records)


def report(folder: Path) -> str:
    text = compare_report.document(found(folder), {"command": "made up"}).to_text()
    return f"{len(text.splitlines())} lines"


def listing(folder: Path) -> str:
    with StoreView(folder) as store:
        return f"{len(store.rows(newest=50))} of {store.count()}"


def failed(folder: Path) -> str:
    with StoreView(folder) as store:
        return f"{store.count(Selection(status='failed'))} failed"


def table(folder: Path) -> str:
    export(folder, folder / "trials.parquet")
    return f"{(folder / 'trials.parquet').stat().st_size / 2**20:.0f} MB"


def put(folder: Path) -> str:
    """Records of 256 updates, into a copy of none: what is put is new."""
    with Store(folder, create=False) as store:
        (key, spec), *_ = store.specs(Selection(trial="00")).items()
        record = store.records(Selection(trial=key))[key]
        for number in range(REPEATS):
            name = f"put-{time.time_ns()}-{number}"
            store.put(spec, replace(record, trial_id=name))
            store._connection.execute("DELETE FROM trials WHERE trial_id = ?", (name,))
            store._connection.execute("DELETE FROM summaries WHERE trial_id = ?", (name,))
    return f"{REPEATS} times"


def claim(folder: Path) -> str:
    with Store(folder, create=False) as store:
        for number in range(REPEATS):
            store.claim([f"claim-{number}-{member}" for member in range(64)], 0.0)
    return f"{REPEATS} times 64"


MEASURES: Mapping[str, Callable[[Path], str]] = {
    "read": read,
    "plan": plan,
    "answer": answer,
    "report": report,
    "list": listing,
    "filter": failed,
    "export": table,
    "put": put,
    "claim": claim,
}


def measure(name: str, folder: Path) -> None:
    """One measurement, in this process; prints wall seconds, CPU seconds and what was found."""
    wall, cpu = time.perf_counter(), time.process_time()
    what = MEASURES[name](folder)
    print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu, what]))


def measured(name: str, folder: Path) -> tuple[float, float, str]:
    command = [sys.executable, __file__, "--folder", str(folder), "--measure", name]
    line = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    wall, cpu, what = json.loads(line)
    return wall, cpu, what


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="a store made before; left out: one is made and removed")
    parser.add_argument("--measure", choices=MEASURES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure, arguments.folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        if not (folder / FILE).exists():
            started = time.perf_counter()
            made = make(folder, arguments.trials)
            size = (folder / FILE).stat().st_size / 2**20
            print(f"{made} trials made in {time.perf_counter() - started:.0f} s: {size:.0f} MB", flush=True)
        print("              wall s (range)            CPU s    found")
        rounds: dict[str, list[tuple[float, float, str]]] = {name: [] for name in [*MEASURES, MISSING]}
        for _ in range(arguments.rounds):
            for name in MEASURES:
                rounds[name].append(measured(name, folder))
            mark(folder, MISSING_SHARE)
            rounds[MISSING].append(measured("plan", folder))
            mark(folder, 0.0)
        for name, results in rounds.items():
            wall, cpu, what = zip(*results, strict=True)
            spread = f"({min(wall):.2f} to {max(wall):.2f})"
            print(f"{name:13} {statistics.median(wall):6.2f} {spread:18} {statistics.median(cpu):8.2f}    {what[0]}")
    began, total = time.process_time(), 0
    for number in range(10**7):
        total += number
    print(f"10,000,000 additions in a loop: {time.process_time() - began:.2f} CPU s")


def mark(folder: Path, share: float) -> None:
    """Have a share of the trials count as missing."""
    with Store(folder, create=False) as store:
        store._connection.execute("DELETE FROM again")
        store._connection.execute(
            "INSERT INTO again SELECT trial_id FROM summaries WHERE substr(trial_id, 1, 2) < ?",
            (f"{round(256 * share):02x}",),
        )


if __name__ == "__main__":
    main()
