"""`glideslope convergence`: budgeted training as Li et al. look at it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from glideslope.cli.compare import read_share, show_document
from glideslope.cli.execution import make_executor, run
from glideslope.cli.options import (
    AsJson,
    Data,
    DeviceName,
    ExecutorName,
    Html,
    Out,
    Precision,
    Ranks,
    RayAddress,
    RayResources,
    Seeds,
    TuningSeeds,
    Workers,
    use_data,
)
from glideslope.core.spec import split_texts
from glideslope.report.document import Document
from glideslope.studies import convergence as study
from glideslope.studies import convergence_report
from glideslope.studies.provenance import provenance
from glideslope.studies.setting import Setting
from glideslope.trials.record import Record
from glideslope.trials.shelf import Shelf
from glideslope.trials.store import Store
from glideslope.trials.summary import Selection

DEFAULT_TASKS = ("mnist1d-mlp",)


def convergence(
    tasks: Annotated[
        list[str] | None, typer.Argument(help="Names, or my_package.module:task. Default: mnist1d-mlp.")
    ] = None,
    out: Out = Path("runs/convergence"),
    schedules: Annotated[
        str, typer.Option(help="Schedules in all their forms, linear among them; a constant rate is always there.")
    ] = ",".join(study.SCHEDULES),
    optimizers: Annotated[
        str, typer.Option(help="The first one under every schedule, the others at a constant rate.")
    ] = ",".join(study.OPTIMIZERS),
    budgets: Annotated[str, typer.Option(help="Shares of the maximum; the last one is the full budget.")] = (
        "1%,5%,10%,25%,50%,100%"
    ),
    seeds: Seeds = 3,
    tuning_seeds: TuningSeeds = 1,
    data: Data = None,
    precision: Precision = "float32",
    device: DeviceName = "cpu",
    executor: ExecutorName = "population",
    workers: Workers = None,
    ray_address: RayAddress = None,
    ray_resources: RayResources = None,
    ranks: Ranks = None,
    as_json: AsJson = False,
    html: Html = None,
) -> None:
    """Does the gradient vanish with the rate, and does it pay to know the budget? Figures of Li et al. 2020."""
    use_data(data)
    names, chosen = tuple(dict.fromkeys(tasks or DEFAULT_TASKS)), split_texts(optimizers)
    question = study.Question(
        tuple(Setting.of(name, chosen) for name in names),
        split_texts(schedules),
        chosen,
        tuple(sorted(read_share(text) for text in split_texts(budgets))),
        seeds,
        tuning_seeds,
        precision,
    )
    facts = provenance() | question.facts
    with make_executor(executor, workers, ray_address, ray_resources, ranks, device) as engine, Store(out) as store:
        store.ask("convergence", question.to_json(), facts)
        records = run(study.cells(question).values(), store, engine)
        document = document_of(question, records, store, facts)
    show_document(document, as_json, html)


def document_of(
    question: study.Question, summaries: Mapping[str, Record], store: Shelf, facts: Mapping[str, str]
) -> Document:
    """The report, with the series of the runs that are watched read from the store."""
    records = dict(summaries)
    for trial_id in study.to_watch(question, summaries):
        records |= store.records(Selection(trial=trial_id))
    return convergence_report.document(study.answer(question, records), facts)
