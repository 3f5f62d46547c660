"""The full-gradient norm: over the whole training set, at the validations, alone and in populations."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from specs import make_spec

from glideslope.core.spec import canonical
from glideslope.trials.batched.programs import StackedProgram, VmapProgram
from glideslope.trials.full_gradient import row_parts
from glideslope.trials.lookup import find_task, task_splits
from glideslope.trials.population import population_key, run_population
from glideslope.trials.randomness import Stream, generator
from glideslope.trials.record import Record
from glideslope.trials.run import batches, make_update, run_trial
from glideslope.trials.trial import Seeds, TrialSpec

PROBE = "full_gradient_norm"


def probed(task="tiny_tasks:Regression", **changes):
    return make_spec(task, **{"probes": (PROBE,), "updates": 10, "eval_every": 4, **changes})


def by_hand(spec, noise):
    """Norms of the gradient of the loss of all training examples in one batch, after 4, 8, … updates of plain SGDM."""
    task = find_task(spec.task.name)
    train = task_splits(task).train
    model = task.model(spec.seeds.init)
    optimizer = spec.optimizer.build(model.parameters(), spec.rate)
    norms = []
    for update, (batch, draws) in enumerate(batches(task, train, spec.seeds, spec.updates)):
        optimizer.param_groups[0]["lr"] = spec.rate * (1 - update / spec.updates)
        make_update(task, model, optimizer, batch, draws)
        if (update + 1) % spec.eval_every == 0 or update + 1 == spec.updates:
            loss = task.loss(model.eval(), train, noise)
            slopes = torch.autograd.grad(loss, list(model.parameters()))
            norms.append(math.sqrt(sum(float(slope.double().square().sum()) for slope in slopes)))
            model.train()
    return norms


@pytest.mark.parametrize("rows", [1024, 5])
def test_it_is_the_gradient_over_all_training_examples(rows, monkeypatch):
    monkeypatch.setattr("glideslope.trials.full_gradient.MOST_ROWS", rows)
    spec = probed()
    record = run_trial(spec)
    assert [seen.update for seen in record.validation] == [4, 8, 10]
    # Float32, summed in another order.
    assert record.measured == {PROBE: pytest.approx(by_hand(spec, {}), rel=1e-5)}
    assert record.series.probes == {}


def test_its_draws_are_those_of_epoch_0_at_every_update():
    spec = probed("tiny_tasks:Random", seeds=Seeds(1, 2, 3), updates=20)
    task = find_task("tiny_tasks:Random")
    shift = task.augmentation(generator(2, Stream.AUGMENTATION, 0), 67)["shift"]
    jitter = task.noise(generator(3, Stream.EVALUATION, 0), 67)["jitter"]
    wanted = by_hand(spec, {"shift": torch.from_numpy(shift), "jitter": torch.from_numpy(jitter)})
    assert run_trial(spec).measured[PROBE] == pytest.approx(wanted, rel=1e-5)


def test_every_example_is_in_one_part():
    for count in (1, 255, 256, 257, 8000):
        rows = [row for _, part in row_parts(count) for row in range(part.start, part.stop)]
        sizes = [part.stop - part.start for _, part in row_parts(count)]
        assert rows == list(range(count))
        assert max(sizes) <= 256
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("task", ["tiny_tasks:Random", "checkpoint_tasks:Normalised"])
def test_measuring_changes_nothing_of_the_training(task):
    spec = probed(task, updates=20)
    found, plain = run_trial(spec), run_trial(replace(spec, probes=()))
    assert found.series == plain.series
    assert (found.validation, found.test) == (plain.validation, plain.test)
    assert np.isfinite(found.measured[PROBE]).all()


def test_measuring_changes_nothing_of_a_population():
    specs = [probed("mnist1d-mlp", seed=seed, rate=0.3, updates=9 + seed, eval_every=3) for seed in range(4)]
    plain = run_population([replace(spec, probes=()) for spec in specs])
    for found, wanted in zip(run_population(specs), plain, strict=True):
        assert found.path["method"] == "baddbmm"
        assert found.series == wanted.series
        assert (found.validation, found.test) == (wanted.validation, wanted.test)


@pytest.mark.parametrize("way", [StackedProgram, VmapProgram])
def test_in_double_precision_a_member_measures_what_the_trial_does_alone(way):
    specs = [
        probed("dense_tasks:DOUBLE", seeds=Seeds(seed, seed % 3, seed % 2), rate=0.1, updates=(20, 11)[seed % 2])
        for seed in range(5)
    ]
    for spec, record in zip(specs, run_population(specs, way), strict=True):
        assert record.measured[PROBE] == pytest.approx(run_trial(spec).measured[PROBE], rel=1e-12)
        assert len(record.measured[PROBE]) == len(record.validation)


@pytest.mark.parametrize("task", ["mnist1d-mlp", "digits-vae", "tiny_tasks:Random"])
def test_in_single_precision_too(task):
    specs = [probed(task, seed=seed, rate=0.03) for seed in range(3)]
    for spec, record in zip(specs, run_population(specs), strict=True):
        assert record.measured[PROBE] == pytest.approx(run_trial(spec).measured[PROBE], rel=1e-5)


def test_a_member_does_not_know_those_that_leave():
    lasting = [probed("dense_tasks:Dense", seed=seed, updates=20) for seed in range(3)]
    leaving = [probed("dense_tasks:Dense", seed=seed, updates=20, rate=1e25) for seed in (7, 8)]
    together = run_population([leaving[0], *lasting, leaving[1]])
    assert [record.status for record in together] == ["diverged", *["finished"] * 3, "diverged"]
    for record, alone in zip(together[1:4], run_population(lasting), strict=True):
        assert canonical(record.outcome) == canonical(alone.outcome)


def test_specs_and_records_with_it():
    spec = probed()
    plain = replace(spec, probes=())
    assert TrialSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert spec.trajectory_id == plain.trajectory_id
    assert spec.trial_id != plain.trial_id
    assert population_key(spec) != population_key(plain)
    record = run_trial(spec)
    assert Record.from_json(json.loads(json.dumps(record.to_json()))) == record
    assert PROBE in str(record.outcome)
    assert record.summary.measured == {}
    # Records of before have no such entry, and neither have those without the probe.
    assert "measured" not in run_trial(plain).to_json()
