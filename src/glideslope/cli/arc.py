"""`glideslope arc`: experience → candidates → the one that steers best → how it does on tasks it has never seen."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.console import Console

from glideslope.cli.compare import show_document
from glideslope.cli.execution import make_executor, run
from glideslope.cli.options import (
    AsJson,
    Data,
    DeviceName,
    ExecutorName,
    Html,
    Ranks,
    RayAddress,
    RayResources,
    Workers,
    use_data,
)
from glideslope.controller.arc import Arc
from glideslope.core.policy import Policy
from glideslope.core.spec import parse_plan, split_texts
from glideslope.report.document import Document
from glideslope.report.page import Provenance, Section
from glideslope.report.tables import Table
from glideslope.studies.arc import evaluation, evaluation_report, experience, selection
from glideslope.studies.arc import frequency as often
from glideslope.studies.arc.selection_report import selection_table
from glideslope.studies.provenance import provenance
from glideslope.studies.setting import Setting
from glideslope.trials.executors import Executor
from glideslope.trials.planner import Cell
from glideslope.trials.record import Record
from glideslope.trials.store import Store

if TYPE_CHECKING:
    import polars as pl

arc = typer.Typer(help="The autonomous learning-rate controller: make one of your own, and see what it can do.")

Folder = Annotated[Path, typer.Option(help="Folder of all steps; run again to go on.")]
OUT = Path("runs/arc")
EXPERIENCE, TABLE, CANDIDATES, SELECTION, SELECTED, EVALUATION, FREQUENCY = (
    "journeys",
    "experience.parquet",
    "candidates",
    "selection",
    "arc.safetensors",
    "evaluation",
    "frequency",
)


@arc.command()
def collect(
    out: Folder = OUT,
    journeys: Annotated[int, typer.Option(help="How many runs; each gives nine decisions.", min=1)] = 600,
    families: Annotated[str, typer.Option(help="Tasks, taken in turn.")] = ",".join(experience.FAMILIES),
    seed: Annotated[int, typer.Option(help="Of the draws of optimizer, rate and length.", min=0)] = 0,
    hours: Annotated[float | None, typer.Option(help="Begin no run after so long.")] = None,
    have: Annotated[Path | None, typer.Option(help="A table of experience to go on from.")] = None,
    data: Data = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Gather experience: at every turning of a run, try raising, keeping and lowering the rate."""
    # Here and in `train` and `select`: with polars they take a sixth of a second that other verbs need not wait.
    from glideslope.studies.arc import dataset
    from glideslope.studies.arc.collection import collect as make_journeys

    use_data(data)
    wanted = experience.itinerary(split_texts(families), journeys, seed)
    if have is not None:
        dataset.scatter(dataset.read(have), out / EXPERIENCE)
    console, began = Console(stderr=True, highlight=False), time.time()
    done = [sum(dataset.is_there(out / EXPERIENCE, journey) for journey in wanted)]

    def tell(journey: experience.Journey) -> None:
        done[0] += 1
        console.print(f"{done[0]}/{len(wanted)} journeys, {time.time() - began:.0f} s: {journey.family}")

    make_journeys(wanted, out / EXPERIENCE, workers, None if hours is None else began + 3600 * hours, tell)
    table = dataset.gather(out / EXPERIENCE)
    table.write_parquet(out / TABLE, compression="zstd", compression_level=19)
    document = Document("Experience", f"{out / TABLE}.", [Section("Decisions", [_experience(table)])], {})
    show_document(document, as_json, None)


def _experience(table: pl.DataFrame) -> Table:
    decisions = table.filter(table["label"] >= 0)
    rows = []
    for family in [*sorted(set(decisions["family"])), "all"]:
        mine = decisions if family == "all" else decisions.filter(decisions["family"] == family)
        labels = [mine[column].to_numpy() for column in ("corrected_label", "label")]
        shares = [" / ".join(f"{100 * (column == label).mean():.0f}" for column in labels) for label in range(3)]
        rows.append((family, str(mine["journey"].n_unique()), str(len(mine)), *shares))
    note = "Shares in %: corrected labels / labels as they came out."
    return Table(
        "Decisions by family", ("family", "journeys", "decisions", "raise", "keep", "lower"), tuple(rows), note
    )


@arc.command()
def train(
    out: Folder = OUT,
    table: Annotated[Path | None, typer.Option(help="Experience. Default: what `collect` left in --out.")] = None,
    count: Annotated[int, typer.Option("--candidates", help="How many.", min=1)] = 10,
    epochs: Annotated[int, typer.Option(help="Passes over the data.", min=1)] = 300,
    rate: Annotated[float, typer.Option(help="Of Adam.")] = 1e-4,
    schedule: Annotated[str, typer.Option(help="Of that rate.")] = "constant",
    drop_validation: Annotated[float, typer.Option(help="Probability that an example's validation is zeroed.")] = 0.5,
    held_out: Annotated[str, typer.Option(help="Families for the offline metrics.")] = ",".join(experience.HELD_OUT),
    workers: Workers = None,
) -> None:
    """Train candidates on the experience, one per process."""
    from glideslope.studies.arc import candidates as trained
    from glideslope.studies.arc.training import Recipe

    recipe = Recipe(drop_validation=drop_validation, epochs=epochs, rate=rate, schedule=schedule)
    console, began = Console(stderr=True, highlight=False), time.time()
    trained.train_all(
        table or out / TABLE,
        trained.briefs(count, recipe),
        out / CANDIDATES,
        split_texts(held_out),
        workers,
        lambda brief: console.print(f"candidate {brief.number}: {time.time() - began:.0f} s", soft_wrap=True),
    )


@arc.command()
def select(
    out: Folder = OUT,
    task: Annotated[str, typer.Option(help="The proxy.")] = selection.TASK,
    optimizer: Annotated[str, typer.Option(help="One.")] = selection.OPTIMIZER,
    runs: Annotated[int, typer.Option(help="Of every candidate from every rate.", min=1)] = 5,
    data: Data = None,
    device: DeviceName = "cpu",
    executor: ExecutorName = "population",
    workers: Workers = None,
    ray_address: RayAddress = None,
    ray_resources: RayResources = None,
    ranks: Ranks = None,
    as_json: AsJson = False,
) -> None:
    """Let every candidate steer a proxy task; the best mean over all runs decides."""
    from glideslope.studies.arc.candidates import candidates

    use_data(data)
    question = selection.Question(
        Setting.of(task, (optimizer,)), candidates(out / CANDIDATES), optimizer, num_runs=runs
    )
    facts = provenance()
    cells = list(selection.cells(question).values())
    engine = make_executor(executor, workers, ray_address, ray_resources, ranks, device)
    records = _records(cells, out / SELECTION, ("arc select", question.to_json(), facts), engine)
    found = selection.answer(question, records, np.random.default_rng(0))
    if found.winner is not None:
        shutil.copyfile(found.winner.weights, out / SELECTED)
    show_document(_selection(found, facts), as_json, None)


def _selection(found: selection.Answer, facts: dict[str, str]) -> Document:
    lead = "No candidate has all its runs: run the same command again."
    if found.winner is not None:
        lead = (
            f"{found.winner.label} steers best. Copied to {SELECTED}; features {found.winner.variant!r}: go on with "
            f"`glideslope arc evaluate --weights … --variant {found.winner.variant}`."
        )
    left_out = [f"Failed, and left out: {label}: {error.strip().splitlines()[-1]}" for label, error in found.failed]
    left_out += [f"Unfinished, and left out: {label}." for label in found.unfinished]
    tables = selection_table(found)
    data = {"winner": found.winner and found.winner.sha256, "tied": list(found.tied), "provenance": facts}
    sections = [Section("Candidates", [*left_out, *tables]), Section("", [Provenance(facts)])]
    return Document("Selection", lead, sections, data)


@arc.command()
def frequency(
    tasks: Annotated[list[str] | None, typer.Argument(help="Default: tasks that no other step has seen.")] = None,
    out: Folder = OUT,
    weights: Annotated[str, typer.Option(help='"pretrained", or a file.')] = "pretrained",
    variant: Annotated[str, typer.Option(help="Of the features that those weights were trained with.")] = "code",
    seeds: Annotated[int, typer.Option(help="Runs of everything.", min=1)] = 5,
    data: Data = None,
    executor: ExecutorName = "population",
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """How often should it decide? Every quarter of an epoch to every sixth one, against a constant rate."""
    use_data(data)
    settings = tuple(Setting.of(name, (evaluation.OPTIMIZER,)) for name in tasks or evaluation.TASKS)
    base = evaluation.Question(settings, num_seeds=seeds)
    asked = often.questions(base, lambda every: Arc(every, variant, weights), often.FREQUENCIES)
    facts = provenance()
    cells = [cell for question in asked.values() for cell in evaluation.cells(question).values()]
    engine = make_executor(executor, workers)
    records = _records(cells, out / FREQUENCY, ("arc frequency", base.to_json(), facts), engine)
    answers = {every: evaluation.answer(question, records) for every, question in asked.items()}
    tables = often.frequency_tables(answers)
    lead = f"{Arc(1, variant, weights)}, Adam; one seed has one initial weights and one order in all rows."
    sections = [Section("How often", list(tables)), Section("", [Provenance(facts)])]
    show_document(Document("How often to decide", lead, sections, {"provenance": facts}), as_json, None)


@arc.command()
def evaluate(
    tasks: Annotated[list[str] | None, typer.Argument(help="Default: tasks that no other step has seen.")] = None,
    out: Folder = OUT,
    weights: Annotated[str, typer.Option(help='"pretrained", or a file.')] = "pretrained",
    variant: Annotated[str, typer.Option(help="Of the features that those weights were trained with.")] = "code",
    published: Annotated[Path | None, typer.Option(help="The published controller's weights, to stand beside.")] = None,
    every: Annotated[int, typer.Option(help="Epochs between decisions.", min=1)] = evaluation.EVERY,
    optimizer: Annotated[str, typer.Option(help="One, of all but the line search.")] = evaluation.OPTIMIZER,
    epochs: Annotated[int, typer.Option(help="Of a run.", min=3)] = evaluation.EPOCHS,
    seeds: Annotated[int, typer.Option(help="Runs of everything.", min=1)] = 5,
    extended: Annotated[bool, typer.Option("--extended", help="Initial rates over five orders of magnitude.")] = False,
    data: Data = None,
    device: DeviceName = "cpu",
    executor: ExecutorName = "population",
    workers: Workers = None,
    ray_address: RayAddress = None,
    ray_resources: RayResources = None,
    ranks: Ranks = None,
    as_json: AsJson = False,
    html: Html = None,
) -> None:
    """Controllers, rules and schedules from rates too low, right and too high, counted in both ways."""
    use_data(data)
    controllers = {"arc": Arc(every, variant, weights)}
    if published is not None:
        controllers["published arc"] = Arc.from_file(published, every)
    question = evaluation.Question(
        tuple(Setting.of(name, (optimizer,)) for name in tasks or evaluation.TASKS),
        tuple(
            (f"{prefix}{name}", Policy(parse_plan(plan), controller))
            for prefix, plan in (("", "constant"), ("rex | ", "rex"))
            for name, controller in controllers.items()
        ),
        optimizer=optimizer,
        epochs=epochs,
        rate_factors=evaluation.EXTENDED_RATE_FACTORS if extended else evaluation.RATE_FACTORS,
        num_seeds=seeds,
    )
    facts = provenance()
    cells = list(evaluation.cells(question).values())
    engine = make_executor(executor, workers, ray_address, ray_resources, ranks, device)
    records = _records(cells, out / EVALUATION, ("arc evaluate", question.to_json(), facts), engine)
    show_document(evaluation_report.document(evaluation.answer(question, records), facts), as_json, html)


def _records(
    cells: Sequence[Cell],
    folder: Path,
    asked: tuple[str, Mapping[str, Any], dict[str, str]],
    executor: Executor,
) -> dict[str, Record]:
    """Whole records of all trials that the cells want: what is `asked` of the store in the folder."""
    with executor as engine, Store(folder) as store:
        store.ask(*asked)
        run(cells, store, engine)
        return store.records()
