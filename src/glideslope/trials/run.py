"""run_trial: spec → record, a pure function. One trial, one process, one thread, plain PyTorch."""

from __future__ import annotations

import copy
import json
import logging
import math
import platform
import time
import traceback
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.optim import Optimizer

from glideslope.core.budget import Steps
from glideslope.core.spec import canonical
from glideslope.torch.distributed import RankLost
from glideslope.torch.ensemble import Ensemble
from glideslope.torch.scheduler import BudgetScheduler
from glideslope.trials.arithmetic import ARITHMETICS, FLOAT32, Arithmetic
from glideslope.trials.checkpoint import Checkpoints, Training, Unusable
from glideslope.trials.device import exact
from glideslope.trials.full_gradient import full_gradient_norm
from glideslope.trials.looks import AveragesOnTheWay, Look
from glideslope.trials.lookup import data_sha256, find_task, task_params
from glideslope.trials.memory import explained, explained_evaluation, is_of_memory
from glideslope.trials.randomness import Stream, generator
from glideslope.trials.record import Cost, Evaluation, Reading, Record, Series, Status
from glideslope.trials.task import Batch, Column, Labelled, Part, Task, of_rows
from glideslope.trials.trial import VALIDATION_PROBES, Seeds, TrialSpec
from glideslope.trials.variant import Variant

SERIES_LENGTH = 256
"""At most about this many updates are recorded; longer runs keep every 2nd, 3rd, … one, and the last."""

SHUFFLED_BYTES = 2**24
"""Training sets up to this size are copied in their new order once an epoch: slices cost a quarter of gathers."""

RECALIBRATION_BATCHES = 20
"""From how many batches statistics of batch normalisation are taken for averaged weights."""

Value = TypeVar("Value")

_log = logging.getLogger(__name__)


def run_trial(spec: TrialSpec, checkpoints: Checkpoints | None = None, arithmetic: Arithmetic | None = None) -> Record:
    """Train once. The outcome depends on the spec alone; errors and divergence are recorded, not raised.

    Args:
        spec: the trial.
        checkpoints: where a long trial leaves checkpoints, and goes on from the last one; the outcome is the same.
            Whoever stores the record removes it then. None makes do without.
        arithmetic: how numbers are computed; None: as the spec's precision says, by this process alone.

    Raises:
        KeyboardInterrupt: passed on, nothing is recorded.
        RankLost: another process of the same trial has ended; what happened is for it to say.
    """
    arithmetic = arithmetic or ARITHMETICS[spec.precision]
    run = Run.of(spec)
    with one_thread(), exact():
        try:
            _train(spec, run, checkpoints, arithmetic)
        except RankLost:
            raise
        except Exception:
            run.status, run.error = "failed", traceback.format_exc()
    return run.record(spec, {"executor": "in-process", "device": "cpu", "K": 1, **arithmetic.facts})


@contextmanager
def one_thread() -> Iterator[None]:
    """One intra-op thread: results do not depend on the number of cores, and a busy machine does not stall the pool."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def library_versions() -> dict[str, str]:
    """Versions of everything that shapes a trial's numbers."""
    return {
        "glideslope": version("glideslope"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


@dataclass
class Run:
    """What a trial has produced so far; an error leaves it as far as it got."""

    status: Status = "finished"
    error: str = ""
    done: int = 0
    updates: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    probes: dict[str, list[float]] = field(default_factory=dict)
    validation: list[Evaluation] = field(default_factory=list)
    test: Evaluation | None = None
    readings: list[Reading] = field(default_factory=list)
    decisions: list[tuple[int, float, str]] = field(default_factory=list)
    training_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    measured: dict[str, list[float]] = field(default_factory=dict)

    @classmethod
    def of(cls, spec: TrialSpec) -> Run:
        """Before the first update, with a place for every probe."""
        by_kind: tuple[dict[str, list[float]], ...] = ({}, {})
        for name in spec.probes:
            by_kind[name in VALIDATION_PROBES][name] = []
        return cls(probes=by_kind[0], measured=by_kind[1])

    def record(self, spec: TrialSpec, path: dict[str, Any]) -> Record:
        """What the trial leaves behind."""
        return Record(
            trial_id=spec.trial_id,
            trajectory_id=spec.trajectory_id,
            status=self.status,
            series=Series(
                tuple(self.updates),
                tuple(self.losses),
                tuple(self.rates),
                {name: tuple(values) for name, values in self.probes.items()},
            ),
            validation=tuple(self.validation),
            test=self.test if self.status == "finished" else None,
            decisions=tuple(self.decisions),
            cost=Cost(self.training_seconds, self.evaluation_seconds, self.done),
            path=path,
            versions=library_versions(),
            error=self.error,
            readings=tuple(self.readings),
            measured={name: tuple(values) for name, values in self.measured.items()},
        )

    def go_on(self, progress: Mapping[str, Any]) -> None:
        """Take up what a checkpoint had recorded: the JSON of a record made half-way."""
        record = Record.from_json(progress)
        self.done = record.cost.updates
        self.updates, self.losses = list(record.series.updates), list(record.series.train_loss)
        self.rates = list(record.series.rate)
        self.probes = {name: list(values) for name, values in record.series.probes.items()}
        self.validation, self.decisions = list(record.validation), list(record.decisions)
        self.readings = list(record.readings)
        self.measured = {name: list(values) for name, values in record.measured.items()}
        self.training_seconds, self.evaluation_seconds = record.cost.training_seconds, record.cost.evaluation_seconds


def planned_task(spec: TrialSpec) -> Task:
    """The task of a trial, checked to be the one that it was planned with.

    Raises:
        ValueError: it has another version, other parameters or other data.
    """
    task = find_task(spec.task.name, json.loads(spec.task.params))
    found = f"version {task.version} with {canonical(task_params(task))}"
    planned = f"version {spec.task.version} with {spec.task.params}"
    if found != planned:
        raise ValueError(f"{spec.task.name} is {found}, but the trial was planned with {planned}.")
    if data_sha256(task) != spec.task.data_sha256:
        raise ValueError(f"the data of {spec.task.name} differ from those the trial was planned with.")
    return task


def _build(spec: TrialSpec, task: Task, arithmetic: Arithmetic) -> Training:
    """Before the first update."""
    model = arithmetic.place(task.model(spec.seeds.init))
    optimizer = spec.optimizer.build(_trained(model), spec.rate)
    scheduler = BudgetScheduler(optimizer, spec.policy, Steps(spec.updates))
    set_training(model, optimizer, True)
    return Training(model, optimizer, scheduler)


def _trained(model: nn.Module) -> list[nn.Parameter]:
    return [weight for weight in model.parameters() if weight.requires_grad]


def _begin(spec: TrialSpec, task: Task, run: Run, checkpoints: Checkpoints | None, arithmetic: Arithmetic) -> Training:
    """From the last checkpoint, or from the beginning."""
    training = _build(spec, task, arithmetic)
    if checkpoints is None or not checkpoints.path(spec.trial_id).exists():
        return training
    try:
        found = checkpoints.load(spec.trial_id, _made_by(arithmetic))
        found.restore(training)
    except Unusable as reason:
        _log.warning("trial %s starts anew, its checkpoint is of no use: %s", spec.trial_id, reason)
        return _build(spec, task, arithmetic)
    run.go_on(found.progress)
    _log.info("trial %s goes on after %d of %d updates", spec.trial_id, run.done, spec.last_update)
    return training


def _made_by(arithmetic: Arithmetic) -> dict[str, str]:
    """What must be the same for a trial to go on from a checkpoint."""
    return library_versions() | {name: str(fact) for name, fact in arithmetic.facts.items()}


def _keep(spec: TrialSpec, run: Run, training: Training, checkpoints: Checkpoints, arithmetic: Arithmetic) -> float:
    """Write a checkpoint. Returns: when the next one is due, by the clock of `time.perf_counter`."""
    began = time.perf_counter()
    try:
        progress = run.record(spec, {}).to_json()
        checkpoints.save(spec.trial_id, training, progress, _made_by(arithmetic))
    except Exception as reason:  # a full disk, an optimizer of some strange kind: no reason to end the trial
        _log.warning("trial %s goes without checkpoints: %s", spec.trial_id, reason)
        return math.inf
    ended = time.perf_counter()
    return ended + checkpoints.pause(ended - began)


def _train(spec: TrialSpec, run: Run, checkpoints: Checkpoints | None, arithmetic: Arithmetic) -> None:
    task = planned_task(spec)
    if any(look.ensemble for look in spec.looks):
        _check_classifies(task)
    splits = arithmetic.splits(task)
    training = _begin(spec, task, run, checkpoints, arithmetic)
    model, optimizer, scheduler = training.model, training.optimizer, training.scheduler
    parameters = _trained(model)
    stride = math.ceil(spec.last_update / SERIES_LENGTH)
    started = time.perf_counter()
    averages = AveragesOnTheWay(spec.looks)
    asked = {update for look in spec.looks for update in look.ensemble}
    members: dict[int, dict[str, Tensor]] = {}
    empty = copy.deepcopy(optimizer.state_dict()) if spec.restarts else {}
    if asked or spec.restarts or any(look.average for look in spec.looks):
        checkpoints = None  # averages in the making and members of ensembles are not kept
    if not arithmetic.keeps(model):
        checkpoints = None
    due = math.inf if checkpoints is None else started + checkpoints.pause(0.0)
    for batch, noise in batches(task, splits.train, spec.seeds, spec.last_update, run.done, arithmetic):
        update = run.done
        rate = float(scheduler.get_last_lr()[0])
        try:
            loss = make_update(task, model, optimizer, batch, noise, arithmetic)
        except (RuntimeError, MemoryError) as error:
            if not is_of_memory(error):
                raise
            raise explained(error, task, model, batch, noise, arithmetic) from error
        run.done += 1
        if averages.wants(run.done):
            averages.add(run.done, parameters_to_vector(parameters).detach())
        if run.done in asked:
            members[run.done] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        if update % stride == 0 or run.done == spec.last_update or not math.isfinite(loss):
            run.updates.append(update)
            run.losses.append(loss)
            run.rates.append(rate)
            for name, values in run.probes.items():
                values.append(_norm(parameters, gradient=name == "gradient_norm"))
        if not math.isfinite(loss):
            run.status = "diverged"
            break
        scheduler.step(loss=loss)
        due_looks = [look for look in spec.looks if look.update == run.done]
        if due_looks:
            paused = time.perf_counter()
            run.training_seconds += paused - started
            set_training(model, optimizer, False)
            for look in due_looks:
                run.readings.append(_read(spec, task, model, look, averages, members, arithmetic))
            set_training(model, optimizer, True)
            started = time.perf_counter()
            run.evaluation_seconds += started - paused
        if run.done % spec.eval_every == 0 or run.done == spec.last_update:
            paused = time.perf_counter()
            run.training_seconds += paused - started
            set_training(model, optimizer, False)
            seen = evaluate(task, model, splits.validation, spec.seeds, run.done, arithmetic)
            run.validation.append(seen)
            if "full_gradient_norm" in run.measured:
                norm = full_gradient_norm(task, model, optimizer, splits.train, spec.seeds, arithmetic)
                run.measured["full_gradient_norm"].append(norm)
            if run.done == spec.last_update:
                run.test = evaluate(task, model, splits.test, spec.seeds, run.done, arithmetic)
                if not (math.isfinite(run.test.loss) and math.isfinite(seen.loss)):
                    run.status = "diverged"
            set_training(model, optimizer, True)
            gain = scheduler.gain
            decision = scheduler.observe(val_loss=seen.loss)
            if decision is not None and decision.gain != gain:
                run.decisions.append((run.done, decision.gain, decision.reason))
            started = time.perf_counter()
            run.evaluation_seconds += started - paused
        if run.done in spec.restarts:
            _begin_anew(spec, task, model, optimizer, run.done, empty)
        if checkpoints is not None and time.perf_counter() >= due and run.done < spec.last_update:
            run.training_seconds += time.perf_counter() - started
            due = _keep(spec, run, training, checkpoints, arithmetic)
            started = time.perf_counter()
    run.training_seconds += time.perf_counter() - started


def _begin_anew(
    spec: TrialSpec, task: Task, model: nn.Module, optimizer: Optimizer, update: int, empty: dict[str, Any]
) -> None:
    """Other initial weights, and an optimizer that has seen nothing; rates go on as scheduled."""
    seed = int(generator(spec.seeds.init, Stream.RESTART, update).integers(2**31))
    model.load_state_dict(task.model(seed).state_dict())
    rates = [group["lr"] for group in optimizer.param_groups]
    optimizer.load_state_dict(copy.deepcopy(empty))
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def _read(
    spec: TrialSpec,
    task: Task,
    model: nn.Module,
    look: Look,
    averages: AveragesOnTheWay,
    members: Mapping[int, dict[str, Tensor]],
    arithmetic: Arithmetic,
) -> Reading:
    """The model, in evaluation mode, judged as the look says; it is left as it was."""
    with _averaged(spec, task, model, averages.take(look), arithmetic) if look.average else nullcontext():
        splits = arithmetic.splits(task)
        judged = model
        if look.ensemble:
            judged = Ensemble(model, [*(members[update] for update in look.ensemble), model.state_dict()])
        seen, tested = (
            evaluate(task, judged, split, spec.seeds, look.update, arithmetic)
            for split in (splits.validation, splits.test)
        )
    return Reading(look.of, seen, tested)


def _check_classifies(task: Task) -> None:
    if not isinstance(task.task if isinstance(task, Variant) else task, Labelled):
        raise ValueError(f"{task.name} predicts no classes, and an ensemble averages the probabilities of classes.")


@contextmanager
@torch.no_grad()
def _averaged(spec: TrialSpec, task: Task, model: nn.Module, average: Tensor, arithmetic: Arithmetic) -> Iterator[None]:
    """The average in place of the weights; statistics of batch normalisation are taken again for it."""
    parameters = _trained(model)
    weights = parameters_to_vector(parameters)
    buffers = [buffer.clone() for buffer in model.buffers()]
    vector_to_parameters(average, parameters)
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if layers:
        momenta = [layer.momentum for layer in layers]
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # the plain mean of what follows
        model.train()
        train = arithmetic.splits(task).train
        for batch, noise in batches(task, train, spec.seeds, RECALIBRATION_BATCHES, arithmetic=arithmetic):
            arithmetic.loss(task, model, batch, noise)
        model.eval()
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
    try:
        yield
    finally:
        vector_to_parameters(weights, parameters)
        for buffer, before in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(before)


def make_update(
    task: Task,
    model: nn.Module,
    optimizer: Optimizer,
    batch: Batch,
    noise: dict[str, Tensor],
    arithmetic: Arithmetic = FLOAT32,
) -> float:
    """One update of the weights. Returns the training loss before it."""

    def closure() -> Tensor:
        for group in optimizer.param_groups:  # `zero_grad` would take five times as long
            for weight in group["params"]:
                weight.grad = None
        loss = arithmetic.loss(task, model, batch, noise)
        if arithmetic.shares > 1:
            loss = loss * (len(batch[0]) / task.batch_size)
        loss.backward()  # type: ignore[no-untyped-call]
        return arithmetic.whole(loss.detach(), optimizer)

    return float(optimizer.step(closure))  # type: ignore[arg-type]


def batches(
    task: Task, train: Part, seeds: Seeds, updates: int, start: int = 0, arithmetic: Arithmetic = FLOAT32
) -> Iterator[tuple[Batch, dict[str, Tensor]]]:
    """Batches of whole size, each epoch in a new order keyed by (seed, epoch); with the draws that belong to them.

    Args:
        updates: number of the update to end before; the first one is number `start`.
        arithmetic: says which rows of every batch to read.
    """
    made = _batches(task, train, seeds, updates, start, arithmetic.rows(task.batch_size))
    return one_ahead(made) if any(isinstance(column, Column) for column in train) else made


def one_ahead(values: Iterator[Value]) -> Iterator[Value]:
    """The same values, each asked for while whoever iterates is still at work with the one before."""
    with ThreadPoolExecutor(1) as reader:
        following = reader.submit(next, values, None)
        while (value := following.result()) is not None:
            following = reader.submit(next, values, None)
            yield value


def _batches(
    task: Task, train: Part, seeds: Seeds, updates: int, start: int, own: slice
) -> Iterator[tuple[Batch, dict[str, Tensor]]]:
    num_samples = len(train[0])
    per_epoch = updates_per_epoch(task, train)
    device = train[0].device
    small = sum(tensor.nbytes for tensor in train) <= SHUFFLED_BYTES
    for update in range(start, updates):
        epoch, position = divmod(update, per_epoch)
        if position == 0 or update == start:
            order = torch.from_numpy(task.order(generator(seeds.data, Stream.ORDER, epoch), num_samples)).to(device)
            augmentation = task.augmentation(generator(seeds.data, Stream.AUGMENTATION, epoch), num_samples)
            draws = {name: torch.from_numpy(values).to(device) for name, values in augmentation.items()}
            if small:
                shuffled = tuple(tensor[order] for tensor in train)
        rows = slice(position * task.batch_size + own.start, position * task.batch_size + own.stop)
        picked = order[rows]
        batch = tuple(tensor[rows] for tensor in shuffled) if small else tuple(tensor[picked] for tensor in train)
        noise = {name: values[picked] for name, values in draws.items()}
        # The generator costs more than a small update's bookkeeping, so it is made only where the task draws.
        if type(task).noise is not Task.noise:
            fresh = task.noise(generator(seeds.noise, Stream.NOISE, update), task.batch_size)
            noise |= of_rows({name: torch.from_numpy(values) for name, values in fresh.items()}, own, task.batch_size)
        yield batch, noise


def updates_per_epoch(task: Task, train: Part) -> int:
    """Whole batches in one pass over the training set.

    Raises:
        ValueError: the batch is larger than the training set.
    """
    count = len(train[0]) // task.batch_size
    if count == 0:
        raise ValueError(f"the batch size {task.batch_size} exceeds the {len(train[0])} training examples.")
    return count


@torch.no_grad()
def evaluate(
    task: Task, model: nn.Module, split: Part, seeds: Seeds, update: int, arithmetic: Arithmetic = FLOAT32
) -> Evaluation:
    """Mean loss and metric over a split; its draws are the same at every update."""
    names = ["loss"] if task.metric.over_split is not None else ["loss", task.metric.name]
    sums = dict.fromkeys(names, 0.0)
    found: dict[int, dict[str, Tensor]] = {}
    count = len(split[0])
    for chunk, start in enumerate(range(0, count, task.evaluation_batch)):
        if not arithmetic.takes(chunk):
            continue
        batch = tuple(tensor[start : start + task.evaluation_batch] for tensor in split)
        draws = task.noise(generator(seeds.noise, Stream.EVALUATION, chunk), len(batch[0]))
        noise = {name: torch.from_numpy(draw) for name, draw in draws.items()}
        try:
            values = arithmetic.evaluate(task, model, batch, noise)
        except (RuntimeError, MemoryError) as error:
            if not is_of_memory(error):
                raise
            raise explained_evaluation(task, len(batch[0])) from error
        for name in sums:
            sums[name] += float(values[name].sum(dtype=torch.float64))
        if task.metric.over_split is not None:
            found[chunk] = {name: value.cpu() for name, value in values.items()}
    totals = arithmetic.total(sums)
    if task.metric.over_split is None:
        return Evaluation(update, totals["loss"] / count, totals[task.metric.name] / count)
    chunks = arithmetic.all_of(found)
    whole = {name: torch.cat([chunks[chunk][name] for chunk in sorted(chunks)]) for name in chunks[0]}
    return Evaluation(update, totals["loss"] / count, task.metric.over_split(whole))


def set_training(model: nn.Module, optimizer: Optimizer, training: bool) -> None:
    """Model, and optimizers that keep two sets of weights (schedule-free ones), into training or evaluation mode."""
    model.train(training)
    switch = getattr(optimizer, "train" if training else "eval", None)
    if callable(switch):
        switch()


def _norm(parameters: list[nn.Parameter], gradient: bool) -> float:
    tensors = [weight.grad if gradient else weight.detach() for weight in parameters]
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors if tensor is not None))
