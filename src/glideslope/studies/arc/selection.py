"""Selection: which of several trained networks steers best on a proxy task, and which offline metric foretells it?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from glideslope.controller.arc import Arc, fingerprint
from glideslope.core.policy import Policy
from glideslope.core.spec import parse_plan, parse_policy
from glideslope.core.value import require
from glideslope.report.rank_correlation import NUM_RESAMPLES, Correlation, correlation
from glideslope.report.statistics import tied_with_best
from glideslope.studies.arc.offline import LOWER_IS_BETTER, METRICS
from glideslope.studies.question import FIRST_TUNING_SEED
from glideslope.studies.setting import Setting
from glideslope.trials.record import Record
from glideslope.trials.trial import Seeds, TrialSpec

TASK, OPTIMIZER = "mnist1d-mlp", "adam"
"""The proxy."""
EPOCHS = 30
RATE_FACTORS = (0.01, 1.0, 10.0)
REFERENCES = ("constant", "constant | greedy")


@dataclass(frozen=True)
class Candidate:
    """A trained network, known by the hash of its weights wherever their file lies.

    Args:
        weights: path of its file, which is not read here but where a trial needs it.
        sha256: of that file.
        variant: of the features it was trained on.
        offline: (metric, value), from `METRICS`; empty where nothing was measured.
    """

    weights: str
    sha256: str
    variant: str = "code"
    offline: tuple[tuple[str, float], ...] = ()

    @classmethod
    def of(cls, path: Path | str, variant: str = "code", offline: tuple[tuple[str, float], ...] = ()) -> Self:
        """The candidate of a file."""
        return cls(str(path), fingerprint(path), variant, offline)

    @property
    def label(self) -> str:
        """What it is called in tables: the beginning of the hash."""
        return self.sha256[:12]

    def policy(self, cycle_epochs: int) -> Policy:
        """A constant rate that this network steers."""
        arc = Arc(every=cycle_epochs, variant=self.variant, weights=self.weights, sha256=self.sha256)
        return Policy(parse_plan("constant"), arc)


@dataclass(frozen=True)
class Question:
    """Which candidate is best, from initial rates that are too low, right and too high?

    Args:
        setting: the proxy task, none of those that candidates are trained on or judged by in the end.
        candidates: the networks.
        optimizer: text.
        epochs: length of a run, >= 1.
        rate_factors: initial rates as multiples of the setting's rate for the optimizer.
        num_runs: seeds 1001 …, the same for every candidate and rate: they choose, so they do not report.
        cycle_epochs: epochs between two decisions, 1 <= cycle_epochs <= epochs.
        references: texts of policies that stand beside the candidates and cannot win.

    Source: Dong et al., "To Raise or Not To Raise: The Autonomous Learning Rate Question", 2021, Section 3.5 and
    Appendix A.2.
    """

    setting: Setting
    candidates: tuple[Candidate, ...]
    optimizer: str = OPTIMIZER
    epochs: int = EPOCHS
    rate_factors: tuple[float, ...] = RATE_FACTORS
    num_runs: int = 5
    cycle_epochs: int = 3
    references: tuple[str, ...] = REFERENCES

    def __post_init__(self) -> None:
        for name in ("candidates", "rate_factors"):
            require(len(getattr(self, name)) > 0, name, getattr(self, name), "at least one")
        for name in ("rate_factors", "references"):
            entries = getattr(self, name)
            require(len(set(entries)) == len(entries), name, entries, "each once")
        labels = [candidate.label for candidate in self.candidates]
        require(len(set(labels)) == len(labels), "candidates", labels, "different weights")
        for factor in self.rate_factors:
            require(0 < factor < math.inf, "rate_factors", factor, "0 < factor < inf")
        known = tuple(text for text, _ in self.setting.rates)
        require(self.optimizer in known, "optimizer", self.optimizer, f"one that the setting has a rate for: {known}")
        require(self.num_runs >= 1, "num_runs", self.num_runs, "num_runs >= 1")
        within = 1 <= self.cycle_epochs <= self.epochs
        require(within, "cycle_epochs", self.cycle_epochs, f"1 <= cycle_epochs <= {self.epochs}, the epochs of a run")
        for text in self.references:
            parse_policy(text)

    @property
    def policies(self) -> dict[str, Policy]:
        """Label → policy, candidates first."""
        steered = {candidate.label: candidate.policy(self.cycle_epochs) for candidate in self.candidates}
        return steered | {text: parse_policy(text) for text in self.references}

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + self.num_runs))

    def to_json(self) -> dict[str, Any]:
        """Plain data for the store."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        content: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in data.items()
        }
        content["setting"] = Setting.from_json(data["setting"])
        content["candidates"] = tuple(
            Candidate(**{**item, "offline": tuple((name, value) for name, value in item["offline"])})
            for item in data["candidates"]
        )
        return cls(**content)


@dataclass(frozen=True)
class Cell:
    """All runs of one policy.

    Args:
        specs: (num_rates, num_runs).
    """

    specs: tuple[tuple[TrialSpec, ...], ...]

    def next_specs(self, records: Mapping[str, Record]) -> list[TrialSpec]:
        return [spec for line in self.specs for spec in line if spec.trial_id not in records]


def cells(question: Question) -> dict[str, Cell]:
    """Label → all runs of that candidate or reference."""
    setting = question.setting
    base = replace(
        setting.trial(question.optimizer, 1.0),
        updates=question.epochs * setting.updates_per_epoch,
        eval_every=setting.updates_per_epoch,
    )
    return {
        label: Cell(
            tuple(
                tuple(
                    replace(base, policy=policy, rate=base.rate * factor, seeds=Seeds.all(seed))
                    for seed in question.seeds
                )
                for factor in question.rate_factors
            )
        )
        for label, policy in question.policies.items()
    }


@dataclass(frozen=True)
class Score:
    """What one policy reached, in the metric of the proxy.

    Args:
        best: (num_rates, num_runs) best validation metric of each run, the paper's counting. A run that diverged has
            what it reached before, or the worst there is: inf, or -inf where higher is better.
        last: (num_rates, num_runs) validation metric after the last update; the worst there is where a run diverged.
    """

    best: tuple[tuple[float, ...], ...]
    last: tuple[tuple[float, ...], ...]

    @property
    def mean(self) -> float:
        """Over all rates and runs, of the best: this decides."""
        return float(np.mean(self.best))

    @property
    def standard_error(self) -> float:
        """Of `mean`, from the spread of the seeds' means over rates: a seed is one throw of the dice for all rates.

        It says how the mean would vary with other seeds, not with other rates. NaN for one seed, or where a mean is
        infinite.
        """
        return _standard_error(self.best)

    @property
    def last_mean(self) -> float:
        """Over all rates and runs, of the last."""
        return float(np.mean(self.last))

    @property
    def last_standard_error(self) -> float:
        """Of `last_mean`, as `standard_error`."""
        return _standard_error(self.last)

    @property
    def by_rate(self) -> tuple[float, ...]:
        """(num_rates,) mean over the runs, of the best."""
        return tuple(float(np.mean(line)) for line in self.best)

    @property
    def num_diverged(self) -> int:
        """How many runs did not get to their end."""
        return int(np.isinf(self.last).sum())


def _standard_error(scores: tuple[tuple[float, ...], ...]) -> float:
    by_seed = np.mean(scores, axis=0)
    if len(by_seed) < 2 or not np.isfinite(by_seed).all():
        return math.nan
    return float(by_seed.std(ddof=1) / math.sqrt(len(by_seed)))


@dataclass(frozen=True)
class Answer:
    """What the trials say.

    Args:
        question: what was asked.
        scores: label → score of candidates and references whose runs are all there.
        winner: the candidate with the best mean; None as long as none has all its runs. Being chosen by it, its own
            score here is optimistic: report it on other tasks.
        tied: labels of the candidates that cannot be told from the winner, with it; empty where that was not tested.
        correlations: of every offline metric that candidates have.
        unfinished: labels that lack trials.
        failed: trials that raised an error, as (label, traceback).
    """

    question: Question
    scores: Mapping[str, Score]
    winner: Candidate | None
    tied: tuple[str, ...]
    correlations: tuple[Correlation, ...]
    unfinished: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]


def answer(question: Question, records: Mapping[str, Record], generator: np.random.Generator) -> Answer:
    """Read the answer off the records; what is not finished yet is left out.

    Args:
        question: what was asked.
        records: whole ones (`Store.records`): a summary has one validation alone.
        generator: of the bootstrap.

    Raises:
        ValueError: a record is a summary.
    """
    upward = question.setting.metric.higher_is_better
    scores: dict[str, Score] = {}
    failed: list[tuple[str, str]] = []
    for label, cell in cells(question).items():
        if cell.next_specs(records):
            continue
        runs = [[records[spec.trial_id] for spec in line] for line in cell.specs]
        errors = [(label, record.error) for line in runs for record in line if record.status == "failed"]
        failed += errors
        if not errors:
            scores[label] = Score(
                tuple(tuple(_best(record, upward, question.epochs) for record in line) for line in runs),
                tuple(tuple(_last(record, upward) for record in line) for line in runs),
            )
    found = [candidate for candidate in question.candidates if candidate.label in scores]
    sign = 1.0 if upward else -1.0
    winner = max(found, key=lambda candidate: sign * scores[candidate.label].mean) if found else None
    return Answer(
        question,
        scores,
        winner,
        _tied([candidate.label for candidate in found], scores, upward),
        correlations(found, scores, upward, generator),
        tuple(label for label in question.policies if label not in scores),
        tuple(failed),
    )


def _best(record: Record, upward: bool, epochs: int) -> float:
    seen = record.finite_metrics(epochs)
    return max(seen, default=-math.inf) if upward else min(seen, default=math.inf)


def _last(record: Record, upward: bool) -> float:
    seen = record.last_validation
    return seen.metric if seen is not None and math.isfinite(seen.metric) else -math.inf if upward else math.inf


def _tied(labels: list[str], scores: Mapping[str, Score], upward: bool) -> tuple[str, ...]:
    if len(labels) < 2:
        return ()
    by_seed = np.array([np.mean(scores[label].best, axis=0) for label in labels])
    return tuple(label for label, is_tied in zip(labels, tied_with_best(by_seed, upward).tied, strict=True) if is_tied)


def correlations(
    candidates: list[Candidate],
    scores: Mapping[str, Score],
    upward: bool,
    generator: np.random.Generator,
    num_resamples: int = NUM_RESAMPLES,
) -> tuple[Correlation, ...]:
    """Of every offline metric that one of the candidates has, with their scores.

    Args:
        candidates: those that have a score.
        scores: label → score.
        upward: whether a higher score is better.
        generator: of the bootstrap.
        num_resamples: of the bootstrap.
    """
    found: list[Correlation] = []
    for metric in METRICS:
        known = {candidate.label: dict(candidate.offline).get(metric) for candidate in candidates}
        offline = {label: value for label, value in known.items() if value is not None}
        if offline:
            by_seed = np.array([np.mean(scores[label].best, axis=0) for label in offline])
            found.append(
                correlation(
                    metric,
                    np.array(list(offline.values())) * (-1.0 if metric in LOWER_IS_BETTER else 1.0),
                    by_seed * (1.0 if upward else -1.0),
                    generator,
                    num_resamples,
                )
            )
    return tuple(found)
