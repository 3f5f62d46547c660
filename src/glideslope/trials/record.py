"""Record: what one trial computed, measured and cost. Plain data, saved as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Status = Literal["finished", "diverged", "failed"]


@dataclass(frozen=True)
class Series:
    """One value per recorded update; `updates` counts from 0, and all tuples have its length."""

    updates: tuple[int, ...]
    train_loss: tuple[float, ...]
    rate: tuple[float, ...]
    probes: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """One look at a split: after `update` updates, the mean loss and the task's metric."""

    update: int
    loss: float
    metric: float


@dataclass(frozen=True)
class Reading:
    """What a `Look` saw.

    Args:
        of: "weights", or the average of them that was judged.
        validation, test: the same weights on both splits.
    """

    of: str
    validation: Evaluation
    test: Evaluation


@dataclass(frozen=True)
class Cost:
    """What the trial cost, training and evaluation apart."""

    training_seconds: float
    evaluation_seconds: float
    updates: int

    @property
    def updates_per_second(self) -> float:
        return self.updates / self.training_seconds if self.training_seconds else math.nan


@dataclass(frozen=True)
class Record:
    """The outcome of a trial.

    Args:
        trial_id, trajectory_id: of the spec.
        status: "finished"; "diverged" (a loss was NaN or infinite: an outcome like any other); "failed" (an error).
        series: training loss and rate by update, thinned for long runs.
        validation: every evaluation of the validation split, in order.
        test: the evaluation of the test split after the last update; None unless finished.
        decisions: (update, gain, reason) of every change of gain.
        cost: seconds and updates.
        path: how it was computed: executor, device, K (members computed together), and where it applies the method of a
            population, the ranks that shared every batch, a precision other than float32.
        versions: of the libraries that computed it.
        error: traceback of a failed trial, else "".
        readings: of the spec's looks, in their order, as far as the trial got.
        measured: probe → its value at every evaluation of `validation`.
    """

    trial_id: str
    trajectory_id: str
    status: Status
    series: Series
    validation: tuple[Evaluation, ...]
    test: Evaluation | None
    decisions: tuple[tuple[int, float, str], ...]
    cost: Cost
    path: Mapping[str, Any]
    versions: Mapping[str, str]
    error: str = ""
    readings: tuple[Reading, ...] = ()
    measured: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def outcome(self) -> dict[str, Any]:
        """Everything that the spec determines, bit for bit within one method (`path`). No cost, path or versions."""
        data = self.to_json()
        return {key: data[key] for key in data if key not in ("cost", "path", "versions", "error")}

    @property
    def last_validation(self) -> Evaluation | None:
        """The evaluation after the last update; None if the trial never got there."""
        return self.validation[-1] if self.status == "finished" and self.validation else None

    def finite_metrics(self, num_validations: int) -> list[float]:
        """Of all validations, in order, those metrics that are finite.

        Raises:
            ValueError: a finished trial has fewer than so many, because this is its summary.
        """
        if self.status == "finished" and len(self.validation) < num_validations:
            raise ValueError(
                f"trial {self.trial_id} has {len(self.validation)} validations of {num_validations}: a summary. Pass "
                "whole records, from `Store.records`."
            )
        return [look.metric for look in self.validation if math.isfinite(look.metric)]

    @property
    def summary(self) -> Record:
        """This record without its series, its decisions, what was measured and all validations but the last.

        A hundredth of the memory, and everything that planning and reports read.
        """
        return replace(self, series=Series((), (), ()), validation=self.validation[-1:], decisions=(), measured={})

    def to_json(self) -> dict[str, Any]:
        """JSON types only; NaN and inf become "nan", "inf", "-inf"."""
        return {
            "trial_id": self.trial_id,
            "trajectory_id": self.trajectory_id,
            "status": self.status,
            "series": {
                "updates": list(self.series.updates),
                "train_loss": _floats_to_json(self.series.train_loss),
                "rate": _floats_to_json(self.series.rate),
                "probes": _by_probe_to_json(self.series.probes),
            },
            "validation": [_evaluation_to_json(item) for item in self.validation],
            "test": None if self.test is None else _evaluation_to_json(self.test),
            "decisions": [list(decision) for decision in self.decisions],
            "cost": [self.cost.training_seconds, self.cost.evaluation_seconds, self.cost.updates],
            "path": dict(self.path),
            "versions": dict(self.versions),
            "error": self.error,
            **({"readings": readings_to_json(self.readings)} if self.readings else {}),
            **({"measured": _by_probe_to_json(self.measured)} if self.measured else {}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """The inverse of `to_json`."""
        series = data["series"]
        return cls(
            trial_id=data["trial_id"],
            trajectory_id=data["trajectory_id"],
            status=data["status"],
            series=Series(
                updates=tuple(series["updates"]),
                train_loss=_floats_from_json(series["train_loss"]),
                rate=_floats_from_json(series["rate"]),
                probes=_by_probe_from_json(series["probes"]),
            ),
            validation=tuple(_evaluation_from_json(item) for item in data["validation"]),
            test=None if data["test"] is None else _evaluation_from_json(data["test"]),
            decisions=tuple((update, gain, reason) for update, gain, reason in data["decisions"]),
            cost=Cost(*data["cost"]),
            path=data["path"],
            versions=data["versions"],
            error=data["error"],
            readings=readings_from_json(data.get("readings", ())),
            measured=_by_probe_from_json(data.get("measured", {})),
        )


def details(path: Mapping[str, Any]) -> str:
    """What `Record.path` tells beside the executor, in brackets; "" if there is nothing to tell.

    >>> details({"executor": "torchrun", "device": "cuda", "K": 1, "ranks": 4, "precision": "bfloat16"})
    ' (4 ranks, bfloat16)'
    """
    told = [path.get("method"), f"{path['ranks']} ranks" if "ranks" in path else None, path.get("precision")]
    words = [word for word in told if word is not None]
    return f" ({', '.join(words)})" if words else ""


def readings_to_json(readings: tuple[Reading, ...]) -> list[list[Any]]:
    return [[seen.of, _evaluation_to_json(seen.validation), _evaluation_to_json(seen.test)] for seen in readings]


def readings_from_json(data: Iterable[list[Any]]) -> tuple[Reading, ...]:
    """The inverse of `readings_to_json`."""
    return tuple(Reading(of, _evaluation_from_json(seen), _evaluation_from_json(tested)) for of, seen, tested in data)


def _evaluation_to_json(evaluation: Evaluation) -> list[Any]:
    return [evaluation.update, *_floats_to_json((evaluation.loss, evaluation.metric))]


def _evaluation_from_json(data: list[Any]) -> Evaluation:
    return Evaluation(data[0], *_floats_from_json(data[1:]))


def _by_probe_to_json(probes: Mapping[str, tuple[float, ...]]) -> dict[str, list[float | str]]:
    return {name: _floats_to_json(values) for name, values in probes.items()}


def _by_probe_from_json(data: Mapping[str, list[float | str]]) -> dict[str, tuple[float, ...]]:
    return {name: _floats_from_json(values) for name, values in data.items()}


def _floats_to_json(values: tuple[float, ...]) -> list[float | str]:
    return [value if math.isfinite(value) else str(value) for value in values]


def _floats_from_json(values: list[float | str]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
