"""`glideslope report`: the report of a store, rebuilt without training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glideslope.cli import compare
from glideslope.cli.convergence import document_of
from glideslope.cli.options import AsJson, Html, Price
from glideslope.cli.tradeoff import parse_price
from glideslope.studies import convergence, tradeoff, tradeoff_report
from glideslope.studies.kinds import KINDS
from glideslope.trials.shelf import StoreView


def report(
    folder: Annotated[Path, typer.Argument(help="The --out folder of a study.")],
    baseline: Annotated[
        str | None, typer.Option(help="Schedule the others are compared with. Default: linear.")
    ] = None,
    price: Price = None,
    as_json: AsJson = False,
    html: Html = None,
) -> None:
    """Rebuild the report of the study asked last, from the store alone. Unfinished studies show what is there."""
    with StoreView(folder) as store:
        asked = store.last_question()
        records = store.summaries()
        if asked.kind == "convergence":
            watched = document_of(convergence.Question.from_json(asked.question), records, store, asked.provenance)
            return compare.show_document(watched, as_json, html)
    if asked.kind == "tradeoff":
        curves = tradeoff.answer(tradeoff.Question.from_json(asked.question), records)
        document = tradeoff_report.document(curves, asked.provenance, parse_price(price))
    elif asked.kind in KINDS:
        question = KINDS[asked.kind].question.from_json(asked.question)
        document = compare.document_of(asked.kind, question, records, asked.provenance, baseline)
    else:
        raise ValueError(
            f"{folder} is of `glideslope {asked.kind}`, which prints its own report: run that command again; what is "
            "stored is not computed twice."
        )
    compare.show_document(document, as_json, html)
