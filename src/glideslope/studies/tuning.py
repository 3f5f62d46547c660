"""Tuning: the learning rate is chosen on tuning seeds by validation, in multiples of 3, until the best is interior."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import final

from glideslope.core.policy import Policy
from glideslope.trials.record import Record
from glideslope.trials.trial import Seeds, TrialSpec

FACTOR = 3.0
REACH = 5
"""The grid ends 3^5 = 243 times above and below its centre; a best rate there is flagged, not believed."""


@dataclass(frozen=True)
class Choice:
    """What tuning found.

    Args:
        policy, rate: the best.
        score: its mean validation metric over the tuning seeds; infinite (or minus infinite) if everything diverged.
        at_limit: the best rate lies at the end of the grid, so a better one may lie beyond.
        tried: every (policy, rate, score), in order of candidates and rates.
    """

    policy: Policy
    rate: float
    score: float
    at_limit: bool
    tried: tuple[tuple[Policy, float, float], ...]


@dataclass(frozen=True)
class Tuning:
    """A grid over rates for each candidate policy, which extends itself.

    Args:
        base: the trial with everything fixed but policy, rate and seeds.
        candidates: policies among which the best is chosen, e.g. plateau with patience 5 and 10.
        seeds: tuning seeds.
        higher_is_better: direction of the metric.
        reach: largest number of steps of the grid on either side of `base.rate`; 0 holds the rate.
    """

    base: TrialSpec
    candidates: tuple[Policy, ...]
    seeds: tuple[int, ...]
    higher_is_better: bool
    reach: int = REACH

    def ask(self, records: Mapping[str, Record]) -> Choice | list[TrialSpec]:
        """The choice, or the trials that must be known first."""
        missing: list[TrialSpec] = []
        best: list[tuple[float, int, Policy]] = []
        tried: list[tuple[Policy, float, float]] = []
        for policy in self.candidates:
            costs = search(partial(self._cost, policy, records, missing), self.reach)
            if costs is not None:
                winner = nearest_best(costs)
                best.append((costs[winner], winner, policy))
                sign = -1.0 if self.higher_is_better else 1.0
                tried += [(policy, self._rate(step), sign * cost) for step, cost in costs.items()]
        if missing:
            return missing
        cost, step, policy = min(best, key=lambda entry: entry[0])
        score = -cost if self.higher_is_better else cost
        return Choice(policy, self._rate(step), score, self.reach > 0 and abs(step) == self.reach, tuple(tried))

    def asked(self, records: Mapping[str, Record]) -> list[TrialSpec]:
        """Every tuning trial that is in the records: the grid as far as it went."""
        steps = range(-self.reach, self.reach + 1)
        specs = (self._spec(policy, step, seed) for policy in self.candidates for step in steps for seed in self.seeds)
        return [spec for spec in specs if spec.trial_id in records]

    def _spec(self, policy: Policy, step: int, seed: int) -> TrialSpec:
        return replace(self.base, policy=policy, rate=self._rate(step), seeds=Seeds.all(seed))

    def _rate(self, step: int) -> float:
        return self.base.rate * FACTOR**step

    def _cost(self, policy: Policy, records: Mapping[str, Record], missing: list[TrialSpec], step: int) -> float | None:
        """Mean over the tuning seeds, lower is better, inf if any run diverged; None while runs are missing."""
        total, known = 0.0, True
        for seed in self.seeds:
            spec = self._spec(policy, step, seed)
            record = records.get(spec.trial_id)
            if record is None:
                missing.append(spec)
                known = False
                continue
            seen = record.last_validation
            if seen is None or not math.isfinite(seen.metric):
                total = math.inf
            else:
                total += (-seen.metric if self.higher_is_better else seen.metric) / len(self.seeds)
        return total if known else None


def search(cost: Callable[[int], float | None], reach: int) -> dict[int, float] | None:
    """Costs over a grid that extends itself until the best is interior.

    Args:
        cost: step of the grid → cost, lower is better, inf where runs diverged, None where it is not known yet. Every
            step that is needed is asked for before this gives up.
        reach: largest step on either side; 0 leaves the centre alone.

    Returns:
        Step → cost as far as the grid went, lowest first; None while some are not known.
    """
    low, high = -min(1, reach), min(1, reach)
    while True:
        found = {step: cost(step) for step in range(low, high + 1)}
        costs = {step: value for step, value in found.items() if value is not None}
        if len(costs) < len(found):
            return None
        winner = nearest_best(costs)
        if winner == high < reach:
            high += 1
        elif low > -reach and (winner == low or costs[winner] == math.inf):
            low -= 1  # also where nothing has converged yet: rates fail by being too high
        else:
            return costs


def nearest_best(costs: Mapping[int, float]) -> int:
    """The best step; among equals the one nearest the centre: a tie at the edge is no reason to go on."""
    return min(costs, key=lambda step: (costs[step], abs(step)))


@final
@dataclass(frozen=True)
class TunedCell:
    """Tune, then report the choice on fresh seeds: one cell of a table.

    Args:
        tuning: of the rate.
        reporting_seeds: of what is reported.
        reported: for each candidate the trial to report, but for its rate and its seeds; () reports what was tuned.
    """

    tuning: Tuning
    reporting_seeds: tuple[int, ...]
    reported: tuple[TrialSpec, ...] = ()

    def next_specs(self, records: Mapping[str, Record]) -> list[TrialSpec]:
        choice = self.tuning.ask(records)
        wanted = choice if isinstance(choice, list) else self.reports(choice)
        return [spec for spec in wanted if spec.trial_id not in records]

    def reports(self, choice: Choice) -> list[TrialSpec]:
        """The trials that are reported: one per reporting seed."""
        if self.reported:
            spec = self.reported[self.tuning.candidates.index(choice.policy)]
        else:
            spec = replace(self.tuning.base, policy=choice.policy)
        return [replace(spec, rate=choice.rate, seeds=Seeds.all(seed)) for seed in self.reporting_seeds]
