"""run_trial: a pure function of its spec, honest about what went wrong."""

import json
import math
import re
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import tiny_tasks
import torch
from specs import make_spec

from glideslope.core.control import Observation
from glideslope.core.spec import canonical, parse_policy
from glideslope.trials.executors import Processes
from glideslope.trials.lookup import data_sha256, find_task, task_splits
from glideslope.trials.randomness import Stream, generator
from glideslope.trials.record import Record
from glideslope.trials.run import SERIES_LENGTH, run_trial
from glideslope.trials.task import Task
from glideslope.trials.trial import Seeds, TaskRef


@pytest.fixture
def events():
    tiny_tasks.EVENTS.clear()
    return tiny_tasks.EVENTS


def losses(events):
    return [eval(event.split(" ", 2)[2]) for event in events if event.startswith("loss")]


class TestPurity:
    @pytest.mark.parametrize("task", ["Regression", "Random"])
    @pytest.mark.parametrize("schedule", ["rex", "one_cycle", "plateau(patience=0)"])
    def test_equal_specs_have_equal_outcomes(self, task, schedule):
        spec = make_spec(f"tiny_tasks:{task}", schedule, updates=20, probes=("gradient_norm", "weight_norm"))
        first, second = run_trial(spec), run_trial(spec)
        assert first.status == "finished"
        assert canonical(first.outcome) == canonical(second.outcome)

    def test_a_worker_process_computes_the_same_bits(self):
        specs = [
            make_spec(task, "one_cycle", optimizer=optimizer, rate=0.03, updates=40, eval_every=20, seed=3)
            # Random: a generator that a worker seeds otherwise would show there.
            for task in ("mnist1d-mlp", "tiny_tasks:Random")
            for optimizer in ("sgdm", "adam")
        ]
        with Processes(1) as executor:
            for spec in specs:
                executor.submit(spec)
            elsewhere = {record.trial_id: record for _, record in (executor.next() for _ in specs)}
        for spec in specs:
            here, there = run_trial(spec), elsewhere[spec.trial_id]
            assert here.status == "finished"
            assert canonical(here.outcome) == canonical(there.outcome)
            assert (here.path["executor"], there.path["executor"]) == ("in-process", "processes")

    def test_every_seed_matters(self):
        base = make_spec("tiny_tasks:Random", seed=1)
        outcomes = {
            canonical(run_trial(replace(base, seeds=seeds)).outcome["series"])
            for seeds in (Seeds(1, 1, 1), Seeds(2, 1, 1), Seeds(1, 2, 1), Seeds(1, 1, 2))
        }
        assert len(outcomes) == 4

    def test_the_number_of_threads_does_not_matter_and_is_left_alone(self):
        spec = make_spec()
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(2)
            two = run_trial(spec)
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(before)
        assert two.outcome == run_trial(spec).outcome

    @pytest.mark.parametrize("task", ["Random", "Raising"])
    def test_global_generators_are_left_alone(self, task):
        torch_state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()
        run_trial(make_spec(f"tiny_tasks:{task}"))
        assert torch.equal(torch.random.get_rng_state(), torch_state)
        np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)

    def test_global_generators_do_not_matter(self):
        torch.manual_seed(1)
        first = run_trial(make_spec("tiny_tasks:Random"))
        torch.manual_seed(2)
        assert run_trial(make_spec("tiny_tasks:Random")).outcome == first.outcome

    @pytest.mark.parametrize("task", ["Regression", "Random"])
    def test_a_short_constant_run_is_the_beginning_of_a_long_one(self, task):
        short = run_trial(make_spec(f"tiny_tasks:{task}", "constant", updates=19, eval_every=8))
        long = run_trial(make_spec(f"tiny_tasks:{task}", "constant", updates=40, eval_every=8))
        assert long.series.train_loss[:19] == short.series.train_loss
        assert long.validation[:2] == short.validation[:2]

    def test_record_and_json_are_one(self):
        record = run_trial(make_spec(schedule="plateau(patience=0)", updates=40, probes=("weight_norm",)))
        assert record.decisions
        assert Record.from_json(record.to_json()) == record
        diverged = run_trial(make_spec("tiny_tasks:NotANumber"))
        # NaN is unequal to itself, so the texts are compared.
        assert canonical(Record.from_json(diverged.to_json()).to_json()) == canonical(diverged.to_json())


class TestData:
    def test_an_epoch_visits_every_example_at_most_once_in_whole_batches(self, events):
        run_trial(make_spec("tiny_tasks:Watched", updates=24))
        batches = losses(events)
        assert [len(batch) for batch in batches] == [8] * 24
        epochs = [list(chain.from_iterable(batches[start : start + 8])) for start in (0, 8, 16)]
        for epoch in epochs:
            assert len(set(epoch)) == 64
            assert set(epoch) <= set(range(67))
        assert epochs[0] != epochs[1] != epochs[2]

    def test_the_order_belongs_to_seed_and_epoch(self, events):
        run_trial(make_spec("tiny_tasks:Watched", updates=12))
        short = losses(events)
        events.clear()
        run_trial(make_spec("tiny_tasks:Watched", "rex", optimizer="adam", updates=20, seeds=Seeds(5, 1, 9)))
        assert losses(events)[:12] == short
        events.clear()
        run_trial(make_spec("tiny_tasks:Watched", updates=12, seed=2))
        assert losses(events) != short

    def test_noise_is_drawn_per_update_and_augmentation_per_epoch_and_example(self, monkeypatch):
        seen = []

        def loss(self, model, batch, noise):
            seen.append({name: draw.clone() for name, draw in noise.items()})
            return tiny_tasks.Regression.loss(self, model, batch, noise)

        monkeypatch.setattr(tiny_tasks.Random, "loss", loss)
        task = find_task("tiny_tasks:Random")
        assert run_trial(make_spec("tiny_tasks:Random", updates=18, seeds=Seeds(1, 2, 3))).status == "finished"
        for update, noise in enumerate(seen):
            epoch, position = divmod(update, 8)
            rows = generator(2, Stream.ORDER, epoch).permutation(67)[8 * position : 8 * position + 8]
            shift = task.augmentation(generator(2, Stream.AUGMENTATION, epoch), 67)["shift"][rows]
            jitter = task.noise(generator(3, Stream.NOISE, update), 8)["jitter"]
            np.testing.assert_array_equal(noise["shift"].numpy(), shift)
            np.testing.assert_array_equal(noise["jitter"].numpy(), jitter)

    def test_large_training_sets_are_gathered_to_the_same_batches(self, monkeypatch):
        spec = make_spec("tiny_tasks:Random", updates=20)
        shuffled = run_trial(spec)
        monkeypatch.setattr("glideslope.trials.run.SHUFFLED_BYTES", 0)
        assert run_trial(spec).outcome == shuffled.outcome

    def test_other_data_are_refused(self):
        spec = make_spec()
        record = run_trial(replace(spec, task=replace(spec.task, data_sha256="0" * 64)))
        assert record.status == "failed"
        assert "the data of tiny_tasks:Regression differ from those the trial was planned with" in record.error

    @pytest.mark.parametrize("change", [{"version": 2}, {"params": '{"data_seed":7}'}])
    def test_another_version_or_other_parameters_of_the_task_are_refused(self, change):
        spec = make_spec("tiny_tasks:regression")
        record = run_trial(replace(spec, task=replace(spec.task, **change)))
        assert record.status == "failed"
        assert "but the trial was planned with" in record.error

    def test_parameters_reach_the_task(self):
        reference = make_spec().task
        other = tiny_tasks.Regression(data_seed=5)
        spec = make_spec(task="tiny_tasks:Regression")
        spec = replace(spec, task=TaskRef(reference.name, 1, '{"data_seed":5}', data_sha256(other)))
        assert run_trial(spec).status == "finished"

    def test_a_batch_larger_than_the_training_set_is_told(self, monkeypatch):
        spec = make_spec()
        monkeypatch.setattr(tiny_tasks.Regression, "batch_size", 100)
        record = run_trial(spec)
        assert record.status == "failed"
        assert "the batch size 100 exceeds the 67 training examples" in record.error


class TestWhatIsRecorded:
    def test_short_runs_are_recorded_whole_with_the_rate_in_force(self):
        record = run_trial(make_spec(updates=10, rate=0.5))
        assert record.series.updates == tuple(range(10))
        assert record.series.rate == pytest.approx([0.5 * (1 - k / 10) for k in range(10)], rel=1e-15)
        assert record.cost.updates == 10

    @pytest.mark.parametrize("updates", [256, 257, 1000])
    def test_long_runs_are_thinned_and_keep_the_last_update(self, updates):
        series = run_trial(make_spec(updates=updates)).series
        assert series.updates[0] == 0
        assert series.updates[-1] == updates - 1
        assert len(series.updates) <= SERIES_LENGTH + 1
        assert len(series.updates) >= SERIES_LENGTH // 2
        assert len(series.updates) == len(series.train_loss) == len(series.rate)

    def test_validation_comes_every_eval_every_and_at_the_end(self):
        record = run_trial(make_spec(updates=10, eval_every=4))
        assert [seen.update for seen in record.validation] == [4, 8, 10]
        assert record.last_validation == record.validation[-1]

    def test_the_test_split_is_seen_at_the_last_step_only(self, events):
        record = run_trial(make_spec("tiny_tasks:Watched", updates=10, eval_every=4))
        assert record.test.update == 10
        # Three validations of 32 examples and one test.
        assert [event for event in events if event.startswith("evaluate")] == ["evaluate evaluating 32"] * 4
        assert events[-1].startswith("evaluate")
        assert record.test != record.validation[-1]

    def test_metrics_are_the_mean_over_the_split(self):
        spec = make_spec("tiny_tasks:Upwards", "constant", updates=1, rate=0.1, optimizer="sgdm(momentum=0)")
        task = find_task("tiny_tasks:Upwards")
        splits = task_splits(task)
        model = task.model(1)
        order = torch.from_numpy(generator(1, Stream.ORDER, 0).permutation(67))[:8]
        loss = task.loss(model, tuple(tensor[order] for tensor in splits.train), {})
        loss.backward()
        loss = loss.detach()
        gradient = math.sqrt(sum(float(weight.grad.square().sum()) for weight in model.parameters()))
        with torch.no_grad():
            for weight in model.parameters():
                weight -= 0.1 * weight.grad
            weights = math.sqrt(sum(float(weight.square().sum()) for weight in model.parameters()))
            error = float(task.evaluate(model, splits.test, {})["loss"].mean())
        record = run_trial(replace(spec, probes=("gradient_norm", "weight_norm")))
        # One update by hand in float32: differences of rounding only.
        assert record.series.train_loss[0] == pytest.approx(float(loss), rel=1e-5)
        assert record.series.probes["gradient_norm"] == pytest.approx([gradient], rel=1e-5)
        assert record.series.probes["weight_norm"] == pytest.approx([weights], rel=1e-5)
        assert record.test.loss == pytest.approx(error, rel=1e-5)
        assert record.test.metric == pytest.approx(100 - error, rel=1e-5)

    def test_evaluation_does_not_depend_on_the_size_of_its_chunks(self, monkeypatch):
        spec = make_spec(updates=4)
        whole = run_trial(spec).test
        monkeypatch.setattr(Task, "evaluation_batch", 5)
        assert run_trial(spec).test.metric == pytest.approx(whole.metric, rel=1e-6)

    def test_probes_change_nothing_else(self):
        plain = run_trial(make_spec()).series
        probed = run_trial(make_spec(probes=("gradient_norm",))).series
        assert probed.train_loss == plain.train_loss
        assert set(probed.probes) == {"gradient_norm"}
        assert not plain.probes

    def test_training_and_evaluation_time_are_apart(self, monkeypatch):
        clock = tiny_tasks.Clock(monkeypatch)
        evaluate = tiny_tasks.Slow.evaluate
        monkeypatch.setattr(tiny_tasks.Slow, "evaluate", lambda self, *args: clock.sleep(3) or evaluate(self, *args))
        cost = run_trial(make_spec("tiny_tasks:Slow", updates=5, eval_every=5)).cost
        assert cost.training_seconds == pytest.approx(5 * 0.02)
        assert cost.evaluation_seconds == pytest.approx(2 * 3)  # on the validation split, and on the test split
        assert cost.updates_per_second == pytest.approx(5 / cost.training_seconds)


class TestWhatGoesWrong:
    def test_a_loss_that_is_nan_from_the_start_is_an_outcome(self):
        record = run_trial(make_spec("tiny_tasks:NotANumber", updates=10))
        assert (record.status, record.error, record.test, record.last_validation) == ("diverged", "", None, None)
        assert math.isnan(record.series.train_loss[0])
        assert record.cost.updates == 1

    @pytest.mark.parametrize("updates", [1, 2, 10])
    def test_a_rate_of_1e30_diverges(self, updates):
        # With one update the training loss never shows it: the evaluation does.
        record = run_trial(make_spec("tiny_tasks:Regression", "constant", rate=1e30, updates=updates))
        assert (record.status, record.test) == ("diverged", None)
        assert all(math.isfinite(rate) for rate in record.series.rate)

    def test_the_update_that_diverged_is_recorded_even_if_thinned(self):
        record = run_trial(make_spec("tiny_tasks:Regression", "constant", rate=10.0, updates=2000))
        assert record.status == "diverged"
        assert not math.isfinite(record.series.train_loss[-1])
        assert record.series.updates[-1] == record.cost.updates - 1

    def test_an_error_is_recorded_with_its_traceback(self):
        record = run_trial(make_spec("tiny_tasks:Raising"))
        assert record.status == "failed"
        assert re.search(r"Traceback .*tiny_tasks\.py.*RuntimeError: <b>no loss today</b>", record.error, re.DOTALL)
        assert record.test is None

    def test_ctrl_c_is_not_a_failed_trial(self, monkeypatch):
        def interrupted(*arguments):
            raise KeyboardInterrupt

        spec = make_spec()
        monkeypatch.setattr(tiny_tasks.Regression, "loss", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_trial(spec)


class TestModes:
    def test_optimizers_with_modes_are_switched_round_evaluations(self, events):
        record = run_trial(make_spec("tiny_tasks:Watched", optimizer="tiny_tasks:TwoModes", updates=4, eval_every=2))
        assert record.status == "finished"
        assert [event.split(" 3")[0].split(" [")[0] for event in events] == [
            "train",
            "loss training",
            "loss training",
            "eval",
            "evaluate evaluating",
            "train",
            "loss training",
            "loss training",
            "eval",
            "evaluate evaluating",
            "evaluate evaluating",
            "train",
        ]


class TestPlateau:
    def test_decisions_follow_the_rule_and_its_state_goes_through_json(self):
        spec = make_spec(schedule="plateau(patience=0)", rate=0.1, updates=120, eval_every=8)
        record = run_trial(spec)
        assert len(record.decisions) >= 2
        rule = parse_policy("plateau(patience=0)").controller
        state, gain, expected = rule.start(), 1.0, []
        for seen in record.validation:
            state = json.loads(json.dumps(dict(state)))
            observation = Observation(seen.update, seen.update / 120, 0.1 * gain, gain, val_loss=seen.loss)
            decision, state = rule.decide(observation, state)
            if decision.gain != gain:
                expected.append((seen.update, decision.gain, decision.reason))
            gain = decision.gain
        assert list(record.decisions) == expected

    def test_a_decision_is_in_force_from_the_next_update(self):
        record = run_trial(make_spec(schedule="plateau(patience=0)", rate=0.1, updates=120, eval_every=8))
        gain, changes = 1.0, {update: gain for update, gain, _ in record.decisions}
        for update, rate in zip(record.series.updates, record.series.rate, strict=True):
            gain = changes.get(update, gain)
            assert rate == pytest.approx(0.1 * gain, rel=1e-12)
