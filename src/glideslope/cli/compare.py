"""`glideslope compare`: the protocol of the REX paper on any tasks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

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
from glideslope.core.value import unknown
from glideslope.report.document import Document
from glideslope.studies import compare as study
from glideslope.studies import sampling, sensitivity
from glideslope.studies.kinds import KINDS
from glideslope.studies.provenance import provenance
from glideslope.studies.question import StudyQuestion
from glideslope.studies.setting import Setting
from glideslope.studies.tuning import REACH
from glideslope.trials.record import Record
from glideslope.trials.store import Store

DEFAULT_TASKS = ("mnist1d-mlp", "digits-autoencoder")


def compare(
    tasks: Annotated[
        list[str] | None,
        typer.Argument(help="Names, or my_package.module:task. Default: mnist1d-mlp digits-autoencoder."),
    ] = None,
    out: Out = Path("runs/compare"),
    schedules: Annotated[
        str | None, typer.Option(help='Rows, e.g. "rex,rex+warmup(10%),one_cycle". Default: the paper\'s eight.')
    ] = None,
    optimizers: Annotated[str | None, typer.Option(help="E.g. sgdm,adam,schedulefree:SGDScheduleFree.")] = None,
    budgets: Annotated[str | None, typer.Option(help="Shares of the maximum, e.g. 1%,10%,100%.")] = None,
    seeds: Seeds = 3,
    tuning_seeds: TuningSeeds = 1,
    tune_at: Annotated[
        str | None,
        typer.Option(help="Tune every rate at this share of the maximum alone, e.g. 5%, and reuse it at all budgets."),
    ] = None,
    sampling_rates: Annotated[
        bool, typer.Option("--sampling", help="The paper's Table 2 instead: profile × sampling rate.")
    ] = False,
    delays: Annotated[
        str | None, typer.Option(help="The paper's Figure 2 instead: linear delayed by shares, e.g. 0.25,0.5,0.75.")
    ] = None,
    reach: Annotated[
        int | None,
        typer.Option(
            "--sensitivity",
            help="The paper's Figure 3 instead: every schedule at so many rates on either side of the default, a "
            "factor of 3 apart.",
        ),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Schedule the others are compared with. Default: linear.")
    ] = None,
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
    """Compare schedules over optimizers, budgets and seeds; tune rates honestly; print the tables."""
    use_data(data)
    kind = "sampling" if sampling_rates else "sensitivity" if reach is not None else "compare"
    _check_mode(sampling_rates, reach, tune_at, baseline, schedules, delays)
    names = tuple(dict.fromkeys(tasks or DEFAULT_TASKS))
    shares = tuple(sorted(read_share(text) for text in split_texts(budgets))) if budgets is not None else None
    tuned_at = None if tune_at is None else read_share(tune_at)
    chosen = split_texts(optimizers if optimizers is not None else "sgdm" if sampling_rates else "sgdm,adam")
    uncounted = (study.WARMED_REX,) if kind == "compare" and schedules is None and delays is None else ()
    if delays is not None:
        shares_of_delay = [read_share(text) for text in split_texts(delays)]
        rows = ("linear", *(f"delayed_linear({share:g})" for share in shares_of_delay), "rex")
    elif schedules is not None:
        rows = split_texts(schedules)
    else:
        rows = (*study.PAPER_SCHEDULES, *uncounted)
    for text in rows:
        study.Row.parse(text)  # a misspelt schedule is told before any data is loaded
    check_baseline(baseline, rows)
    settings = _settings(names, chosen)
    question: StudyQuestion
    if kind == "sampling":
        question = sampling.Question(
            settings,
            chosen,
            sampling.BUDGETS if shares is None else shares,
            num_seeds=seeds,
            num_tuning_seeds=tuning_seeds,
            precision=precision,
        )
    elif reach is not None:
        budgets_swept = sensitivity.BUDGETS if shares is None else shares
        question = sensitivity.Question(settings, rows, chosen, budgets_swept, reach, seeds, precision)
    else:
        question = study.Question(
            settings,
            rows,
            chosen,
            study.PAPER_BUDGETS if shares is None else shares,
            seeds,
            tuning_seeds,
            uncounted,
            precision,
            tuned_at,
        )
    facts = provenance() | question.facts
    found = KINDS[kind]
    with make_executor(executor, workers, ray_address, ray_resources, ranks, device) as engine, Store(out) as store:
        store.ask(kind, question.to_json(), facts)
        records = run(found.cells(question).values(), store, engine)
    show_document(document_of(kind, question, records, facts, baseline), as_json, html)


def _check_mode(
    sampling_rates: bool,
    reach: int | None,
    tune_at: str | None,
    baseline: str | None,
    schedules: str | None,
    delays: str | None,
) -> None:
    """Raise where options belong to studies of different kinds."""
    if sampling_rates and reach is not None:
        raise ValueError("--sampling and --sensitivity are two studies; ask for one at a time.")
    if reach is not None and not 1 <= reach <= REACH:
        raise ValueError(f"--sensitivity is {reach}, but must be from 1 to {REACH}.")
    if sampling_rates and tune_at is not None:
        raise ValueError("--sampling holds rates, and tunes them in every cell; leave --tune-at out.")
    if reach is not None and tune_at is not None:
        raise ValueError("--sensitivity tunes no rate; leave --tune-at out.")
    if (sampling_rates or reach is not None) and baseline is not None:
        raise ValueError("--baseline is for comparisons; leave it out with --sampling and --sensitivity.")
    if sampling_rates and (delays is not None or schedules is not None):
        raise ValueError("--sampling has profiles of its own; leave --schedules and --delays out.")
    if delays is not None and schedules is not None:
        raise ValueError("--delays names its own schedules; leave --schedules out.")


def document_of(
    kind: str,
    question: StudyQuestion,
    records: Mapping[str, Record],
    facts: Mapping[str, str],
    baseline: str | None = None,
) -> Document:
    """The report of what was asked.

    Raises:
        ValueError: a baseline is named, and it is no row, or no comparison was asked.
    """
    if baseline is not None and not isinstance(question, study.Question):
        raise ValueError(f"--baseline is for comparisons, and this is `{kind}`; leave it out.")
    if isinstance(question, study.Question):
        check_baseline(baseline, question.schedules)
    options = {} if baseline is None else {"baseline": baseline}
    return KINDS[kind].document(KINDS[kind].answer(question, records), facts, **options)


def show_document(document: Document, as_json: bool, html: Path | None) -> None:
    """Print a document, and write its page if asked."""
    typer.echo(document.to_json() if as_json else document.to_text())
    if html is not None:
        document.write_html(html)
        typer.echo(f"wrote {html}", err=True)


def check_baseline(baseline: str | None, rows: tuple[str, ...]) -> None:
    """A baseline that is named must be a row; the default steps aside for the first row."""
    if baseline is not None and baseline not in rows:
        raise unknown("baseline", baseline, rows)


def _settings(names: tuple[str, ...], optimizers: tuple[str, ...]) -> tuple[Setting, ...]:
    return tuple(Setting.of(name, optimizers) for name in names)


def read_share(text: str) -> float:
    """A share of the maximum: "5%" or 0.05."""
    try:
        share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise ValueError(f"cannot read the share {text!r}. Write 5% or 0.05.") from None
    if share > 2 and not text.endswith("%"):
        raise ValueError(f"{text} is {100 * share:g} % of the maximum. Write {text}% if you mean percent.")
    return share
