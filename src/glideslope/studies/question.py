"""StudyQuestion: what the questions of all studies share. Each is a frozen dataclass, kept in the store as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Self

from glideslope.core.value import require, unknown
from glideslope.report.tables import how_many
from glideslope.studies.setting import Setting
from glideslope.trials.trial import PRECISIONS

FIRST_TUNING_SEED = 1001
"""Tuning seeds start here, reporting seeds at 1: no run is both chosen by and reported."""


class StudyQuestion:
    """Where a study looks, and with how many seeds. Final classes are frozen dataclasses with at least these fields.

    Attributes:
        settings: the tasks.
        optimizers: texts.
        budgets: shares of each task's maximum, increasing, each > 0.
        num_seeds: reporting seeds 1 … num_seeds, on the test split.
        precision: of every trial, from `PRECISIONS`.
    """

    settings: tuple[Setting, ...]
    optimizers: tuple[str, ...]
    budgets: tuple[float, ...]
    num_seeds: int
    precision: str

    def _check(self, axis: str) -> None:
        """Raise unless every axis of the study (`axis` names its own) has entries, each once, within bounds."""
        for name in ("settings", axis, "optimizers", "budgets"):
            entries = getattr(self, name)
            require(len(entries) > 0, name, entries, "at least one")
            require(len(set(entries)) == len(entries), name, entries, "each once")
        for budget in self.budgets:
            require(0 < budget < math.inf, "budgets", budget, "0 < budget (a share of the task's maximum)")
        require(list(self.budgets) == sorted(self.budgets), "budgets", self.budgets, "budgets increasing")
        bound = f"1 <= num_seeds < {FIRST_TUNING_SEED}, where the tuning seeds start"
        require(1 <= self.num_seeds < FIRST_TUNING_SEED, "num_seeds", self.num_seeds, bound)
        if self.precision not in PRECISIONS:
            raise unknown("precision", self.precision, PRECISIONS)

    @property
    def facts(self) -> dict[str, str]:
        """What stands beside every number of the study, for its provenance: what makes it differ from plain PyTorch."""
        return {} if self.precision == PRECISIONS[0] else {"precision": f"{self.precision} autocast: not exact"}

    @property
    def reporting_seeds(self) -> tuple[int, ...]:
        """Seeds of what is reported."""
        return tuple(range(1, self.num_seeds + 1))

    @property
    def caution(self) -> str:
        """The facts as a sentence for a report's first lines; "" if there are none."""
        return "".join(f" Computed in {fact}." for fact in self.facts.values())

    def to_json(self) -> dict[str, Any]:
        """Plain data for the store. The precision is left out where it is float32: that is what older stores mean."""
        data: dict[str, Any] = asdict(self)  # type: ignore[call-overload]
        if self.precision == PRECISIONS[0]:
            del data["precision"]
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        content = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
        content["settings"] = tuple(Setting.from_json(setting) for setting in data["settings"])
        return cls(**content)


class TunedQuestion(StudyQuestion):
    """A question whose rates are chosen first, on seeds and a split of their own.

    Attributes:
        num_tuning_seeds: tuning seeds 1001 …, on the validation split.
    """

    num_tuning_seeds: int

    def _check(self, axis: str) -> None:
        super()._check(axis)
        require(self.num_tuning_seeds >= 1, "num_tuning_seeds", self.num_tuning_seeds, "num_tuning_seeds >= 1")

    @property
    def seeds_in_words(self) -> str:
        """Of how many seeds the numbers are, for the provenance."""
        return f"{how_many(self.num_seeds, 'reporting seed')}, {how_many(self.num_tuning_seeds, 'tuning seed')}"

    @property
    def tuning_seeds(self) -> tuple[int, ...]:
        """Seeds of what rates are chosen by."""
        return tuple(range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + self.num_tuning_seeds))
