"""What is left open to a task: order, metric, when rows are read. What comes before the budget, and out of memory."""

import re
from dataclasses import replace

import pytest
import tiny_tasks
import torch
from specs import make_spec

from glideslope.core.spec import parse_policy
from glideslope.trials.batched.choice import choose_program
from glideslope.trials.lookup import data_sha256, find_task, task_splits
from glideslope.trials.population import population_key, run_population
from glideslope.trials.run import batches, one_ahead, run_trial
from glideslope.trials.trial import Seeds


class TestOrder:
    def test_batches_follow_it(self):
        task = find_task("tiny_tasks:InOrder")
        train = task_splits(task).train
        found = [batch[0] for batch, _ in batches(task, train, Seeds.all(0), 10)]
        backwards = train[0].flip(0)
        assert torch.equal(torch.cat(found[:8]), backwards[:64])
        assert torch.equal(found[8], backwards[:8])  # the next epoch

    def test_a_population_follows_it_too(self):
        specs = [make_spec("tiny_tasks:InOrder", updates=10, seed=seed) for seed in range(3)]
        for spec, record in zip(specs, run_population(specs), strict=True):
            assert record.path["K"] == 3
            assert record.series.train_loss == pytest.approx(run_trial(spec).series.train_loss, rel=1e-5)


class TestMetricOverTheSplit:
    def test_is_computed_from_all_examples_at_once(self):
        spec = make_spec("tiny_tasks:Correlated", updates=30)
        task = find_task("tiny_tasks:Correlated")
        record = run_trial(spec)
        assert 0.3 < record.test.metric <= 1
        assert record.test.loss == pytest.approx(run_trial(make_spec("tiny_tasks:Regression", updates=30)).test.loss)
        assert task.metric.over_split is tiny_tasks.correlation

    def test_does_not_depend_on_the_size_of_chunks(self, monkeypatch):
        spec = make_spec("tiny_tasks:Correlated", updates=4)
        whole = run_trial(spec).test
        monkeypatch.setattr(tiny_tasks.Correlated, "evaluation_batch", 5)
        assert run_trial(spec).test.metric == pytest.approx(whole.metric, rel=1e-6)

    def test_is_not_batched(self):
        assert choose_program(find_task("tiny_tasks:Correlated")) is None
        assert choose_program(find_task("tiny_tasks:Regression")) is not None


class TestColumns:
    def test_a_trial_is_the_same_as_with_tensors(self):
        ours = run_trial(make_spec("tiny_tasks:ReadOnDemand", updates=20))
        plain = run_trial(make_spec("tiny_tasks:Regression", updates=20))
        assert ours.error == ""
        assert ours.series.train_loss == plain.series.train_loss
        assert ours.test == plain.test

    def test_are_read_by_batches_and_never_whole(self):
        task = tiny_tasks.ReadOnDemand(data_seed=7)
        train = task.splits().train
        list(batches(task, train, Seeds.all(0), 9))
        assert train[0].read == [8] * 9

    def test_are_part_of_the_identity(self, monkeypatch):
        task = tiny_tasks.ReadOnDemand(data_seed=8)
        before = data_sha256(task)
        data_sha256.cache_clear()
        monkeypatch.setattr(tiny_tasks.OnDemand, "sha256", "other")
        assert data_sha256(task) != before
        data_sha256.cache_clear()

    def test_are_not_batched(self):
        assert choose_program(find_task("tiny_tasks:ReadOnDemand")) is None

    def test_weights_that_models_begin_with_are_part_of_the_identity(self, monkeypatch):
        task = tiny_tasks.Regression(data_seed=9)
        before = data_sha256(task)
        data_sha256.cache_clear()
        monkeypatch.setattr(tiny_tasks.Regression, "pretrained_sha256", lambda self: "of some file")
        assert data_sha256(task) != before
        data_sha256.cache_clear()


class TestOneAhead:
    def test_gives_the_same_and_reads_one_more(self):
        asked = []

        def numbers():
            for number in range(4):
                asked.append(number)
                yield number

        found = one_ahead(numbers())
        assert next(found) == 0
        assert list(found) == [1, 2, 3]
        assert asked == [0, 1, 2, 3]

    def test_an_error_arrives_where_its_value_would(self):
        def failing():
            yield 1
            raise OSError("no such file")

        found = one_ahead(failing())
        assert next(found) == 1
        with pytest.raises(OSError, match="no such file"):
            next(found)


class TestMemory:
    def test_says_how_many_examples_fit(self):
        record = run_trial(make_spec("tiny_tasks:OutOfMemory", updates=3))
        assert record.status == "failed"
        assert "a batch of 8 examples of out_of_memory does not fit into memory; 4 examples do" in record.error

    def test_says_when_none_does(self, monkeypatch):
        def loss(self, model, batch, noise):
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(tiny_tasks.OutOfMemory, "loss", loss)
        assert "not even one does" in run_trial(make_spec("tiny_tasks:OutOfMemory", updates=3)).error

    def test_says_so_of_an_evaluation_too(self, monkeypatch):
        def evaluate(self, model, batch, noise):
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(tiny_tasks.Regression, "evaluate", evaluate)
        error = run_trial(make_spec(updates=3)).error
        assert re.search("evaluating [0-9]+ examples of regression at a time does not fit into memory", error)
        monkeypatch.setattr(tiny_tasks.Regression, "evaluate", lambda *args: 1 / 0)
        assert "ZeroDivisionError" in run_trial(make_spec(updates=3)).error

    def test_other_errors_stay_what_they_are(self, monkeypatch):
        def loss(self, model, batch, noise):
            raise RuntimeError("shapes do not match")

        monkeypatch.setattr(tiny_tasks.OutOfMemory, "loss", loss)
        error = run_trial(make_spec("tiny_tasks:OutOfMemory", updates=3)).error
        assert "shapes do not match" in error
        assert "MemoryError" not in error


class TestPreamble:
    POLICY = parse_policy("plan(lr=linear, preamble=preamble(4ba, 0.001, 0.005))")

    def spec(self, **changes):
        return replace(make_spec(updates=8), policy=self.POLICY, rate=0.01, **changes)

    def test_comes_before_the_budget(self):
        spec = self.spec()
        record = run_trial(spec)
        assert spec.last_update == 12
        assert record.cost.updates == 12
        assert record.series.rate[:4] == pytest.approx((0.001, 0.002, 0.003, 0.004))
        assert record.series.rate[4:] == pytest.approx([0.01 * (1 - k / 8) for k in range(8)])
        assert record.validation[-1].update == 12

    def test_is_part_of_the_identity(self):
        assert self.spec().trial_id != replace(self.spec(), policy=parse_policy("linear")).trial_id

    def test_runs_one_by_one(self):
        assert population_key(self.spec()) is None

    def test_of_time_is_refused(self):
        policy = parse_policy("plan(lr=linear, preamble=preamble(1min, 0, 0.1))")
        with pytest.raises(ValueError, match="a trial counts updates"):
            replace(make_spec(updates=8), policy=policy)
