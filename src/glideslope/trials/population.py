"""run_population: specs → records, many trials as one batched program. Each equals the trial run alone."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glideslope.core.control import Observation
from glideslope.core.spec import canonical
from glideslope.core.value import require
from glideslope.trials.batched.batches import MemberBatches
from glideslope.trials.batched.choice import PROBES, choose_program
from glideslope.trials.batched.optimizers import Columns, FlatForm, flat_form
from glideslope.trials.batched.plans import MemberPlans
from glideslope.trials.batched.programs import Program, member_bytes
from glideslope.trials.full_gradient import EPOCH, parts
from glideslope.trials.looks import AveragesOnTheWay
from glideslope.trials.lookup import task_splits
from glideslope.trials.optimizers import OptimizerSpec
from glideslope.trials.randomness import Stream, generator
from glideslope.trials.record import Evaluation, Reading, Record
from glideslope.trials.run import (
    EVALUATION_BATCH,
    SERIES_LENGTH,
    Run,
    one_thread,
    planned_task,
    run_trial,
)
from glideslope.trials.task import Batch, Task
from glideslope.trials.trial import Seeds, TrialSpec

MOST_MEMBERS = 64
"""More members gain nothing: the price in Python of an update, 0.4 ms, is spread thin enough, and caches overflow."""
MOST_BYTES = 2**24
"""Memory of a population, its data apart: its size follows from the measured bytes of a member. 16 MB, since what two
workers touch in every update should stay in the third cache: with 64-128-128-10, an update of one of 64 members (42 MB)
takes twice as long as of one of 16 (11 MB)."""
EVALUATION_ROWS = 256
"""Rows of a split are evaluated so many at a time, times members: they stay in the cache."""
CHECK_EVERY = 100
"""Updates after which diverged members are dropped at the latest, so that they cost little."""


def population_key(spec: TrialSpec) -> str | None:
    """Trials with equal keys can run as one population; None for a trial that can only run alone.

    What may differ inside a population is what becomes a column of numbers (rate, schedules, controller, seeds), and
    the length: members that are done leave the others.
    """
    plan = spec.policy.plan
    form = _flat_form(spec.optimizer)
    if plan.preamble is not None or form is None or spec.precision != "float32":
        return None
    scheduled = {name for name, _ in plan.courses}
    if not scheduled <= set(form.numbers) - {"beta2", "initial_lr"}:
        return None
    # A column that some plan moves and others leave at 0 adds zeros, which may turn -0 into 0: so kept apart.
    columns = sorted(name for name in scheduled - {"lr", "momentum"} if not form.numbers[name])
    trajectory = spec.trajectory
    shared = {name: trajectory[name] for name in ("task", "optimizer", "precision")}
    return canonical({**shared, **spec.measure, "columns": columns})


@cache
def _flat_form(spec: OptimizerSpec) -> FlatForm | None:
    """The flat form of an optimizer; None if it has none, or cannot be built at all."""
    try:
        return flat_form(spec)
    except Exception:  # wrong settings and failed imports: the trial alone will record the traceback
        return None


def pays(spec: TrialSpec) -> bool:
    """Whether trials with this one's `population_key` are worth computing together; else they run one by one."""
    with one_thread():
        return population_key(spec) is not None and _program(spec) is not None


def _program(spec: TrialSpec) -> type[Program] | None:
    try:
        return choose_program(planned_task(spec))
    except Exception:  # whatever is wrong with a user's task: each trial alone records it as it always did
        return None


def run_population(specs: Sequence[TrialSpec], way: type[Program] | None = None) -> list[Record]:
    """Train all, as one program where that pays and one by one where not; records in the order of the specs.

    A member's outcome depends on its spec alone: not on the other members, their number or their order.

    Args:
        specs: trials of one `population_key`, or a single trial of any kind.
        way: how to compute them; for tests and benchmarks, which try others than `choose_program` takes.

    Raises:
        KeyboardInterrupt: passed on, nothing is recorded.
    """
    keys = {population_key(spec) for spec in specs}
    require(len(keys) == 1 and (len(specs) == 1 or None not in keys), "specs", len(specs), "trials of one population")
    if None in keys:
        return _one_by_one(specs)
    with one_thread():
        way = way or _program(specs[0])
        if way is None:
            return _one_by_one(specs)
        task = planned_task(specs[0])
        parts = math.ceil(len(specs) / members_that_fit(task, way))
        records: list[Record] = []
        for part in np.array_split(np.arange(len(specs)), parts):
            records += _run_part(task, way, [specs[index] for index in part])
        return records


def _run_part(task: Task, way: type[Program], specs: Sequence[TrialSpec]) -> list[Record]:
    try:
        with _denormals_flushed():
            population = _Population(task, way, specs)
            population.train()
    except Exception as error:
        if _out_of_memory(error) and len(specs) > 1:
            half = len(specs) // 2
            return _run_part(task, way, specs[:half]) + _run_part(task, way, specs[half:])
        # An error of one member would be everybody's: alone, each gets its own.
        return _one_by_one(specs)
    path = {"executor": "population", "device": "cpu", "K": len(specs), "method": way.method}
    return [run.record(spec, path) for run, spec in zip(population.runs, specs, strict=True)]


def _one_by_one(specs: Sequence[TrialSpec]) -> list[Record]:
    records = [run_trial(spec) for spec in specs]
    return [replace(record, path={**record.path, "executor": "population", "method": "loop"}) for record in records]


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


@cache
def members_that_fit(task: Task, way: type[Program]) -> int:
    """Members of a population of this task that fit into `MOST_BYTES`."""
    data = MemberBatches(task, [Seeds.all(0)])
    batch, noise = data.batch(0, torch.tensor([0]))
    member = member_bytes(way(task, [task.model(PROBES[0])]), batch, noise)
    return max(1, min(MOST_MEMBERS, MOST_BYTES // max(1, member)))


@contextmanager
def _denormals_flushed() -> Iterator[None]:
    """Numbers below 1e-38 count as zero: where momentum dies out, each costs a hundred cycles, and all members wait."""
    tiny = torch.tensor([1e-310], dtype=torch.float64)
    before = not bool(tiny * 1.0 > 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


@dataclass
class _Steered:
    """A member's closed loop."""

    state: Mapping[str, Any]
    losses: list[float]


class _Population:
    """Trials in training.

    Args:
        task: of all.
        way: how losses are computed.
        specs: of one `population_key`.
    """

    def __init__(self, task: Task, way: type[Program], specs: Sequence[TrialSpec]) -> None:
        form = _flat_form(specs[0].optimizer)
        if form is None:
            raise ValueError(f"{specs[0].optimizer} has no flat form")
        self.task, self.specs = task, specs
        self.runs = [Run.of(spec) for spec in specs]
        models = {seed: task.model(seed) for seed in dict.fromkeys(spec.seeds.init for spec in specs)}
        self.program = way(task, [models[spec.seeds.init] for spec in specs])
        self.optimizer = form.kind(self.program.weights, form.flags)
        self.data = MemberBatches(task, [spec.seeds for spec in specs])
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
        factors = np.where(self.scheduled, self.gains, 1.0)[self.members]
        return block * factors

    def _advance(self, start: int, stop: int) -> None:
        """Updates start … stop - 1, and what is recorded of them."""
        values = self.plans.between(start, stop, self.members)
        values["lr"] = self._rates(values["lr"])
        kind = self.program.weights.dtype
        # Columns of zeros are left out: no weight decay, no operation.
        columns = {
            name: torch.from_numpy(block).to(kind)[:, :, None].unbind()
            for name, block in self.optimizer.derive(values, start).items()
            if name in ("lr", "momentum") or block.any()
        }
        losses = torch.empty(stop - start, len(self.members), dtype=kind)
        probes: dict[str, list[Tensor]] = {name: [] for name in self.runs[0].probes}
        for update in range(start, stop):
            loss, gradient = self.program.gradient(*self.data.batch(update, self.active))
            losses[update - start] = loss
            if "gradient_norm" in probes:
                probes["gradient_norm"].append(_norms(gradient))
            at: Columns = {name: block[update - start] for name, block in columns.items()}
            self.optimizer.step(gradient, at, update == 0)
            if self.averages.wants(update + 1):
                self.averages.add(update + 1, self.program.weights)
            if "weight_norm" in probes:
                probes["weight_norm"].append(_norms(self.program.weights))
        norms = {name: torch.stack(each).numpy() for name, each in probes.items()}
        self._note(start, losses.double().numpy(), values["lr"], norms)

    def _note(
        self, start: int, losses: NDArray[np.float64], rates: NDArray[np.float64], norms: dict[str, NDArray[np.float64]]
    ) -> None:
        """Put a stretch of updates, all arrays (updates, members), into the members' series."""
        finite = np.isfinite(losses)
        for column, member in enumerate(self.members):
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
        splits = task_splits(self.task)
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
        splits = task_splits(self.task)
        ending = [member for member in self.members if self.specs[member].updates == done]
        if not (ending or everyone):
            return
        self.program.template.eval()
        seen: dict[int, Evaluation] = {}
        if everyone:
            seen = self._evaluate(splits.validation, done)
            self._measure()
        if ending:
            whole, self.active = self.active, torch.tensor(ending)
            places = torch.tensor([place for place, member in enumerate(self.members) if member in set(ending)])
            self.program.bind(self.active, self.optimizer.weights[places])
            self.program.template.eval()
            if not everyone:
                seen = self._evaluate(splits.validation, done)
                self._measure()
            tested = self._evaluate(splits.test, done)
            self.active = whole
            self.program.bind(self.active, self.optimizer.weights)
            for member in ending:
                run = self.runs[member]
                run.test = tested[member]
                if not (math.isfinite(tested[member].loss) and math.isfinite(seen[member].loss)):
                    run.status = "diverged"
        self.program.template.train()
        rates = dict(
            zip(self.members, self._rates(self.plans.between(done, done + 1, self.members)["lr"])[0], strict=True)
        )
        for member, evaluation in seen.items():
            self.runs[member].validation.append(evaluation)
            self._decide(member, done, float(rates[member]), evaluation.loss)

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
        for part, rows in parts(count):
            size = rows.stop - rows.start
            batch = tuple(tensor[rows].expand(len(orders), *tensor[rows].shape).contiguous() for tensor in train)
            draws = {name: np.stack([epoch[name][rows] for epoch in epochs]) for name in epochs[0]}
            noise = {name: torch.from_numpy(values)[orders] for name, values in draws.items()}
            noise |= self.data.noise(Stream.EVALUATION, part, size, self.active)
            total += self.program.gradient(batch, noise)[1].double() * (size / count)
        for member, norm in zip(self.active.tolist(), _norms(total).tolist(), strict=True):
            self.runs[member].measured["full_gradient_norm"].append(norm)

    @torch.no_grad()
    def _evaluate(self, split: Batch, done: int) -> dict[int, Evaluation]:
        """As `run.evaluate`, for all members that the program is bound to."""
        metric = self.task.metric.name
        count = len(split[0])
        totals = {name: torch.zeros(len(self.active), dtype=torch.float64) for name in ("loss", metric)}
        for chunk, start in enumerate(range(0, count, EVALUATION_BATCH)):
            stop = min(start + EVALUATION_BATCH, count)
            draws = self.data.noise(Stream.EVALUATION, chunk, stop - start, self.active)
            for first in range(start, stop, EVALUATION_ROWS):
                rows = slice(first, min(first + EVALUATION_ROWS, stop))
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
