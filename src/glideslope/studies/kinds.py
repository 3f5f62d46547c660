"""Kinds of study that `glideslope compare` asks and `glideslope report` shows again, by their names in a store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from glideslope.report.document import Document
from glideslope.studies import compare, compare_report, sampling, sampling_report, sensitivity, sensitivity_report
from glideslope.studies.question import StudyQuestion
from glideslope.trials.planner import Cell


@dataclass(frozen=True)
class Kind:
    """What belongs together.

    Args:
        question: what may be asked.
        cells: question → place → cell.
        answer: (question, records) → what the trials say.
        document: (answer, provenance) → the report; of "compare" a baseline may follow.
    """

    question: type[StudyQuestion]
    cells: Callable[[Any], Mapping[Any, Cell]]
    answer: Callable[[Any, Any], Any]
    document: Callable[..., Document]


KINDS: Mapping[str, Kind] = {
    "compare": Kind(compare.Question, compare.cells, compare.answer, compare_report.document),
    "sampling": Kind(sampling.Question, sampling.cells, sampling.answer, sampling_report.document),
    "sensitivity": Kind(sensitivity.Question, sensitivity.cells, sensitivity.answer, sensitivity_report.document),
}
