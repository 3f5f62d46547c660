"""run_population: every member equals the trial run alone, and does not know the others."""

import os
import random
from dataclasses import replace

import pytest
import torch
from members import assert_close, many, run_all
from specs import make_spec

from glideslope.controller.rules import Plateau
from glideslope.core.plan import Absolute, Plan
from glideslope.core.policy import Policy
from glideslope.core.profiles import Linear, Rex
from glideslope.core.spec import canonical
from glideslope.trials.batched.choice import choose_program
from glideslope.trials.batched.programs import PaddedProgram, StackedProgram, VmapProgram
from glideslope.trials.executors import Populations
from glideslope.trials.lookup import find_task
from glideslope.trials.population import pays, population_key, run_population
from glideslope.trials.run import run_trial
from glideslope.trials.trial import Seeds

OPTIMIZERS = (
    "sgdm",
    "sgdm(nesterov=true, weight_decay=0.01)",
    "sgdm(momentum=0.5, dampening=0.3)",
    "sgdw(weight_decay=0.05)",
    "adam",
    "adam(weight_decay=0.1, betas=(0.8, 0.9))",
    "adamw(weight_decay=0.1)",
    "amsgrad",
    "rmsprop",
    "rmsprop(centered=true, momentum=0.5, weight_decay=0.01)",
    "torch.optim:SGD(momentum=0.9)",
)
DOUBLE = "dense_tasks:Dense"


class TestEquality:
    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    def test_in_double_precision_a_member_is_the_trial_alone(self, optimizer):
        specs = many("dense_tasks:DOUBLE", 6, optimizer, probes=("gradient_norm", "weight_norm"))
        for spec, record in zip(specs, run_population(specs), strict=True):
            assert record.path["method"] == "baddbmm"
            assert_close(record, run_trial(spec), 1e-12)

    @pytest.mark.parametrize("task", ["mnist1d-mlp", "digits-mlp", "digits-autoencoder", "digits-vae"])
    @pytest.mark.parametrize("optimizer", ["sgdm", "adamw"])
    def test_in_single_precision_too_for_every_dense_family(self, task, optimizer):
        specs = many(task, 5, optimizer)
        for spec, record in zip(specs, run_population(specs), strict=True):
            assert record.path == {"executor": "population", "device": "cpu", "K": 5, "method": "baddbmm"}
            assert_close(record, run_trial(spec), 1e-5)

    @pytest.mark.parametrize("task", ["dense_tasks:GENERAL", "dense_tasks:DOUBLE"])
    def test_vmap_is_the_oracle(self, task):
        specs = many(task, 5, "adam", lengths=(21, 11))
        for spec, record in zip(specs, run_population(specs, VmapProgram), strict=True):
            assert record.path["method"] == "vmap"
            assert_close(record, run_trial(spec), 1e-12)

    def test_noise_and_augmentation_are_each_members_own(self):
        specs = many("tiny_tasks:Random", 7, lengths=(21, 30))
        for spec, record in zip(specs, run_population(specs), strict=True):
            assert_close(record, run_trial(spec), 1e-5)

    @pytest.mark.parametrize("lengths", [(1,), (8,), (9, 300, 16)])
    def test_members_of_different_length_leave_when_they_are_done(self, lengths):
        specs = many("dense_tasks:DOUBLE", 4, lengths=lengths)
        for spec, record in zip(specs, run_population(specs), strict=True):
            assert_close(record, run_trial(spec), 1e-9)

    def test_a_plan_for_weight_decay(self):

        spec = make_spec("dense_tasks:DOUBLE", optimizer="adamw(weight_decay=0.3)", updates=20)
        specs = [
            replace(spec, policy=Policy(Plan({"lr": Rex(), "weight_decay": Linear()})), seeds=Seeds.all(seed))
            for seed in (1, 2)
        ]
        for spec, record in zip(specs, run_population(specs), strict=True):
            assert_close(record, run_trial(spec), 1e-12)

    def test_a_plan_for_momentum_alone_leaves_the_rate_to_nobody(self):

        plan = Plan({"momentum": Absolute(Linear(), 0.5, 0.95)})
        spec = make_spec("dense_tasks:DOUBLE", updates=40, eval_every=5)
        spec = replace(spec, policy=Policy(plan, Plateau(0, threshold=0.9)))
        (record,) = run_population([spec])
        assert record.decisions
        assert set(record.series.rate) == {0.03}
        assert_close(record, run_trial(spec), 1e-12)


class TestIndependence:
    @pytest.mark.parametrize(
        ("task", "optimizer"),
        [
            ("mnist1d-mlp", "sgdm"),
            ("digits-autoencoder", "adam"),
            ("digits-vae", "amsgrad"),
            ("dense_tasks:Dense", "rmsprop"),
        ],
    )
    def test_a_record_depends_on_its_spec_alone_bit_for_bit(self, task, optimizer):
        specs = many(task, 17, optimizer, lengths=(12, 9))
        together = {record.trial_id: canonical(record.outcome) for record in run_population(specs)}
        assert len(together) == 17
        shuffled = random.Random(0).sample(specs, 17)
        groups = [shuffled, specs[:16], specs[3:5], specs[5:7], *([spec] for spec in specs[:6])]
        for group in groups:
            records = run_population(group)
            assert [record.trial_id for record in records] == [spec.trial_id for spec in group]
            assert {record.path["K"] for record in records} == {len(group)}
            for record in records:
                assert canonical(record.outcome) == together[record.trial_id]

    def test_under_vmap_too(self):
        specs = many("dense_tasks:General", 17, "adam", lengths=(12, 9))
        together = {record.trial_id: canonical(record.outcome) for record in run_population(specs)}
        for group in (specs[::-1], specs[:16], specs[2:4], specs[:1]):
            for record in run_population(group):
                assert record.path["method"] == "vmap"
                assert canonical(record.outcome) == together[record.trial_id]

    def test_diverging_members_are_recorded_as_alone_and_disturb_nobody(self):
        specs = many("dense_tasks:Dense", 8, lengths=(60, 9))
        wild = [replace(spec, rate=rate) for spec, rate in zip(specs, (1e30, 1e18, 3e5, 1e10), strict=False)]
        calm = {record.trial_id: record.outcome for record in run_population(specs[4:])}
        records = run_population([*wild[:2], *specs[4:], *wild[2:]])
        statuses = [record.status for record in records]
        assert statuses.count("diverged") >= 3
        for spec, record in zip([*wild[:2], *specs[4:], *wild[2:]], records, strict=True):
            alone = run_trial(spec)
            assert record.status == alone.status
            assert record.series.updates == alone.series.updates
            assert record.series.rate == alone.series.rate
            assert (record.test is None) == (alone.test is None)
            assert record.trial_id not in calm or record.outcome == calm[record.trial_id]

    def test_all_diverge(self):
        specs = [make_spec("tiny_tasks:NotANumber", seed=seed) for seed in (1, 2)]
        for spec, record in zip(specs, run_population(specs), strict=True):
            assert record.status == "diverged"
            assert canonical(record.outcome) == canonical(run_trial(spec).outcome)

    def test_cost_is_shared(self):
        specs = many("dense_tasks:Dense", 4, lengths=(40,))
        costs = [record.cost for record in run_population(specs)]
        assert len({round(cost.training_seconds, 9) for cost in costs}) == 1
        assert all(cost.training_seconds > 0 and cost.evaluation_seconds > 0 for cost in costs)

    def test_flushing_of_denormals_ends_with_the_population(self):
        run_population(many("dense_tasks:Dense", 2))
        assert float(torch.tensor([1e-310], dtype=torch.float64) * 1.0) > 0


class TestChoice:
    @pytest.mark.parametrize(
        ("task", "way"),
        [
            ("mnist1d-mlp", StackedProgram),
            ("digits-autoencoder", StackedProgram),
            ("digits-vae", StackedProgram),
            ("tiny_tasks:Regression", StackedProgram),
            ("dense_tasks:Dense", PaddedProgram),
            ("dense_tasks:Tanh", PaddedProgram),
            ("dense_tasks:General", VmapProgram),
            ("digits-cnn", None),
            ("mnist1d-gru", None),
            ("dense_tasks:Convolution", None),
            ("dense_tasks:Normalised", None),
            ("dense_tasks:Hidden", None),
            ("tiny_tasks:Raising", None),
        ],
    )
    def test_the_way_follows_from_the_task(self, task, way):
        assert choose_program(find_task(task)) is way

    @pytest.mark.parametrize("optimizer", ["torch.optim:NAdam", "tiny_tasks:TwoModes", "sgdm(maximize=true)"])
    def test_optimizers_without_a_flat_form_run_alone(self, optimizer):
        spec = make_spec("dense_tasks:Dense", optimizer=optimizer)
        assert population_key(spec) is None
        (record,) = run_population([spec])
        assert record.path == {"executor": "population", "device": "cpu", "K": 1, "method": "loop"}
        assert record.outcome == run_trial(spec).outcome

    def test_unknown_hyperparameters_run_alone(self):
        policy = Policy(Plan({"lr": Linear(), "beta2": Linear()}))
        assert population_key(replace(make_spec("dense_tasks:Dense"), policy=policy)) is None

    def test_the_way_does_not_depend_on_the_threads_of_the_asker(self):
        choose_program.cache_clear()
        torch.set_num_threads(2)
        assert choose_program(find_task("dense_tasks:Dense")) is PaddedProgram
        assert torch.get_num_threads() == 2

    def test_keys_tell_apart_what_cannot_be_columns(self):
        spec = make_spec("dense_tasks:Dense")
        same = [replace(spec, rate=1.0), replace(spec, updates=99), replace(spec, seeds=Seeds.all(7))]
        other = [
            make_spec("dense_tasks:Tanh"),
            make_spec("dense_tasks:Dense", optimizer="sgdm(momentum=0.5)"),
            replace(spec, eval_every=3),
            replace(spec, probes=("weight_norm",)),
        ]
        assert {population_key(each) for each in same} == {population_key(spec)}
        assert population_key(spec) not in {population_key(each) for each in other}

    def test_strangers_are_refused(self):
        with pytest.raises(ValueError, match="trials of one population"):
            run_population([make_spec("dense_tasks:Dense"), make_spec("dense_tasks:Tanh")])

    def test_an_error_of_one_member_is_nobody_elses(self):
        specs = [make_spec("dense_tasks:Fragile", seed=seed) for seed in (1, 2, 3, 4)]
        records = run_population(specs)
        assert [record.status for record in records] == ["finished", "finished", "failed", "finished"]
        assert "no model for 3" in records[2].error

    def test_what_does_not_pay(self):
        assert pays(make_spec("dense_tasks:Dense"))
        assert not pays(make_spec("dense_tasks:Convolution"))
        assert not pays(make_spec("tiny_tasks:Raising"))

    def test_memory_bounds_the_size(self, monkeypatch):
        monkeypatch.setattr("glideslope.trials.population.MOST_BYTES", 200_000)
        specs = many("dense_tasks:Dense", 40)
        from glideslope.trials import population

        population.members_that_fit.cache_clear()
        sizes = {record.path["K"] for record in run_population(specs)}
        population.members_that_fit.cache_clear()
        assert max(sizes) < 40

    def test_a_population_that_does_not_fit_is_halved(self, monkeypatch):
        from glideslope.trials import population

        train = population.PopulationTraining.train

        def greedy(self):
            if len(self.specs) > 2:
                raise torch.OutOfMemoryError("too many")
            train(self)

        monkeypatch.setattr(population.PopulationTraining, "train", greedy)
        records = run_population(many("dense_tasks:Dense", 7))
        assert [record.path["K"] for record in records] == [1, 2, 2, 2, 2, 2, 2]
        assert {record.status for record in records} == {"finished"}


class TestExecutor:
    def test_compatible_trials_run_together_and_the_rest_one_by_one(self):
        dense = many("dense_tasks:Dense", 9, lengths=(20, 12))
        others = many("dense_tasks:Convolution", 3, lengths=(5,))
        records = run_all(Populations(1), [*others, *dense])
        assert len(records) == 12
        for spec in dense:
            assert records[spec.trial_id].path["K"] == 9
        for spec in others:
            assert records[spec.trial_id].path == {"executor": "population", "device": "cpu", "K": 1, "method": "loop"}
            assert records[spec.trial_id].outcome == run_trial(spec).outcome

    def test_a_worker_that_dies_costs_one_trial_only(self, tmp_path):
        specs = [make_spec("tiny_tasks:Killing", seed=seed) for seed in range(5)]
        records = run_all(Populations(2), specs)
        assert [records[spec.trial_id].status for spec in specs] == ["finished"] * 2 + ["failed"] + ["finished"] * 2
        assert "exit code -9" in records[specs[2].trial_id].error

    def test_and_none_if_it_dies_once(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TINY_MARKER", str(tmp_path / "marker"))
        specs = [make_spec("tiny_tasks:Killing", seed=seed) for seed in range(5)]
        records = run_all(Populations(1), specs)
        assert {record.status for record in records.values()} == {"finished"}
        assert os.path.exists(tmp_path / "marker")

    def test_who_takes_what(self):
        executor = Populations(2)
        short = many("dense_tasks:Dense", 100, lengths=(10,))
        specs = [replace(spec, rate=1 + index) for index, spec in enumerate(short)]
        for spec in [*specs[:70], *(replace(spec, updates=30) for spec in specs[70:])]:
            executor.submit(spec)
        work = 70 * 10 + 30 * 30
        first, second = executor._take(), executor._take()
        assert [spec.updates for spec in first[:26]] == [30] * 26
        assert sum(spec.updates for spec in first) <= work / 2 + 30
        rest = [executor._take() for _ in range(20)]
        sizes = [len(first), len(second), *(len(taken) for taken in rest if taken)]
        assert sum(sizes) == 100
        assert max(sizes) <= 64
        assert min(sizes[:-1]) >= 8
        executor.close()
