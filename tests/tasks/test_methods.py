"""Training methods: names, what each changes, what it leaves alone, and that populations equal their members."""

import importlib.util
import json
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
import torch
from specs import make_spec
from torch import nn
from torch.nn import functional

from glideslope.core.spec import canonical
from glideslope.tasks.methods import BlurPool, ChannelsLast, LabelSmoothing, Mixup
from glideslope.tasks.models import ResidualBlock
from glideslope.trials.batched.choice import choose_program
from glideslope.trials.batched.kernels import cross_entropy
from glideslope.trials.batched.stacked import Stacked
from glideslope.trials.lookup import (
    canonical_name,
    data_sha256,
    find_method,
    find_task,
    registered_methods,
    task_params,
    task_splits,
)
from glideslope.trials.population import run_population
from glideslope.trials.run import run_trial
from glideslope.trials.task import Task
from glideslope.trials.trial import Seeds
from glideslope.trials.variant import Method, varied

EMBEDDED = ("digits-autoencoder", "digits-cnn", "digits-mlp", "digits-vae", "mnist1d-cnn", "mnist1d-gru", "mnist1d-mlp")
METHODS = ("blurpool", "channels_last", "label_smoothing", "mixup")
SUITED = {
    "blurpool": {"digits-cnn", "fashion-cnn", "cifar10-resnet20"},
    "channels_last": {"digits-cnn", "fashion-cnn", "cifar10-resnet20"},
    "label_smoothing": {name for name in EMBEDDED if name.startswith("mnist1d") or name.endswith(("-cnn", "-mlp"))}
    | {"fashion-cnn", "cifar10-resnet20", "shakespeare-lstm"},
    "mixup": {*EMBEDDED, "fashion-cnn", "cifar10-resnet20", "mnist-vae"},
}
TASKS = (*EMBEDDED, "fashion-cnn", "cifar10-resnet20", "mnist-vae", "shakespeare-lstm")
VARIANTS = [f"{task}+{method}" for method in METHODS for task in EMBEDDED if task in SUITED[method]]
VARIANTS += ["mnist1d-mlp+label_smoothing+mixup", "digits-cnn+blurpool+channels_last+label_smoothing+mixup"]

every_variant = pytest.mark.parametrize("name", VARIANTS)


@dataclass(frozen=True)
class Cold(Method):
    """A user's method: logits at a temperature."""

    name = "cold"
    version = 3
    source = "made up"

    temperature: float = 1.0

    def refusal(self, task):
        return ""

    def criterion(self, criterion, noise):
        return lambda logits, labels, **options: criterion(logits / self.temperature, labels, **options)


def draws(task, rows, seed=0):
    generator = np.random.default_rng(seed)
    drawn = task.noise(generator, rows) | task.augmentation(generator, rows)
    return {name: torch.from_numpy(values) for name, values in drawn.items()}


def first(batch, count=12):
    return tuple(tensor[:count] for tensor in batch)


class TestNames:
    def test_the_order_does_not_matter(self):
        assert canonical_name("mnist1d-mlp+mixup+label_smoothing") == "mnist1d-mlp+label_smoothing+mixup"
        one, other = (find_task(f"mnist1d-mlp+{order}") for order in ("mixup+label_smoothing", "label_smoothing+mixup"))
        assert one == other
        assert hash(one) == hash(other)
        assert one.name == "mnist1d-mlp+label_smoothing+mixup"

    def test_a_task_without_methods_is_the_task(self):
        assert canonical_name("mnist1d-mlp") == "mnist1d-mlp"
        assert type(find_task("mnist1d-mlp")).__name__ == "MNIST1DMLP"

    @every_variant
    def test_name_and_parameters_lead_back_to_the_task(self, name):
        task = find_task(name)
        assert find_task(task.name, json.loads(canonical(task_params(task)))) == task

    def test_parameters_are_the_tasks_and_the_methods(self):
        params = {"label_noise": 0.4, "+label_smoothing": {"amount": 0.2}}
        task = find_task("mnist1d-mlp+label_smoothing+mixup", params)
        assert task_params(task) == {**params, "+mixup": {"alpha": 0.2}}
        assert task.task == find_task("mnist1d-mlp", {"label_noise": 0.4})

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("mnist1d-mlp+mixpu", r"unknown method 'mixpu'. Did you mean 'mixup'\? Known: .*module:attribute"),
            ("mnist1d-mpl+mixup", "unknown task 'mnist1d-mpl'. Did you mean 'mnist1d-mlp'"),
            ("mnist1d-mlp+", "unknown method ''"),
            ("mnist1d-mlp+mixup+mixup", "mnist1d-mlp has mixup more than once"),
            ("mnist1d-mlp+no_such_module:Method", "method 'no_such_module:Method' cannot be imported"),
            ("mnist1d-mlp+tiny_tasks:Regression", "'tiny_tasks:Regression' is no training method"),
        ],
    )
    def test_mistakes(self, name, message):
        with pytest.raises(ValueError, match=message):
            find_task(name)

    @pytest.mark.parametrize("name", ["mnist1d-mlp", "mnist1d-mlp+label_smoothing"])
    def test_settings_of_a_method_that_is_not_named(self, name):
        with pytest.raises(ValueError, match=f"settings of 'mixup', which '{name.replace('+', '.')}' does not name"):
            find_task(name, {"+mixup": {"alpha": 0.4}})

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: LabelSmoothing(0.0), "0 < amount < 1"),
            (lambda: LabelSmoothing(1.0), "0 < amount < 1"),
            (lambda: Mixup(0.0), "0 < alpha < inf"),
            (lambda: Mixup(float("nan")), "0 < alpha < inf"),
        ],
    )
    def test_settings_out_of_bounds(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()

    def test_the_version_rises_with_that_of_any_method(self):
        task = find_task("mnist1d-mlp")
        assert varied(task, (Cold(2.0),)).version == task.version + 3
        assert varied(task, (Cold(2.0), Mixup())).version == task.version + 4

    def test_methods_and_their_settings_are_part_of_a_trials_identity(self):
        names = ["mnist1d-mlp", "mnist1d-mlp+mixup", "mnist1d-mlp+label_smoothing", "mnist1d-mlp+label_smoothing+mixup"]
        specs = [make_spec(name) for name in names]
        spec = specs[1]
        params = json.dumps({"label_noise": 0.2, "+mixup": {"alpha": 0.4}})
        specs.append(replace(spec, task=replace(spec.task, params=params)))
        assert len({spec.trajectory_id for spec in specs}) == len(specs)
        assert len({spec.task.data_sha256 for spec in specs}) == 1


class TestRefusals:
    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("task", TASKS)
    def test_a_method_applies_or_says_why_not(self, task, method):
        if task in SUITED[method]:
            assert find_task(f"{task}+{method}").name == f"{task}+{method}"
        else:
            with pytest.raises(ValueError, match=f"{method} does not apply to {task}, because it"):
                find_task(f"{task}+{method}")

    def test_tokens_are_not_mixed(self):
        with pytest.raises(ValueError, match="its inputs are tokens"):
            find_task("shakespeare-lstm+mixup")

    @pytest.mark.parametrize("name", ["layer_freezing", "progressive_resizing"])
    def test_methods_with_a_schedule_of_their_own(self, name):
        with pytest.raises(ValueError, match=f"{name} does not apply .* schedule of its own .* cycle with the rate"):
            find_task(f"digits-cnn+{name}")

    @pytest.mark.parametrize("method", [LabelSmoothing(), Mixup()])
    def test_a_loss_in_one_piece(self, method):
        with pytest.raises(ValueError, match="a method can reach into"):
            varied(find_task("tiny_tasks:Regression"), (method,))

        class Own(type(find_task("mnist1d-mlp")).__mro__[1]):
            name, version, defaults, maximum_epochs = "own", 1, {}, 1

            def model(self, seed):
                return nn.Linear(40, 10)

            def loss(self, model, batch, noise):
                return model(batch[0]).square().mean()

        with pytest.raises(ValueError, match="does not apply to own"):
            varied(Own(), (method,))

    def test_blurpool_without_kornia(self, monkeypatch):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(ValueError, match=r"pip install 'glideslope\[methods\]'"):
            varied(find_task("digits-cnn"), (BlurPool(),))

    def test_every_registered_method_loads(self):
        assert {*METHODS, "layer_freezing", "progressive_resizing"} == set(registered_methods())
        assert all(find_method(name).name == name and find_method(name).source for name in registered_methods())


class TestContract:
    @every_variant
    def test_data_and_everything_said_about_the_task_are_the_tasks(self, name):
        task, plain = find_task(name), find_task(name.partition("+")[0])
        assert task_splits(task) is task_splits(plain)
        assert data_sha256(task) == data_sha256(plain)
        for left, right in zip(task.splits().train, plain.splits().train, strict=True):
            assert torch.equal(left, right)
        for attribute in ("source", "needs", "maximum_epochs", "batch_size", "metric", "defaults", "whole_epochs"):
            assert getattr(task, attribute) == getattr(plain, attribute)

    @every_variant
    def test_evaluation_is_the_tasks(self, name):
        task, plain = find_task(name), find_task(name.partition("+")[0])
        model, batch = task.model(0).eval(), first(task.splits().test)
        values, wanted = (each.evaluate(model, batch, draws(each, 12)) for each in (task, plain))
        assert values.keys() == wanted.keys()
        assert all(torch.equal(values[name], wanted[name]) for name in values)

    @every_variant
    def test_model_and_loss_are_pure(self, name):
        task = find_task(name)
        state = torch.get_rng_state()
        model, again = task.model(3), task.model(3)
        batch, noise = first(task.splits().train), draws(task, 12)
        loss = task.loss(model, batch, noise)
        assert loss.shape == ()
        assert torch.equal(loss, task.loss(again, batch, noise))
        assert torch.equal(state, torch.get_rng_state())
        loss.backward()
        assert all(weight.grad.isfinite().all() and weight.grad.any() for weight in model.parameters())

    @every_variant
    def test_the_tasks_own_draws_stay_and_methods_draw_from_the_generator(self, name):
        task, plain = find_task(name), find_task(name.partition("+")[0])
        drawn, own = draws(task, 9), draws(plain, 9)
        assert all(torch.equal(drawn[key], own[key]) for key in own)
        assert all(torch.equal(drawn[key], values) for key, values in draws(task, 9).items())
        other = draws(task, 9, seed=1)
        assert not any(torch.equal(drawn[key], other[key]) for key in other)

    def test_the_engine_makes_no_generator_for_variants_that_draw_nothing(self):
        assert type(find_task("mnist1d-mlp+label_smoothing")).noise is Task.noise
        assert type(find_task("mnist1d-mlp+mixup")).noise is not Task.noise
        assert type(find_task("digits-vae+mixup")).noise is not Task.noise

    @pytest.mark.parametrize("name", ["mnist1d-mlp+label_smoothing+mixup", "digits-cnn+blurpool+mixup"])
    def test_trials_replay_bit_for_bit(self, name):
        spec = make_spec(name, updates=12)
        one, other = run_trial(spec), run_trial(spec)
        assert one.status == "finished", one.error
        assert canonical(one.outcome) == canonical(other.outcome)
        assert one.series.train_loss != run_trial(replace(spec, seeds=Seeds(1, 1, 2))).series.train_loss


class TestLabelSmoothing:
    def test_it_is_the_paper_formula(self):
        task = find_task("mnist1d-mlp+label_smoothing")
        model, (inputs, labels) = task.model(0), first(task.splits().train)
        target = 0.9 * functional.one_hot(labels, 10) + 0.1 / 10
        expected = -(target * functional.log_softmax(model(inputs), dim=1)).sum(1).mean()
        torch.testing.assert_close(task.loss(model, (inputs, labels), {}), expected)

    def test_of_characters(self):
        task = find_task("shakespeare-lstm+label_smoothing")
        model, characters = task.model(0), torch.arange(24).view(3, 8)
        logits, targets = model(characters), characters.flip(1)
        expected = functional.cross_entropy(logits.transpose(1, 2), targets, label_smoothing=0.1)
        torch.testing.assert_close(task.loss(model, (characters, targets), {}), expected)


class TestMixup:
    def test_it_is_the_paper_formula(self):
        task = find_task("mnist1d-mlp+mixup")
        model, (inputs, labels) = task.model(0), first(task.splits().train)
        noise = draws(task, 12)
        share, partner = float(noise["mixup_share"]), noise["mixup_partner"].flatten()
        target = share * functional.one_hot(labels, 10) + (1 - share) * functional.one_hot(labels[partner], 10)
        mixed = share * inputs + (1 - share) * inputs[partner]
        expected = -(target * functional.log_softmax(model(mixed), dim=1)).sum(1).mean()
        torch.testing.assert_close(task.loss(model, (inputs, labels), noise), expected)

    def test_shares_are_beta_and_partners_a_permutation(self):
        drawn = [Mixup(0.2).noise(np.random.default_rng(seed), 30) for seed in range(2000)]
        shares = np.array([each["mixup_share"].item() for each in drawn])
        # Beta(a, a) has mean 1/2 and variance 1 / (4 (2 a + 1)); four standard errors.
        assert shares.mean() == pytest.approx(0.5, abs=4 * (0.1786 / 2000) ** 0.5)
        assert shares.var() == pytest.approx(1 / (4 * 1.4), rel=0.05)
        assert all(sorted(each["mixup_partner"].flatten()) == list(range(30)) for each in drawn[:20])

    def test_autoencoders_reconstruct_the_averages(self):
        task, plain = find_task("digits-autoencoder+mixup"), find_task("digits-autoencoder")
        model, (inputs,) = task.model(0), first(task.splits().train)
        noise = draws(task, 12)
        mixed = Mixup().shown(inputs, noise)
        assert torch.equal(task.loss(model, (inputs,), noise), plain.loss(model, (mixed,), {}))

    def test_images_are_augmented_first(self):
        task, plain = find_task("cifar10-resnet20+mixup"), find_task("cifar10-resnet20")
        images, labels = torch.rand(6, 3, 32, 32), torch.arange(6)
        noise = draws(task, 6)
        seen = []

        class Watched(nn.Module):
            def forward(self, inputs):
                seen.append(inputs)
                return inputs.mean((1, 2, 3))[:, None] * torch.ones(10)

        task.loss(Watched(), (images, labels), noise)
        (shown,) = seen
        assert torch.equal(shown, Mixup().shown(plain.shown(images, noise), noise))

    def test_with_label_smoothing_in_either_order(self):
        task = find_task("mnist1d-mlp")
        model, batch = task.model(0), first(task.splits().train)
        losses = []
        for methods in ((Mixup(), LabelSmoothing()), (LabelSmoothing(), Mixup())):
            variant = varied(task, methods)
            losses.append(variant.loss(model, batch, draws(variant, 12)))
        assert torch.equal(*losses)
        assert losses[0] != find_task("mnist1d-mlp+mixup").loss(model, batch, draws(variant, 12))

    def test_a_part_of_a_batch_is_refused(self):
        task = find_task("mnist1d-mlp+mixup")
        with pytest.raises(ValueError, match=r"12 examples of a batch, but has 6 .* --ranks 1"):
            task.loss(task.model(0), first(task.splits().train, 6), draws(task, 12))


class TestImages:
    def test_channels_last_is_another_layout_of_the_same_numbers(self):
        task, plain = find_task("digits-cnn+channels_last"), find_task("digits-cnn")
        model, wanted = task.model(0), plain.model(0)
        weight = model[3].weight
        assert weight.is_contiguous(memory_format=torch.channels_last)
        assert not weight.is_contiguous()
        assert all(torch.equal(one, other) for one, other in zip(model.parameters(), wanted.parameters(), strict=True))
        assert model[0](torch.rand(2, 1, 8, 8)).is_contiguous(memory_format=torch.channels_last)
        batch = first(task.splits().train)
        torch.testing.assert_close(task.loss(model, batch, {}), plain.loss(wanted, batch, {}))

    def test_blurpool_keeps_shapes_and_weights(self):
        for name in ("digits-cnn", "fashion-cnn", "cifar10-resnet20"):
            model, plain = find_task(f"{name}+blurpool").model(0), find_task(name).model(0)
            for one, other in zip(model.parameters(), plain.parameters(), strict=True):
                assert torch.equal(one, other)
            shape = {"digits-cnn": (1, 8, 8), "fashion-cnn": (1, 28, 28)}.get(name, (3, 32, 32))
            assert model(torch.rand(2, *shape)).shape == (2, 10)

    def test_blurpool_follows_the_paper(self):
        """Max pool without a stride, (1, 2, 1) / 4 along both axes with zeros around, every second pixel."""
        pool = find_task("digits-cnn+blurpool").model(0)[2]
        images = torch.rand(2, 8, 8, 8)
        dense = functional.pad(functional.max_pool2d(images, 2, 1), (1, 1, 1, 1))
        rows = (dense[:, :, :-2] + 2 * dense[:, :, 1:-1] + dense[:, :, 2:]) / 4
        both = (rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 4
        torch.testing.assert_close(pool(images), both[:, :, ::2, ::2])

    def test_strided_convolutions_see_a_blurred_image(self):
        blocks = [m for m in find_task("cifar10-resnet20+blurpool").model(0).modules() if isinstance(m, ResidualBlock)]
        blurred = [isinstance(block.convolution1, nn.Sequential) for block in blocks]
        assert blurred == [block.stride == 2 for block in blocks]
        assert sum(blurred) == 2

    def test_both_together(self):
        task = varied(find_task("digits-cnn"), (BlurPool(), ChannelsLast()))
        other = varied(find_task("digits-cnn"), (ChannelsLast(), BlurPool()))
        batch = first(task.splits().train)
        losses = [each.loss(each.model(0), batch, {}) for each in (task, other)]
        torch.testing.assert_close(*losses)


class TestPopulations:
    @pytest.mark.parametrize(
        "name",
        [
            "mnist1d-mlp+label_smoothing",
            "mnist1d-mlp+label_smoothing+mixup",
            "digits-mlp+mixup",
            "digits-autoencoder+mixup",
            "digits-vae+mixup",
        ],
    )
    def test_dense_families_are_stacked_and_equal_their_members(self, name):
        assert choose_program(find_task(name)).method == "baddbmm"
        specs = [
            make_spec(name, schedule, seeds=Seeds(index % 3, index % 2, index), updates=21, eval_every=8, rate=0.01)
            for index, schedule in enumerate(("linear", "one_cycle", "constant", "rex+warmup(10%)"))
        ]
        for spec, record in zip(specs, run_population(specs), strict=True):
            assert record.path["method"] == "baddbmm"
            alone = run_trial(spec)
            assert record.status == alone.status == "finished", alone.error
            np.testing.assert_allclose(record.series.train_loss, alone.series.train_loss, rtol=1e-5)
            np.testing.assert_allclose(record.test.loss, alone.test.loss, rtol=1e-5)

    def test_rows_are_picked_member_by_member(self):
        values, order = torch.rand(3, 5, 2), torch.stack([torch.randperm(5) for _ in range(3)])
        picked = Stacked(values)[Stacked(order)].data
        assert torch.equal(picked, torch.stack([values[member][order[member]] for member in range(3)]))
        with pytest.raises(IndexError):
            Stacked(values)[Stacked(order + 1)]

    @pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
    def test_the_kernel_smooths_as_pytorch_does(self, smoothing):
        logits = torch.randn(3, 7, 5, dtype=torch.float64, requires_grad=True)
        labels = torch.randint(5, (3, 7))
        smooth = partial(functional.cross_entropy, reduction="none", label_smoothing=smoothing)
        expected = smooth(logits.flatten(0, 1), labels.flatten()).view(3, 7)
        found = cross_entropy(logits, labels, smoothing)
        torch.testing.assert_close(found, expected)
        weights = torch.rand(3, 7, dtype=torch.float64)
        slopes = [torch.autograd.grad((values * weights).sum(), logits)[0] for values in (found, expected)]
        torch.testing.assert_close(*slopes)
