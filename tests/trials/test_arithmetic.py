"""bfloat16: forward and loss under autocast, everything else in float32, and said so wherever the numbers go."""

import checkpoint_tasks
import pytest
import torch
from shared_tasks import interrupted_after
from specs import make_spec

from glideslope.core.spec import canonical
from glideslope.trials.arithmetic import ARITHMETICS
from glideslope.trials.checkpoint import Checkpoints
from glideslope.trials.executors import Populations
from glideslope.trials.lookup import find_task, task_splits
from glideslope.trials.population import pays, population_key, run_population
from glideslope.trials.run import batches, evaluate, make_update, run_trial
from glideslope.trials.trial import PRECISIONS, Seeds

HALF = ARITHMETICS["bfloat16"]
PICTURES = "checkpoint_tasks:Pictures"


def half(task=PICTURES, schedule="rex", **changes):
    return make_spec(task, schedule, precision="bfloat16", **{"updates": 30, "eval_every": 4, "rate": 0.1} | changes)


def test_every_precision_has_an_arithmetic():
    assert tuple(ARITHMETICS) == PRECISIONS


class TestUpdate:
    @pytest.mark.parametrize("name", ["sgdm", "adam"])
    def test_weights_and_optimizer_stay_in_single_precision(self, name):
        task, optimizer = find_task(PICTURES), half(optimizer=name).optimizer
        model = HALF.place(task.model(1))
        built = optimizer.build(list(model.parameters()), 0.01)
        for batch, noise in batches(task, task_splits(task).train, Seeds.all(1), 3):
            make_update(task, model, built, batch, noise, HALF)
        kept = [value for state in built.state.values() for value in state.values() if isinstance(value, torch.Tensor)]
        assert kept
        assert {tensor.dtype for tensor in (*model.parameters(), *kept)} == {torch.float32}

    def test_the_loss_is_that_of_autocast(self):
        task = find_task("dense_tasks:Dense")
        batch = tuple(tensor[:10] for tensor in task_splits(task).train)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            wanted = task.loss(task.model(1), batch, {})
        single = task.loss(task.model(1), batch, {})
        found = HALF.loss(task, HALF.place(task.model(1)), batch, {})
        assert found.item() == wanted.item() != single.item()
        assert found.item() == pytest.approx(single.item(), rel=0.02)

    def test_evaluation_is_under_autocast_too_with_sums_in_double_precision(self):
        task = find_task("dense_tasks:Dense")
        split, model = task_splits(task).validation, task.model(1)
        with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
            wanted = task.evaluate(model, split, {})["loss"].double().mean()
        found = evaluate(task, model, split, Seeds.all(1), 0, HALF)
        assert found.loss == pytest.approx(float(wanted), rel=1e-12)
        assert found.loss != evaluate(task, model, split, Seeds.all(1), 0).loss

    def test_images_and_their_weights_have_the_channels_innermost(self):
        task = find_task(PICTURES)
        model = HALF.place(task.model(1))
        seen = []
        model[0].register_forward_hook(lambda layer, inputs, outputs: seen.append((inputs[0], outputs)))
        HALF.loss(task, model, tuple(tensor[:10] for tensor in task_splits(task).train), {})
        for tensor in (*seen[0], model[0].weight):
            assert tensor.is_contiguous(memory_format=torch.channels_last)
            assert not tensor.is_contiguous()
        assert seen[0][1].dtype == torch.bfloat16

    def test_single_precision_is_left_as_it_is(self):
        model = checkpoint_tasks.Pictures().model(1)
        assert ARITHMETICS["float32"].place(model)[0].weight.is_contiguous()


class TestTrial:
    @pytest.mark.parametrize("task", [PICTURES, "tiny_tasks:Random"])
    def test_it_is_near_the_trial_in_single_precision_and_not_it(self, task):
        rough, single = run_trial(half(task, rate=0.03)), run_trial(make_spec(task, "rex", updates=30, eval_every=4))
        assert rough.status == single.status == "finished"
        assert rough.series.train_loss != single.series.train_loss
        # Eight bits of mantissa are 0.4 %, which grows over 30 updates.
        assert rough.series.train_loss == pytest.approx(single.series.train_loss, rel=0.15, abs=0.05)

    def test_the_record_says_so(self):
        assert run_trial(half()).path == {"executor": "in-process", "device": "cpu", "K": 1, "precision": "bfloat16"}
        assert "precision" not in run_trial(make_spec()).path

    def test_equal_specs_have_equal_outcomes(self):
        spec = half()
        assert canonical(run_trial(spec).outcome) == canonical(run_trial(spec).outcome)

    @pytest.mark.parametrize("task", [PICTURES, "tiny_tasks:Random", "checkpoint_tasks:GRU"])
    @pytest.mark.parametrize(("schedule", "optimizer"), [("plateau(patience=0)", "sgdm"), ("one_cycle", "adam")])
    def test_going_on_from_a_checkpoint_ends_in_the_same_bits(self, task, schedule, optimizer, tmp_path, caplog):
        spec = half(task, schedule, optimizer=optimizer, probes=("gradient_norm", "weight_norm"))
        whole = run_trial(spec)
        assert whole.status == "finished"
        assert bool(whole.decisions) == (schedule != "one_cycle")
        checkpoints = Checkpoints(tmp_path, every_seconds=0.0, largest_share=float("inf"))
        for stop in (7, 12):
            with interrupted_after(stop):
                run_trial(spec, checkpoints)
        assert canonical(run_trial(spec, checkpoints).outcome) == canonical(whole.outcome)
        assert "starts anew" not in caplog.text


class TestPopulation:
    def test_it_runs_alone(self):
        spec = half("dense_tasks:Dense")
        assert population_key(make_spec("dense_tasks:Dense")) is not None
        assert population_key(spec) is None
        assert not pays(spec)
        (record,) = run_population([spec])
        assert record.path["method"] == "loop"
        assert record.path["precision"] == "bfloat16"
        assert record.outcome == run_trial(spec).outcome

    def test_beside_members_of_a_population(self):
        specs = [make_spec("dense_tasks:Dense", seed=seed) for seed in range(3)] + [half("dense_tasks:Dense")]
        with Populations(1) as executor:
            for spec in specs:
                executor.submit(spec)
            records = dict(executor.next() for _ in specs)
        assert [records[spec].path["K"] for spec in specs] == [3, 3, 3, 1]
        assert records[specs[-1]].outcome == run_trial(specs[-1]).outcome
