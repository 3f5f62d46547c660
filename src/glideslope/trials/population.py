"""run_population: specs → records, many trials as one batched program. Each equals the trial run alone."""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch

from glideslope.core.spec import canonical
from glideslope.core.value import require
from glideslope.trials.batched.batches import MemberBatches
from glideslope.trials.batched.choice import CUDA_WIDTH, PROBES, SEPARATE_WIDTH, choose_program
from glideslope.trials.batched.framed import Frame, FramedTraining
from glideslope.trials.batched.optimizers import form_of
from glideslope.trials.batched.programs import Program, member_bytes
from glideslope.trials.batched.replay import CaptureFailed
from glideslope.trials.batched.training import PopulationTraining
from glideslope.trials.device import arithmetic_on, exact
from glideslope.trials.memory import is_of_memory
from glideslope.trials.record import Record
from glideslope.trials.run import (
    one_thread,
    planned_task,
    run_trial,
)
from glideslope.trials.task import Task
from glideslope.trials.trial import VALIDATION_PROBES, Seeds, TrialSpec

MOST_MEMBERS = 64
"""More members gain nothing: the price in Python of an update, 0.4 ms, is spread thin enough, and caches overflow."""
MOST_BYTES = 2**24
"""Memory of a population, its data apart: its size follows from the measured bytes of a member. 16 MB, since what two
workers touch in every update should stay in the third cache: with 64-128-128-10, an update of one of 64 members (42 MB)
takes twice as long as of one of 16 (11 MB)."""
_log = logging.getLogger(__name__)


def population_key(spec: TrialSpec, device: str = "cpu") -> str | None:
    """Trials with equal keys can run as one population; None for a trial that can only run alone.

    What may differ inside a population is what becomes a column of numbers (rate, schedules, controller, seeds), and
    the length: members that are done leave the others.
    """
    plan = spec.policy.plan
    form = form_of(spec.optimizer)
    if plan.preamble is not None or form is None or (spec.precision != "float32" and device == "cpu"):
        return None
    if spec.restarts or any(look.ensemble for look in spec.looks):
        return None
    scheduled = {name for name, _ in plan.courses}
    if not scheduled <= set(form.numbers) - {"beta2", "initial_lr"}:
        return None
    # A column that some plan moves and others leave at 0 adds zeros, which may turn -0 into 0: so kept apart.
    columns = sorted(name for name in scheduled - {"lr", "momentum"} if not form.numbers[name])
    trajectory = spec.trajectory
    shared = {name: trajectory[name] for name in ("task", "optimizer", "precision")}
    return canonical({**shared, **spec.measure, "columns": columns})


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
        told, is_large = f"{type(error).__name__}: {error}", is_of_memory(error)
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
            population = PopulationTraining(task, way, specs)
        else:
            population = FramedTraining(task, way, specs, frame)
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
