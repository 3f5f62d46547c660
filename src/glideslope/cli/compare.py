"""`glideslope compare`: the protocol of the REX paper on any tasks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
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
from glideslope.studies import compare_report, sampling, sampling_report, sensitivity, sensitivity_report
from glideslope.studies.provenance import provenance
from glideslope.studies.setting import Setting
from glideslope.trials.planner import Cell
from glideslope.trials.record import Record
from glideslope.trials.store import Store

DEFAULT_TASKS = ("mnist1d-mlp", "digits-autoencoder")
DEFAULT_BASELINE = "linear"

Question = study.Question | sampling.Question | sensitivity.Question
QUESTIONS: Mapping[str, type[Question]] = {
    "compare": study.Question,
    "sampling": sampling.Question,
    "sensitivity": sensitivity.Question,
}
"""What the verb may ask, by the name that it has in a store."""


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
    sensitivity_steps: Annotated[
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
    precision: Annotated[
        str, typer.Option(help="float32, or bfloat16: under autocast, not exact; for processors that have it.")
    ] = "float32",
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
    given = {"--sampling": sampling_rates, "--sensitivity": sensitivity_steps is not None}
    modes = [name for name in given if given[name]]
    if len(modes) > 1:
        raise ValueError(f"{' and '.join(modes)} are two studies; ask for one at a time.")
    if modes and tune_at is not None:
        raise ValueError(f"{modes[0]} holds or tunes rates in ways of its own; leave --tune-at out.")
    if sampling_rates and (delays is not None or schedules is not None):
        raise ValueError("--sampling has profiles of its own; leave --schedules and --delays out.")
    if delays is not None and schedules is not None:
        raise ValueError("--delays names its own schedules; leave --schedules out.")
    names = tuple(dict.fromkeys(tasks or DEFAULT_TASKS))
    shares = tuple(sorted(read_share(text) for text in split_texts(budgets))) if budgets is not None else None
    chosen = split_texts(optimizers if optimizers is not None else "sgdm" if sampling_rates else "sgdm,adam")
    question: Question
    if sampling_rates:
        question = sampling.Question(
            _settings(names, chosen),
            chosen,
            sampling.BUDGETS if shares is None else shares,
            num_seeds=seeds,
            num_tuning_seeds=tuning_seeds,
            precision=precision,
        )
    else:
        if delays is not None:
            shares_of_delay = [read_share(text) for text in split_texts(delays)]
            rows = ("linear", *(f"delayed_linear({share:g})" for share in shares_of_delay), "rex")
            uncounted: tuple[str, ...] = ()
        elif schedules is not None:
            rows, uncounted = split_texts(schedules), ()
        else:
            rows, uncounted = (*study.PAPER_SCHEDULES, study.WARMED_REX), (study.WARMED_REX,)
        for text in rows:
            study.Row.parse(text)  # a misspelt schedule is told before any data is loaded
        check_baseline(baseline, rows)
        if sensitivity_steps is not None:
            question = sensitivity.Question(
                _settings(names, chosen),
                tuple(row for row in rows if row not in uncounted),
                chosen,
                sensitivity.BUDGETS if shares is None else shares,
                sensitivity_steps,
                seeds,
                precision,
            )
        else:
            question = study.Question(
                _settings(names, chosen),
                rows,
                chosen,
                study.PAPER_BUDGETS if shares is None else shares,
                seeds,
                tuning_seeds,
                uncounted,
                precision,
                None if tune_at is None else read_share(tune_at),
            )
    facts = provenance() | question.facts
    with make_executor(executor, workers, ray_address, ray_resources, ranks, device) as engine, Store(out) as store:
        kind = next(kind for kind, form in QUESTIONS.items() if isinstance(question, form))
        store.ask(kind, question.to_json(), facts)
        document = document_of(question, run(_cells(question), store, engine), facts, baseline)
    show_document(document, as_json, html)


def _cells(question: Question) -> Collection[Cell]:
    if isinstance(question, sampling.Question):
        return sampling.cells(question).values()
    if isinstance(question, sensitivity.Question):
        return sensitivity.cells(question).values()
    return study.cells(question).values()


def document_of(
    question: Question, records: Mapping[str, Record], facts: Mapping[str, str], baseline: str | None = None
) -> Document:
    """The report of what was asked."""
    if isinstance(question, sampling.Question):
        return sampling_report.document(sampling.answer(question, records), facts)
    if isinstance(question, sensitivity.Question):
        return sensitivity_report.document(sensitivity.answer(question, records), facts)
    check_baseline(baseline, question.schedules)
    return compare_report.document(study.answer(question, records), facts, baseline or DEFAULT_BASELINE)


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
