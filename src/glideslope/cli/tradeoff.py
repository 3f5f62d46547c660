"""`glideslope tradeoff`: what every budget buys, from one run, and how far to trust it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glideslope.cli.compare import show_document
from glideslope.cli.execution import make_executor, run
from glideslope.cli.options import (
    AsJson,
    Data,
    DeviceName,
    ExecutorName,
    Html,
    Out,
    Precision,
    Price,
    Ranks,
    RayAddress,
    RayResources,
    Seeds,
    TuningSeeds,
    Workers,
    use_data,
)
from glideslope.core.spec import split_texts
from glideslope.studies import tradeoff as study
from glideslope.studies import tradeoff_report
from glideslope.studies.provenance import provenance
from glideslope.studies.setting import Setting
from glideslope.trials.store import Store

BASELINE = "baseline"


def tradeoff(
    tasks: Annotated[list[str], typer.Argument(help="Names, or my_package.module:task.")],
    out: Out = Path("runs/tradeoff"),
    estimators: Annotated[
        str | None,
        typer.Option(help='E.g. "separate,cyclic,cooldown(0.2)"; the first is what the others are held to.'),
    ] = None,
    methods: Annotated[
        str, typer.Option(help="Training methods, e.g. baseline,label_smoothing,mixup,label_smoothing+mixup.")
    ] = BASELINE,
    optimizers: Annotated[str, typer.Option(help="E.g. sgdm,adam.")] = "sgdm",
    budgets: Annotated[int, typer.Option(help="How many, each twice the one before, up to the maximum.", min=2)] = 6,
    maximum: Annotated[float, typer.Option(help="Largest budget as a share of the task's own maximum.")] = 1.0,
    seeds: Seeds = 3,
    tuning_seeds: TuningSeeds = 1,
    price: Price = None,
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
    """Estimate the whole curve of metric against budget, cheaply, and hold it to the separate runs."""
    use_data(data)
    price_per_hour = parse_price(price)
    chosen = split_texts(optimizers)
    names = [task if method == BASELINE else f"{task}+{method}" for task in tasks for method in split_texts(methods)]
    question = study.Question(
        tuple(Setting.of(name, chosen) for name in names),
        study.ESTIMATORS if estimators is None else split_texts(estimators),
        chosen,
        tuple(maximum * 2.0 ** (step - budgets + 1) for step in range(budgets)),
        seeds,
        tuning_seeds,
        precision,
    )
    facts = provenance() | question.facts
    with make_executor(executor, workers, ray_address, ray_resources, ranks, device) as engine, Store(out) as store:
        store.ask("tradeoff", question.to_json(), facts)
        records = run(study.every_cell(question), store, engine)
    document = tradeoff_report.document(study.answer(question, records), facts, price_per_hour)
    show_document(document, as_json, html)


def parse_price(text: str | None) -> float | None:
    """The price of an hour.

    >>> parse_price("2.5/h")
    2.5
    """
    if text is None:
        return None
    number, _, unit = text.strip().partition("/")
    try:
        price = float(number)
    except ValueError:
        price = -1.0
    if price < 0 or unit not in ("h", "hour"):
        raise ValueError(f"cannot read the price {text!r}. Write 2.5/h.")
    return price
