"""run_population: specs → records, many trials as one batched program. Each equals the trial run alone."""

from __future__ import annotations

import gc
import logging
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
from glideslope.trials.batched.choice import CUDA_WIDTH, PROBES, SEPARATE_WIDTH, choose_program
from glideslope.trials.batched.optimizers import Columns, FlatForm, Values, flat_form
from glideslope.trials.batched.plans import MemberPlans
from glideslope.trials.batched.programs import Program, member_bytes
from glideslope.trials.batched.replay import CaptureFailed, Replay, Row
from glideslope.trials.device import arithmetic_on, exact, resident_splits
from glideslope.trials.full_gradient import EPOCH, row_parts
from glideslope.trials.looks import AveragesOnTheWay
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
from glideslope.trials.task import Batch, Noise, Task
from glideslope.trials.trial import VALIDATION_PROBES, Seeds, TrialSpec

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

_log = logging.getLogger(__name__)


def population_key(spec: TrialSpec, device: str = "cpu") -> str | None:
    """Trials with equal keys can run as one population; None for a trial that can only run alone.

    What may differ inside a population is what becomes a column of numbers (rate, schedules, controller, seeds), and
    the length: members that are done leave the others.
    """
    plan = spec.policy.plan
    form = _flat_form(spec.optimizer)
    if plan.preamble is not None or form is None or (spec.precision != "float32" and device == "cpu"):
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


def pays(spec: TrialSpec, device: str = "cpu") -> bool:
    """Whether trials with this one's `population_key` are worth computing together; else they run one by one."""
    with one_thread():
        return population_key(spec, device) is not None and _program(spec, device) is not None


def _program(spec: TrialSpec, device: str) -> type[Program] | None:
    if device != "cpu" and (spec.looks or set(spec.probes) & set(VALIDATION_PROBES)):
        return None  # what happens between updates is not in their graph
    try:
        return choose_program(planned_task(spec), device, spec.precision)
    except Exception:  # whatever is wrong with a user's task: each trial alone records it as it always did
        return None


@dataclass(frozen=True)
class Frame:
    """The width and the place of a population that keeps its width, as all do on CUDA.

    Libraries of a GPU choose kernels by shape, so a member's last bits depend on how many are computed. In a frame they
    always are equally many: empty places are filled up, and members that are done stay, as ballast.

    Args:
        width: members that are computed, whether wanted or not.
        device: "cpu" or "cuda".
        graphs: whether updates are replayed as a CUDA graph.
    """

    width: int
    device: str
    graphs: bool


def parts(specs: Sequence[TrialSpec], way: type[Program], device: str = "cpu") -> list[list[TrialSpec]]:
    """Trials of one `population_key`, cut into populations that fit into memory, of nearly equal size."""
    count = math.ceil(len(specs) / members_that_fit(planned_task(specs[0]), way, device))
    return [[specs[index] for index in part] for part in np.array_split(np.arange(len(specs)), count)]


def run_population(specs: Sequence[TrialSpec], way: type[Program] | None = None, device: str = "cpu") -> list[Record]:
    """All records of `populations`, in the order of the specs."""
    return [record for records in populations(specs, way, device) for record in records]


def populations(
    specs: Sequence[TrialSpec], way: type[Program] | None = None, device: str = "cpu"
) -> Iterator[list[Record]]:
    """Train all, as one program where that pays and one by one where not; in parts, where they do not fit together.

    A member's outcome depends on its spec alone: not on the other members, their number or their order.

    Args:
        specs: trials of one `population_key`, or a single trial of any kind.
        way: how to compute them; for tests and benchmarks, which try others than `choose_program` takes.
        device: "cpu" or "cuda".

    Yields:
        The records of the next specs, in their order.

    Raises:
        KeyboardInterrupt: passed on, nothing is recorded.
    """
    keys = {population_key(spec, device) for spec in specs}
    require(len(keys) == 1 and (len(specs) == 1 or None not in keys), "specs", len(specs), "trials of one population")
    if None in keys:
        yield _one_by_one(specs, device)
        return
    with one_thread(), exact():
        way = way or _program(specs[0], device)
        if way is None:
            yield _one_by_one(specs, device)
            return
        task = planned_task(specs[0])
        for part in parts(specs, way, device):
            yield _run_part(task, way, part, _frame(task, way, len(part), device))


def _frame(task: Task, way: type[Program], count: int, device: str) -> Frame | None:
    """None where members may leave when they are done."""
    if device == "cpu":
        return None
    return Frame(count if way.separate else members_that_fit(task, way, device), device, graphs=True)


def _run_part(task: Task, way: type[Program], specs: Sequence[TrialSpec], frame: Frame | None) -> list[Record]:
    try:
        return _train(task, way, specs, frame)
    except Exception as error:
        # The error itself would keep the population's memory.
        told, is_large = f"{type(error).__name__}: {error}", _out_of_memory(error)
        is_capture = isinstance(error, CaptureFailed)
    device = frame.device if frame else "cpu"
    if is_large and (halves := _halves(specs, frame, way)):
        _log.warning("a population of %d trials does not fit into memory: trying with half", len(specs))
        if device == "cuda":
            gc.collect()
            torch.cuda.empty_cache()
        return [record for part, narrower in halves for record in _run_part(task, way, part, narrower)]
    if is_capture and frame:
        _log.warning("a population of %d trials runs without a CUDA graph. %s", len(specs), told)
        return _run_part(task, way, specs, replace(frame, graphs=False))
    # An error of one member would be everybody's: alone, each gets its own.
    _log.warning("a population of %d trials failed, and they run one by one. %s", len(specs), told)
    return _one_by_one(specs, device)


def _halves(
    specs: Sequence[TrialSpec], frame: Frame | None, way: type[Program]
) -> list[tuple[Sequence[TrialSpec], Frame | None]]:
    """The same trials in populations half as wide, with their frames; none where that cannot be."""
    if (frame.width if frame else len(specs)) == 1:
        return []
    if frame is None or way.separate:
        half = len(specs) // 2
        return [(part, frame and replace(frame, width=len(part))) for part in (specs[:half], specs[half:])]
    half = frame.width // 2
    return [(specs[first : first + half], replace(frame, width=half)) for first in range(0, len(specs), half)]


def _train(task: Task, way: type[Program], specs: Sequence[TrialSpec], frame: Frame | None) -> list[Record]:
    path: dict[str, Any] = {"executor": "population", "device": "cpu", "K": len(specs), "method": way.method}
    with _denormals_flushed():
        if frame is None:
            population = _Population(task, way, specs)
        else:
            population = _FramedPopulation(task, way, specs, frame)
            path["device"] = frame.device
            if frame.width != CUDA_WIDTH and not way.separate:
                path["width"] = frame.width  # another arithmetic than the usual one
        population.train()
    if specs[0].precision != "float32":
        path["precision"] = specs[0].precision
    return [run.record(spec, path) for run, spec in zip(population.runs, specs, strict=False)]


def _one_by_one(specs: Sequence[TrialSpec], device: str) -> list[Record]:
    records = [run_trial(spec, None, arithmetic_on(device, spec.precision)) for spec in specs]
    return [replace(record, path={**record.path, "executor": "population", "method": "loop"}) for record in records]


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


@cache
def members_that_fit(task: Task, way: type[Program], device: str = "cpu") -> int:
    """Members of a population of this task: on a CPU as fit into `MOST_BYTES`, on CUDA into half of what is free.

    On CUDA this is a power of two, so that what little memory others take does not make another arithmetic.
    """
    data = MemberBatches(task, [Seeds.all(0)], device)
    batch, noise = data.batch(0, torch.tensor([0]))
    member = max(1, member_bytes(way(task, [task.model(PROBES[0]).to(device)]), batch, noise))
    if device == "cpu":
        return max(1, min(MOST_MEMBERS, MOST_BYTES // member))
    free, _ = torch.cuda.mem_get_info()
    free += torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return rounded_width(min(SEPARATE_WIDTH if way.separate else CUDA_WIDTH, free // 2 // member))


def rounded_width(members: int) -> int:
    """The largest power of two that is not above, and at least 1.

    >>> [rounded_width(members) for members in (0, 1, 3, 64, 100)]
    [1, 1, 2, 64, 64]
    """
    return 1 << (max(1, members).bit_length() - 1)


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
        device: "cpu" or "cuda".
    """

    def __init__(self, task: Task, way: type[Program], specs: Sequence[TrialSpec], device: str = "cpu") -> None:
        form = _flat_form(specs[0].optimizer)
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
    def _evaluate(self, split: Batch, done: int) -> dict[int, Evaluation]:
        """As `run.evaluate`, for all members that the program is bound to."""
        most = EVALUATION_ROWS if self.device == "cpu" else EVALUATION_BATCH
        metric = self.task.metric.name
        count = len(split[0])
        totals = {
            name: torch.zeros(len(self.active), dtype=torch.float64, device=self.device) for name in ("loss", metric)
        }
        for chunk, start in enumerate(range(0, count, EVALUATION_BATCH)):
            stop = min(start + EVALUATION_BATCH, count)
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


class _FramedPopulation(_Population):
    """Trials in training in a `Frame`: their updates run from tables, on the device alone.

    Args:
        task: of all.
        way: how losses are computed.
        specs: of one `population_key`, at most as many as the frame is wide.
        frame: see there.
    """

    def __init__(self, task: Task, way: type[Program], specs: Sequence[TrialSpec], frame: Frame) -> None:
        ballast = [specs[row % len(specs)] for row in range(frame.width - len(specs))]
        super().__init__(task, way, [*specs, *ballast], frame.device)
        self.members = list(range(len(specs)))
        scheduled = {name for spec in specs for name, _ in spec.policy.plan.courses} | {"lr", "momentum"}
        numbers = self.optimizer.numbers
        constant = self.plans.between(0, 1, self.rows)
        self.idle = {name for name in numbers if name not in scheduled and not constant[name].any()}
        self.replay = Replay(self._tabled, CHECK_EVERY, frame.device, frame.graphs)

    @property
    def rows(self) -> list[int]:
        return list(range(len(self.specs)))

    def train(self) -> None:
        try:
            super().train()
        finally:
            self.replay.close()

    def _updates(self, start: int, stop: int, values: Values) -> dict[str, NDArray[np.float64]]:
        kind = self.program.weights.dtype
        picked, noise = self.data.between(start, stop, self.active)
        tables = {f"noise {name}": draws for name, draws in noise.items()}
        for name, block in values.items():
            if name not in self.idle:
                tables[f"column {name}"] = torch.from_numpy(block).to(kind)[:, :, None]
        self.replay.start({"picked": picked, **tables})
        self.data.make_ahead(stop)
        return {name: table.double().numpy() for name, table in self.replay.finish().items()}

    def _tabled(self, row: Row, is_first: bool) -> Row:
        """One update, from its row of the tables."""
        noise = {name.removeprefix("noise "): draw for name, draw in row.items() if name.startswith("noise ")}
        at = {name.removeprefix("column "): column for name, column in row.items() if name.startswith("column ")}
        return self._update(self.data.gathered(row["picked"]), noise, at, is_first)

    def _keep(self, wanted: list[bool]) -> None:
        self.members = [member for member, stays in zip(self.members, wanted, strict=True) if stays]

    @contextmanager
    def _only(self, members: list[int]) -> Iterator[None]:
        yield  # of some alone, a GPU would compute other bits


def _recorded(start: int, stop: int, updates: int) -> list[int]:
    """Which of the updates start … stop - 1 enter the series, counted from `start`; as in `run_trial`."""
    stride = math.ceil(updates / SERIES_LENGTH)
    return [update - start for update in range(start, stop) if update % stride == 0 or update == updates - 1]


def _norms(block: Tensor) -> Tensor:
    return block.double().square().sum(1).sqrt()
