"""Tuning: the learning rate is chosen on tuning seeds by validation, in multiples of 3, until the best is interior."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

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
            low, high = -min(1, self.reach), min(1, self.reach)
            while True:
                costs = {step: self._cost(policy, step, records, missing) for step in range(low, high + 1)}
                if missing:
                    break
                # Among equals the one nearest the centre: a tie at the edge is no reason to go on.
                winner = min(costs, key=lambda step: (costs[step], abs(step)))
                if winner == high < self.reach:
                    high += 1
                elif low > -self.reach and (winner == low or costs[winner] == math.inf):
                    low -= 1  # also where nothing has converged yet: rates fail by being too high
                else:
                    best.append((costs[winner], winner, policy))
                    sign = -1.0 if self.higher_is_better else 1.0
                    tried += [(policy, self._rate(step), sign * cost) for step, cost in costs.items()]
                    break
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

    def _cost(self, policy: Policy, step: int, records: Mapping[str, Record], missing: list[TrialSpec]) -> float:
        """Mean over the tuning seeds, lower is better, inf if any run diverged; what is not known goes to `missing`."""
        total = 0.0
        for seed in self.seeds:
            spec = self._spec(policy, step, seed)
            record = records.get(spec.trial_id)
            if record is None:
                missing.append(spec)
                continue
            seen = record.last_validation
            if seen is None or not math.isfinite(seen.metric):
                total = math.inf
            else:
                total += (-seen.metric if self.higher_is_better else seen.metric) / len(self.seeds)
        return total


@dataclass(frozen=True)
class TunedCell:
    """Tune, then report the choice on fresh seeds: one cell of a comparison."""

    tuning: Tuning
    reporting_seeds: tuple[int, ...]

    def next_specs(self, records: Mapping[str, Record]) -> list[TrialSpec]:
        choice = self.tuning.ask(records)
        wanted = choice if isinstance(choice, list) else self.reports(choice)
        return [spec for spec in wanted if spec.trial_id not in records]

    def reports(self, choice: Choice) -> list[TrialSpec]:
        """The trials that are reported: one per reporting seed."""
        base = replace(self.tuning.base, policy=choice.policy, rate=choice.rate)
        return [replace(base, seeds=Seeds.all(seed)) for seed in self.reporting_seeds]
