"""Trials that can be members of one population, and what must be equal of their records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from specs import make_spec

from glideslope.trials.executors import Executor
from glideslope.trials.optimizers import OptimizerSpec
from glideslope.trials.record import Record
from glideslope.trials.trial import Seeds, TrialSpec

SCHEDULES = ("linear", "one_cycle", "constant", "plateau(patience=0)", "rex+warmup(10%)")


def many(task: str, count: int, optimizer: str = "sgdm", **changes: Any) -> list[TrialSpec]:
    """Trials that differ in everything that may differ."""
    lengths = changes.pop("lengths", (21,))
    rates = {"sgdm": 0.1, "sgdw": 0.1, "torch.optim:SGD": 0.1}
    rate = rates.get(OptimizerSpec.parse(optimizer).name, 0.01)
    return [
        make_spec(
            task,
            SCHEDULES[index % len(SCHEDULES)],
            optimizer=optimizer,
            rate=rate * (1 + index % 3) / 3,
            seeds=Seeds(index % 4, index % 3, index % 2),
            updates=lengths[index % len(lengths)],
            eval_every=8,
            **changes,
        )
        for index in range(count)
    ]


def assert_close(found: Record, right: Record, relative: float) -> None:
    """Two records of one trial: the same but for the last digits of what was computed."""
    for name in ("trial_id", "trajectory_id", "status"):
        assert getattr(found, name) == getattr(right, name), right.error
    assert found.series.updates == right.series.updates
    assert found.series.rate == right.series.rate
    assert found.cost.updates == right.cost.updates
    assert found.decisions == right.decisions or [d[:2] for d in found.decisions] == [d[:2] for d in right.decisions]
    assert [seen.update for seen in found.validation] == [seen.update for seen in right.validation]
    np.testing.assert_allclose(found.series.train_loss, right.series.train_loss, rtol=relative)
    for name, values in right.series.probes.items():
        np.testing.assert_allclose(found.series.probes[name], values, rtol=relative)
    looks = [*zip(found.validation, right.validation, strict=True)]
    looks += [(found.test, right.test)] if right.test else []
    for one, other in looks:
        np.testing.assert_allclose(one.loss, other.loss, rtol=relative)
        assert one.metric == pytest.approx(other.metric, abs=0.2 if relative > 1e-10 else 1e-9)


def run_all(executor: Executor, specs: Sequence[TrialSpec]) -> dict[str, Record]:
    with executor:
        for spec in specs:
            executor.submit(spec)
        return {spec.trial_id: record for spec, record in (executor.next() for _ in specs)}
