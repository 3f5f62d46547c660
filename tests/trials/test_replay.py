"""Replay: updates from tables, here without graphs; and populations that keep their width, which run that way.

What only a GPU can show (capture, kernels that depend on shape) is in `benchmarks/device.py`, which checks it first.
"""

import logging
import random
from dataclasses import replace

import pytest
import torch
from members import assert_close, many
from specs import make_spec
from torch import nn

from glideslope.controller.rules import Plateau
from glideslope.core.plan import Plan
from glideslope.core.policy import Policy
from glideslope.core.profiles import Linear, Rex
from glideslope.core.spec import canonical
from glideslope.trials import population
from glideslope.trials.batched.choice import SEPARATE_WIDTH, choose_program
from glideslope.trials.batched.framed import Frame
from glideslope.trials.batched.programs import PaddedProgram, Program, VmapProgram
from glideslope.trials.batched.replay import CaptureFailed, Replay
from glideslope.trials.batched.side_by_side import SideBySide, SideBySideInBfloat16
from glideslope.trials.lookup import find_task, task_splits
from glideslope.trials.population import run_population
from glideslope.trials.run import planned_task, run_trial
from glideslope.trials.trial import Seeds

PICTURES = "checkpoint_tasks:Pictures"
"""A convolution and batch normalisation, in single precision."""


def framed(specs, width, way=None):
    """Records of a population of constant width, on this machine's cores and without graphs."""
    task = planned_task(specs[0])
    return population._train(task, way or choose_program(task), specs, Frame(width, "cpu", graphs=False))


def side_by_side(specs, way=SideBySide):
    return framed(specs, len(specs), way)


class TestReplay:
    def test_each_update_takes_its_row_and_leaves_one(self):
        weight, firsts = torch.zeros(2), []

        def update(row, is_first):
            firsts.append(is_first)
            weight.add_(row["a"] * row["b"])
            return {"weight": weight.clone()}

        replay = Replay(update, 4, "cpu", graphs=False)
        replay.start({"a": torch.arange(6.0).view(3, 2), "b": torch.tensor([[1.0], [10.0], [100.0]])})
        assert replay.finish()["weight"].tolist() == [[0, 1], [20, 31], [420, 531]]
        replay.start({"a": torch.ones(4, 2), "b": torch.ones(4, 1)})
        assert replay.finish()["weight"].tolist() == [[421, 532], [422, 533], [423, 534], [424, 535]]
        assert firsts == [True] + [False] * 6

    def test_what_was_seen_is_not_overwritten_by_the_next_stretch(self):
        replay = Replay(lambda row, is_first: {"seen": 2 * row["a"]}, 2, "cpu", graphs=False)
        replay.start({"a": torch.tensor([1, 2])})
        seen = replay.finish()["seen"]
        replay.start({"a": torch.tensor([5])})
        assert seen.tolist() == [2, 4]
        assert replay.finish()["seen"].tolist() == [10]

    def test_tables_keep_their_place(self):
        addresses = set()

        def update(row, is_first):
            addresses.add(replay.inputs["a"].data_ptr())
            return {}

        replay = Replay(update, 3, "cpu", graphs=False)
        for count in (3, 1, 2):
            replay.start({"a": torch.rand(count, 5)})
        assert len(addresses) == 1

    def test_autocast_keeps_no_casts_meanwhile(self):
        seen = []
        replay = Replay(lambda row, is_first: seen.append(torch.is_autocast_cache_enabled()) or {}, 1, "cpu", False)
        replay.start({"a": torch.ones(1)})
        assert seen == [False]
        assert torch.is_autocast_cache_enabled()


class TestFrame:
    @pytest.mark.parametrize(
        "optimizer",
        [
            "sgdm",
            "sgdm(nesterov=true, weight_decay=0.01)",
            "sgdm(momentum=0.5, dampening=0.3)",
            "sgdw(weight_decay=0.05)",
            "adamw(weight_decay=0.1)",
            "amsgrad",
            "rmsprop(centered=true, momentum=0.5, weight_decay=0.01)",
        ],
    )
    def test_the_tables_compute_what_the_ordinary_path_computes_bit_for_bit(self, optimizer):
        specs = many("dense_tasks:Dense", 6, optimizer, probes=("gradient_norm", "weight_norm"), lengths=(30, 21))
        for found, right in zip(framed(specs, 8), run_population(specs), strict=True):
            assert found.path == {**right.path, "width": 8}
            assert canonical(found.outcome) == canonical(right.outcome)

    def test_with_a_narrow_code_up_to_the_last_bits(self):
        # MKL chooses its code for two columns by their address, which the tables move.
        specs = many("digits-vae", 5, lengths=(21, 30))
        for found, right in zip(framed(specs, 8), run_population(specs), strict=True):
            assert found.series.train_loss == pytest.approx(right.series.train_loss, rel=1e-5)

    @pytest.mark.parametrize("task", ["tiny_tasks:Random", "digits-autoencoder", "dense_tasks:General"])
    def test_with_noise_and_augmentation_and_under_vmap_too(self, task):
        specs = many(task, 5, lengths=(21, 30))
        for found, right in zip(framed(specs, 8), run_population(specs), strict=True):
            assert found.path["method"] == right.path["method"]
            assert canonical(found.outcome) == canonical(right.outcome)

    def test_over_several_stretches_and_epochs(self):
        specs = many("tiny_tasks:Random", 3, lengths=(250, 110))
        for found, right in zip(framed(specs, 4), run_population(specs), strict=True):
            assert canonical(found.outcome) == canonical(right.outcome)

    def test_a_plan_for_weight_decay_that_is_zero_for_a_while(self):
        spec = make_spec("dense_tasks:DOUBLE", optimizer="adamw(weight_decay=0.3)", updates=20)
        specs = [
            replace(spec, policy=Policy(Plan({"lr": Rex(), "weight_decay": Linear()})), seeds=Seeds.all(seed))
            for seed in (1, 2)
        ]
        for spec, record in zip(specs, framed(specs, 3), strict=True):
            assert_close(record, run_trial(spec), 1e-12)

    @pytest.mark.parametrize(("task", "optimizer"), [("dense_tasks:Dense", "sgdm"), ("digits-autoencoder", "adam")])
    def test_a_record_depends_on_its_spec_alone_bit_for_bit(self, task, optimizer):
        specs = many(task, 17, optimizer, lengths=(12, 9))
        together = {record.trial_id: canonical(record.outcome) for record in framed(specs, 17)}
        assert len(together) == 17
        shuffled = random.Random(0).sample(specs, 17)
        for group in (shuffled, specs[:16], specs[3:5], *([spec] for spec in specs[:3])):
            records = framed(group, 17)
            assert [record.trial_id for record in records] == [spec.trial_id for spec in group]
            assert {record.path["K"] for record in records} == {len(group)}
            for record in records:
                assert canonical(record.outcome) == together[record.trial_id]

    def test_those_that_diverge_stay_as_ballast_and_disturb_nobody(self):
        specs = many("dense_tasks:Dense", 8, lengths=(60, 9))
        wild = [replace(spec, rate=rate) for spec, rate in zip(specs, (1e30, 1e18, 3e5, 1e10), strict=False)]
        mixed = [*wild[:2], *specs[4:], *wild[2:]]
        calm = {record.trial_id: record.outcome for record in framed(specs[4:], 8)}
        records = framed(mixed, 8)
        assert [record.status for record in records].count("diverged") >= 3
        assert [record.status for record in records[2:6]] == ["finished"] * 4
        for spec, record, right in zip(mixed, records, run_population(mixed), strict=True):
            assert canonical(record.outcome) == canonical(right.outcome)
            assert record.trial_id not in calm or record.outcome == calm[record.trial_id]
            assert record.cost.updates == run_trial(spec).cost.updates

    def test_all_diverge(self):
        specs = [make_spec("tiny_tasks:NotANumber", seed=seed) for seed in (1, 2)]
        for spec, record in zip(specs, framed(specs, 4), strict=True):
            assert canonical(record.outcome) == canonical(run_trial(spec).outcome)

    def test_controllers_steer_their_own_member(self):
        spec = make_spec("dense_tasks:DOUBLE", updates=40, eval_every=5)
        specs = [
            replace(spec, policy=Policy(spec.policy.plan, Plateau(0, threshold=0.9)), seeds=Seeds.all(seed))
            for seed in (1, 2, 3)
        ]
        specs[1] = replace(specs[1], policy=spec.policy, updates=12)
        records = framed(specs, 4)
        assert [bool(record.decisions) for record in records] == [True, False, True]
        for spec, record in zip(specs, records, strict=True):
            assert_close(record, run_trial(spec), 1e-12)

    def test_cost_falls_on_members_alone(self):
        records = framed(many("dense_tasks:Dense", 3, lengths=(40,)), 16)
        assert len({round(record.cost.training_seconds, 9) for record in records}) == 1
        assert all(record.cost.training_seconds > 0 and record.cost.evaluation_seconds > 0 for record in records)

    def test_the_way_of_another_layout(self):
        specs = many("dense_tasks:DOUBLE", 3)
        for way in (PaddedProgram, VmapProgram):
            for spec, record in zip(specs, framed(specs, 4, way), strict=True):
                assert record.path["method"] == way.method
                assert_close(record, run_trial(spec), 1e-12)


class TestSideBySide:
    @pytest.mark.parametrize(
        "optimizer", ["sgdm(fused=false)", "sgdm(nesterov=true, weight_decay=0.01)", "adam(eps=0.001)"]
    )
    @pytest.mark.parametrize("task", [PICTURES, "checkpoint_tasks:GRU", "tiny_tasks:Random"])
    def test_a_member_is_the_trial_alone(self, task, optimizer):
        specs = many(task, 3, optimizer, probes=("gradient_norm",))
        for spec, record in zip(specs, side_by_side(specs), strict=True):
            assert record.path["method"] == "side by side"
            # Flat optimizers and fused ones round differently, in the last of seven digits. Before a normalisation, the
            # slope of a bias is nothing but rounding: with its usual eps, Adam takes it for a direction.
            assert_close(record, run_trial(spec), 1e-5)

    @pytest.mark.parametrize("optimizer", ["sgdm", "adam", "adamw(weight_decay=0.1)"])
    def test_in_double_precision_with_statistics_of_its_own(self, optimizer):
        specs = many("checkpoint_tasks:DOUBLE", 3, optimizer, lengths=(21, 9))
        for spec, record in zip(specs, side_by_side(specs), strict=True):
            assert_close(record, run_trial(spec), 1e-12)

    def test_loss_and_gradient_are_those_of_the_module_bit_for_bit(self):
        task = find_task(PICTURES)
        models = [task.model(seed) for seed in (1, 2)]
        program = SideBySide(task, models)
        rows = torch.tensor([[0, 1, 2, 3], [7, 1, 5, 4]])
        batch = tuple(tensor[rows] for tensor in task_splits(task).train)
        losses, gradient = program.gradient(batch, {})
        for member, model in enumerate(models):
            loss = task.loss(model, tuple(tensor[member] for tensor in batch), {})
            loss.backward()
            assert losses[member] == loss
            assert torch.equal(gradient[member], torch.cat([weight.grad.flatten() for weight in model.parameters()]))
            for kept, buffer in zip(program.models[member].buffers(), model.buffers(), strict=True):
                assert torch.equal(kept, buffer)
        assert not torch.equal(program.models[0][1].running_mean, program.models[1][1].running_mean)

    def test_modules_look_into_the_block(self):
        task = find_task(PICTURES)
        program = SideBySide(task, [task.model(seed) for seed in (1, 2)])
        program.weights[1] = 7.0
        assert all(bool((weight == 7.0).all()) for weight in program.models[1].parameters())
        assert not any(bool((weight == 7.0).any()) for weight in program.models[0].parameters())
        program.bind(torch.tensor([1]), program.weights[1:].clone().fill_(3.0))
        assert all(bool((weight == 3.0).all()) for weight in program.models[1].parameters())

    def test_convolutions_in_bfloat16_lie_with_channels_innermost(self):
        task = find_task(PICTURES)
        model = task.model(1)
        program = SideBySideInBfloat16(task, [model])
        weight = program.models[0][0].weight
        assert weight.is_contiguous(memory_format=torch.channels_last)
        assert not weight.is_contiguous()
        assert torch.equal(weight, model[0].weight)
        batch = tuple(tensor[None, :10] for tensor in task_splits(task).train)
        _, gradient = program.gradient(batch, {})
        slope = torch.autograd.grad(program.losses(batch, {})[0], weight)[0]
        assert torch.equal(gradient[0, : weight.numel()].view(8, 3, 3, 4).permute(0, 3, 1, 2), slope)

    def test_bfloat16(self):
        specs = [replace(spec, precision="bfloat16") for spec in many(PICTURES, 3)]
        for spec, record in zip(specs, side_by_side(specs, SideBySideInBfloat16), strict=True):
            alone = run_trial(spec)
            assert record.path["precision"] == "bfloat16"
            assert record.series.train_loss[0] == alone.series.train_loss[0]
            # Weights that differ in their last bit are now and then cast to neighbours 0.4 % apart, and drift.
            assert record.series.train_loss[:8] == pytest.approx(alone.series.train_loss[:8], rel=0.05)

    def test_a_record_depends_on_its_spec_alone_bit_for_bit(self):
        specs = many(PICTURES, 5, lengths=(12, 9))
        together = {record.trial_id: canonical(record.outcome) for record in side_by_side(specs)}
        for group in (specs[::-1], specs[1:3], specs[:1]):
            for record in side_by_side(group):
                assert canonical(record.outcome) == together[record.trial_id]

    def test_weights_that_no_loss_reaches_are_refused(self):
        task = find_task(PICTURES)
        model = task.model(1)
        model.register_parameter("idle", nn.Parameter(torch.ones(1)))
        program = SideBySide(task, [model])
        with pytest.raises(RuntimeError, match="not have been used"):
            program.gradient(tuple(tensor[None, :10] for tensor in task_splits(task).train), {})

    def test_a_cpu_takes_one_trial_after_the_other_instead(self):
        assert choose_program(find_task(PICTURES)) is None
        assert choose_program(find_task("dense_tasks:Dense"), precision="bfloat16") is None


class TestFailures:
    def test_what_cannot_be_captured_runs_without_a_graph(self, monkeypatch, caplog):
        tried = []
        train = population.FramedTraining.train

        def picky(self):
            tried.append(self.graphs)
            if self.graphs:
                raise CaptureFailed("RuntimeError: a synchronisation")
            train(self)

        def opened(self, task, way, specs, frame):
            self.graphs = frame.graphs
            build(self, task, way, specs, replace(frame, graphs=False))

        build = population.FramedTraining.__init__
        monkeypatch.setattr(population.FramedTraining, "__init__", opened)
        monkeypatch.setattr(population.FramedTraining, "train", picky)
        specs = many("dense_tasks:Dense", 3)
        with caplog.at_level(logging.WARNING):
            records = population._run_part(planned_task(specs[0]), PaddedProgram, specs, Frame(4, "cpu", graphs=True))
        assert tried == [True, False]
        assert "without a CUDA graph. CaptureFailed: RuntimeError: a synchronisation" in caplog.text
        assert [record.path["method"] for record in records] == ["baddbmm"] * 3

    @pytest.mark.parametrize(("way", "widths"), [(PaddedProgram, [8, 4, 2, 2, 4, 2]), (SideBySide, [5, 2, 3, 1, 2])])
    def test_out_of_memory_halves_the_width(self, way, widths, monkeypatch):
        tried = []
        train = population.FramedTraining.train

        def greedy(self):
            tried.append(len(self.specs))
            if len(self.specs) > 2:
                raise torch.OutOfMemoryError("too many")
            train(self)

        monkeypatch.setattr(population.FramedTraining, "train", greedy)
        specs = many("dense_tasks:Dense", 5)
        width = len(specs) if way.separate else 8
        records = population._run_part(planned_task(specs[0]), way, specs, Frame(width, "cpu", graphs=False))
        assert tried == widths
        assert {record.status for record in records} == {"finished"}
        assert {record.path.get("width") for record in records} == ({None} if way.separate else {2})
        assert [record.trial_id for record in records] == [spec.trial_id for spec in specs]

    def test_a_population_that_fails_says_why_once(self, monkeypatch, caplog):
        def broken(self):
            raise RuntimeError("no such kernel")

        monkeypatch.setattr(population.PopulationTraining, "train", broken)
        specs = many("dense_tasks:Dense", 3)
        with caplog.at_level(logging.WARNING):
            records = run_population(specs)
        assert [record.path["method"] for record in records] == ["loop"] * 3
        assert caplog.text.count("RuntimeError: no such kernel") == 1


def test_programs_that_share_kernels_are_told_from_those_that_do_not():
    ways = {way.method: way.separate for way in (PaddedProgram, VmapProgram, SideBySide)}
    assert ways == {"baddbmm": False, "vmap": False, "side by side": True}
    assert not Program.separate
    assert SEPARATE_WIDTH >= 1
