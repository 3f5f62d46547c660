"""Training: the members of a population, from their first update to their last evaluation."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glideslope.core.control import Observation
from glideslope.core.value import require
from glideslope.trials.batched.batches import MemberBatches
from glideslope.trials.batched.optimizers import Columns, Values, form_of
from glideslope.trials.batched.plans import MemberPlans
from glideslope.trials.batched.programs import Program
from glideslope.trials.batched.replay import Row
from glideslope.trials.device import resident_splits
from glideslope.trials.full_gradient import EPOCH, row_parts
from glideslope.trials.looks import AveragesOnTheWay
from glideslope.trials.randomness import Stream, generator
from glideslope.trials.record import Evaluation, Reading
from glideslope.trials.run import SERIES_LENGTH, Run
from glideslope.trials.task import Batch, Noise, Part, Task
from glideslope.trials.trial import TrialSpec

EVALUATION_ROWS = 256
"""Rows of a split are evaluated so many at a time, times members: they stay in the cache."""
CHECK_EVERY = 100
"""Updates after which diverged members are dropped at the latest, so that they cost little."""


@dataclass
class _Steered:
    """A member's closed loop."""

    state: Mapping[str, Any]
    losses: list[float]


class PopulationTraining:
    """Trials in training.

    Args:
        task: of all.
        way: how losses are computed.
        specs: of one `population_key`.
        device: "cpu" or "cuda".
    """

    def __init__(self, task: Task, way: type[Program], specs: Sequence[TrialSpec], device: str = "cpu") -> None:
        form = form_of(specs[0].optimizer)
        if form is None:
            raise ValueError(f"{specs[0].optimizer} has no flat form")
        self.task, self.specs, self.device = task, specs, device
        self.runs = [Run.of(spec) for spec in specs]
        models = {seed: task.model(seed).to(device) for seed in dict.fromkeys(spec.seeds.init for spec in specs)}
        self.program = way(task, [models[spec.seeds.init] for spec in specs])
        self.optimizer = form.kind(self.program.weights, form.flags)
        self.data = MemberBatches(task, [spec.seeds for spec in specs], device)
        self.plans = MemberPlans(form.numbers, specs)
        self.gains = np.ones(len(specs))
        self.scheduled = np.array(["lr" in spec.policy.plan for spec in specs])
        self.steered = {
            member: _Steered(spec.policy.controller.start(), [])
            for member, spec in enumerate(specs)
            if spec.policy.controller is not None
        }
        self.members = list(range(len(specs)))
        self.active = torch.arange(len(specs))
        self.looks = specs[0].looks
        self.averages = AveragesOnTheWay(self.looks)

    @property
    def rows(self) -> list[int]:
        """Which member each row of the block belongs to."""
        return self.members

    def train(self) -> None:
        """All updates and evaluations, until no member is left."""
        eval_every = self.specs[0].eval_every
        done = 0
        self.program.template.train()
        while self.members:
            next_look = (done // eval_every + 1) * eval_every
            ends = (self.specs[member].updates for member in self.members)
            readings = (look.update for look in self.looks if look.update > done)
            stop = min(next_look, done + CHECK_EVERY, *ends, *readings)
            started = time.perf_counter()
            self._advance(done, stop)
            self._charge("training_seconds", started)
            self._keep([self.runs[member].status == "finished" for member in self.members])
            done = stop
            if self.members:
                started = time.perf_counter()
                self._read(done)
                self._look(done, everyone=done == next_look)
                self._charge("evaluation_seconds", started)
                self._keep([self.specs[member].updates > done for member in self.members])

    def _charge(self, account: str, started: float) -> None:
        share = (time.perf_counter() - started) / len(self.members)
        for member in self.members:
            run = self.runs[member]
            setattr(run, account, getattr(run, account) + share)

    def _rates(self, block: NDArray[np.float64]) -> NDArray[np.float64]:
        """Learning rates with the gains in force; a rate that no plan schedules is nobody's to steer."""
        factors = np.where(self.scheduled, self.gains, 1.0)[self.rows]
        return block * factors

    def _advance(self, start: int, stop: int) -> None:
        """Updates start … stop - 1, and what is recorded of them."""
        values = self.plans.between(start, stop, self.rows)
        values["lr"] = self._rates(values["lr"])
        seen = self._updates(start, stop, self.optimizer.derive(values, start))
        self._note(start, seen.pop("loss"), values["lr"], seen)

    def _updates(self, start: int, stop: int, values: Values) -> dict[str, NDArray[np.float64]]:
        """Updates start … stop - 1. Returns: what was seen of them, (updates, rows), by name: "loss" and probes."""
        kind = self.program.weights.dtype
        # Columns of zeros are left out: no weight decay, no operation.
        columns = {
            name: torch.from_numpy(block).to(kind)[:, :, None].unbind()
            for name, block in values.items()
            if name in ("lr", "momentum") or block.any()
        }
        seen: list[Row] = []
        for update in range(start, stop):
            at: Columns = {name: block[update - start] for name, block in columns.items()}
            seen.append(self._update(*self.data.batch(update, self.active), at, update == 0))
            if self.averages.wants(update + 1):
                self.averages.add(update + 1, self.program.weights)
        return {name: torch.stack([each[name] for each in seen]).double().numpy() for name in seen[0]}

    def _update(self, batch: Batch, noise: Noise, at: Columns, is_first: bool) -> Row:
        """One update of all rows. Returns: what is seen of it, (rows,) each."""
        probes = self.runs[0].probes
        loss, gradient = self.program.gradient(batch, noise)
        seen = {"loss": loss}
        if "gradient_norm" in probes:
            seen["gradient_norm"] = _norms(gradient)
        self.optimizer.step(gradient, at, is_first)
        if "weight_norm" in probes:
            seen["weight_norm"] = _norms(self.program.weights)
        return seen

    def _note(
        self, start: int, losses: NDArray[np.float64], rates: NDArray[np.float64], norms: dict[str, NDArray[np.float64]]
    ) -> None:
        """Put a stretch of updates, all arrays (updates, rows), into the members' series."""
        finite = np.isfinite(losses)
        for member in self.members:
            column = self.rows.index(member)
            run, end = self.runs[member], len(losses)
            rows = _recorded(start, start + end, self.specs[member].updates)
            if not finite[:, column].all():
                end = int(np.argmin(finite[:, column])) + 1
                rows = sorted({row for row in rows if row < end} | {end - 1})
                run.status = "diverged"
            run.done = start + end
            run.updates += [start + row for row in rows]
            run.losses += losses[rows, column].tolist()
            run.rates += rates[rows, column].tolist()
            for name, block in norms.items():
                run.probes[name] += block[rows, column].tolist()
            if member in self.steered:
                self.steered[member].losses += losses[:end, column].tolist()

    def _keep(self, wanted: list[bool]) -> None:
        """Go on with the members that are wanted, if any."""
        if all(wanted):
            return
        places = torch.tensor(wanted).nonzero()[:, 0]
        self.members = [self.members[place] for place in places.tolist()]
        self.active = self.active[places]
        self.optimizer.keep(places)
        self.averages.keep(places)
        if self.members:
            self.program.bind(self.active, self.optimizer.weights)

    def _read(self, done: int) -> None:
        """Looks that are due, the same for all members."""
        splits = resident_splits(self.task, self.device)
        for look in self.looks:
            if look.update != done:
                continue
            if look.average is not None:
                self.program.bind(self.active, self.averages.take(look))
            self.program.template.eval()
            seen, tested = self._evaluate(splits.validation, done), self._evaluate(splits.test, done)
            self.program.template.train()
            self.program.bind(self.active, self.optimizer.weights)
            for member in self.members:
                self.runs[member].readings.append(Reading(look.of, seen[member], tested[member]))

    def _look(self, done: int, everyone: bool) -> None:
        """Evaluate those who are due, or everyone, and let controllers decide."""
        splits = resident_splits(self.task, self.device)
        ending = [member for member in self.members if self.specs[member].updates == done]
        if not (ending or everyone):
            return
        self.program.template.eval()
        seen: dict[int, Evaluation] = {}
        if everyone:
            seen = self._evaluate(splits.validation, done)
            self._measure()
        if ending:
            with self._only(ending):
                if not everyone:
                    seen = self._evaluate(splits.validation, done)
                    self._measure()
                tested = self._evaluate(splits.test, done)
            for member in ending:
                run = self.runs[member]
                run.test = tested[member]
                if not (math.isfinite(tested[member].loss) and math.isfinite(seen[member].loss)):
                    run.status = "diverged"
        self.program.template.train()
        rates = dict(zip(self.rows, self._rates(self.plans.between(done, done + 1, self.rows)["lr"])[0], strict=True))
        for member in self.members if everyone else ending:
            evaluation = seen[member]
            self.runs[member].validation.append(evaluation)
            self._decide(member, done, float(rates[member]), evaluation.loss)

    @contextmanager
    def _only(self, members: list[int]) -> Iterator[None]:
        """Evaluate some of the members."""
        whole, self.active = self.active, torch.tensor(members)
        self.program.bind(self.active, self.optimizer.weights[[self.rows.index(member) for member in members]])
        self.program.template.eval()
        try:
            yield
        finally:
            self.active = whole
            self.program.bind(whole, self.optimizer.weights)

    def _decide(self, member: int, done: int, rate: float, validation_loss: float) -> None:
        """As `BudgetScheduler.observe`."""
        spec = self.specs[member]
        if spec.policy.controller is None:
            return
        steered, gain = self.steered[member], float(self.gains[member])
        progress = min(done / spec.updates, 1.0)
        seen = Observation(done, progress, rate, gain, tuple(steered.losses), validation_loss)
        decision, steered.state = spec.policy.controller.decide(seen, steered.state)
        require(0 < decision.gain < float("inf"), "gain", decision.gain, "0 < gain < inf")
        steered.losses = []
        self.gains[member] = decision.gain
        if decision.gain != gain:
            self.runs[member].decisions.append((done, float(decision.gain), decision.reason))

    def _measure(self) -> None:
        """What the validations measure, for all members that the program is bound to, as `full_gradient_norm` does."""
        if "full_gradient_norm" not in self.runs[0].measured:
            return
        count, train = len(self.data.train[0]), self.data.train
        orders = self.data.order_of[self.active]
        epochs = [
            self.task.augmentation(generator(seed, Stream.AUGMENTATION, EPOCH), count) for seed in self.data.orders
        ]
        total = torch.zeros_like(self.program.weights, dtype=torch.float64)
        for part, rows in row_parts(count):
            size = rows.stop - rows.start
            batch = tuple(tensor[rows].expand(len(orders), *tensor[rows].shape).contiguous() for tensor in train)
            draws = {name: np.stack([epoch[name][rows] for epoch in epochs]) for name in epochs[0]}
            noise = {name: torch.from_numpy(values)[orders] for name, values in draws.items()}
            noise |= self.data.noise(Stream.EVALUATION, part, size, self.active)
            total += self.program.gradient(batch, noise)[1].double() * (size / count)
        for member, norm in zip(self.active.tolist(), _norms(total).tolist(), strict=True):
            self.runs[member].measured["full_gradient_norm"].append(norm)

    @torch.no_grad()
    def _evaluate(self, split: Part, done: int) -> dict[int, Evaluation]:
        """As `run.evaluate`, for all members that the program is bound to."""
        most = EVALUATION_ROWS if self.device == "cpu" else self.task.evaluation_batch
        metric = self.task.metric.name
        count = len(split[0])
        totals = {
            name: torch.zeros(len(self.active), dtype=torch.float64, device=self.device) for name in ("loss", metric)
        }
        for chunk, start in enumerate(range(0, count, self.task.evaluation_batch)):
            stop = min(start + self.task.evaluation_batch, count)
            draws = self.data.noise(Stream.EVALUATION, chunk, stop - start, self.active)
            for first in range(start, stop, most):
                rows = slice(first, min(first + most, stop))
                here = slice(rows.start - start, rows.stop - start)
                batch = tuple(tensor[rows] for tensor in split)
                values = self.program.evaluate(batch, {name: draw[:, here] for name, draw in draws.items()})
                for name, total in totals.items():
                    total += values[name].sum(1, dtype=torch.float64)
        losses, metrics = ((totals[name] / count).tolist() for name in ("loss", metric))
        triples = zip(self.active.tolist(), losses, metrics, strict=True)
        return {member: Evaluation(done, loss, metric) for member, loss, metric in triples}


def _recorded(start: int, stop: int, updates: int) -> list[int]:
    """Which of the updates start … stop - 1 enter the series, counted from `start`; as in `run_trial`."""
    stride = math.ceil(updates / SERIES_LENGTH)
    return [update - start for update in range(start, stop) if update % stride == 0 or update == updates - 1]


def _norms(block: Tensor) -> Tensor:
    return block.double().square().sum(1).sqrt()
