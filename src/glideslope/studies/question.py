"""StudyQuestion: what the questions of all studies share. Each is a frozen dataclass, kept in the store as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Self

from glideslope.core.value import require
from glideslope.studies.setting import Setting

FIRST_TUNING_SEED = 1001
"""Tuning seeds start here, reporting seeds at 1: no run is both chosen by and reported."""


class StudyQuestion:
    """Where a study looks, and with how many seeds. Final classes are frozen dataclasses with at least these fields.

    Attributes:
        settings: the tasks.
        optimizers: texts.
        budgets: shares of each task's maximum, increasing, each > 0.
        num_seeds: reporting seeds 1 … num_seeds, on the test split.
        num_tuning_seeds: tuning seeds 1001 …, on the validation split.
    """

    settings: tuple[Setting, ...]
    optimizers: tuple[str, ...]
    budgets: tuple[float, ...]
    num_seeds: int
    num_tuning_seeds: int

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
        require(self.num_tuning_seeds >= 1, "num_tuning_seeds", self.num_tuning_seeds, "num_tuning_seeds >= 1")

    @property
    def reporting_seeds(self) -> tuple[int, ...]:
        """Seeds of what is reported."""
        return tuple(range(1, self.num_seeds + 1))

    @property
    def tuning_seeds(self) -> tuple[int, ...]:
        """Seeds of what rates are chosen by."""
        return tuple(range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + self.num_tuning_seeds))

    def to_json(self) -> dict[str, Any]:
        """Plain data for the store."""
        return asdict(self)  # type: ignore[call-overload,no-any-return]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        content = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
        content["settings"] = tuple(Setting.from_json(setting) for setting in data["settings"])
        return cls(**content)
