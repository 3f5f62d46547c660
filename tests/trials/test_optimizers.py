"""Optimizers as named values."""

import pytest
import tiny_tasks
import torch
from specs import make_spec
from torch import nn

from glideslope.torch.sgdw import SGDW
from glideslope.trials.optimizers import FALLBACK_RATE, OptimizerSpec
from glideslope.trials.run import run_trial


def build(text, rate=0.1):
    return OptimizerSpec.parse(text).build([nn.Parameter(torch.ones(3))], rate)


class TestNames:
    @pytest.mark.parametrize(
        ("text", "kind", "settings"),
        [
            ("sgdm", torch.optim.SGD, {"momentum": 0.9, "nesterov": False, "weight_decay": 0}),
            ("sgdm(momentum=0.95)", torch.optim.SGD, {"momentum": 0.95}),
            ("sgdm(nesterov=true)", torch.optim.SGD, {"nesterov": True, "momentum": 0.9}),
            ("adam", torch.optim.Adam, {"betas": (0.9, 0.999), "amsgrad": False}),
            ("adamw(weight_decay=0.05)", torch.optim.AdamW, {"weight_decay": 0.05}),
            ("amsgrad", torch.optim.Adam, {"amsgrad": True}),
            ("rmsprop", torch.optim.RMSprop, {}),
            ("sgdw", SGDW, {"momentum": 0.9}),
            ("torch.optim:Adagrad", torch.optim.Adagrad, {}),
        ],
    )
    def test_a_name_is_a_class_and_its_settings(self, text, kind, settings):
        optimizer = build(text, rate=0.125)
        assert type(optimizer) is kind
        group = optimizer.param_groups[0]
        assert group["lr"] == 0.125
        assert {name: group[name] for name in settings} == settings

    @pytest.mark.parametrize("name", ["sgdm", "adam", "adamw", "amsgrad", "rmsprop", "sgdw"])
    def test_every_name_trains(self, name):
        assert run_trial(make_spec(optimizer=name, rate=0.01)).status == "finished"

    def test_equal_settings_are_equal_values(self):
        assert OptimizerSpec.parse("sgdm( momentum = 95% )") == OptimizerSpec.parse("sgdm(momentum=0.95)")

    @pytest.mark.parametrize(
        "text", ["sgdm", "sgdm(momentum=0.95)", "sgdm(nesterov=true)", "adam(betas=(0.8, 0.99))", "torch.optim:Adagrad"]
    )
    def test_text_and_value_are_one(self, text):
        spec = OptimizerSpec.parse(text)
        assert OptimizerSpec.parse(str(spec)) == spec

    def test_tuples_work(self):
        assert run_trial(make_spec(optimizer="adam(betas=(0.8, 0.99))", schedule="one_cycle")).status == "finished"


class TestImportPaths:
    def test_closure_optimizers_work(self):
        record = run_trial(make_spec(optimizer="torch.optim:LBFGS", schedule="constant", rate=1.0, updates=16))
        assert record.status == "finished"
        # LBFGS at rate 1 all but solves a least-squares problem of 8 examples in one call of step().
        assert min(record.series.train_loss[1:]) < record.series.train_loss[0]

    def test_the_starting_rate_is_the_class_own(self):
        assert OptimizerSpec.parse("torch.optim:LBFGS").rate == 1.0
        assert OptimizerSpec.parse("torch.optim:Adagrad").rate == 0.01
        assert OptimizerSpec.parse("tiny_tasks:TwoModes").rate == 1e-3 == FALLBACK_RATE

    @pytest.mark.parametrize("text", ["no_such_module:Thing", "torch.optim:Nothing"])
    def test_what_cannot_be_imported(self, text):
        with pytest.raises(ValueError, match=f"optimizer '{text}' cannot be imported"):
            OptimizerSpec.parse(text)

    def test_what_is_no_class(self):
        with pytest.raises(ValueError, match="must be a class"):
            OptimizerSpec.parse("os:getpid")


class TestMistakes:
    def test_a_misspelt_name(self):
        with pytest.raises(ValueError, match=r"unknown optimizer 'adamm'. Did you mean 'adam'\? Known: adam, "):
            OptimizerSpec.parse("adamm")

    def test_a_misspelt_argument(self):
        with pytest.raises(ValueError, match=r"unknown argument of sgdm 'momentun'. Did you mean 'momentum'\?"):
            OptimizerSpec.parse("sgdm(momentun=0.95)")

    def test_an_argument_that_is_a_schedule(self):
        with pytest.raises(ValueError, match="momentum of sgdm is rex, but must be a number"):
            OptimizerSpec.parse("sgdm(momentum=rex)")

    def test_arguments_need_names(self):
        with pytest.raises(ValueError, match="need names"):
            OptimizerSpec.parse("sgdm(0.95)")

    def test_the_rate_belongs_to_the_trial(self):
        with pytest.raises(ValueError, match="leave lr out"):
            OptimizerSpec.parse("sgdm(lr=0.1)")


class TestSgdw:
    def test_equals_the_textbook(self):
        torch.manual_seed(0)
        weight = nn.Parameter(torch.randn(5, dtype=torch.float64))
        twin, velocity = weight.detach().clone(), torch.zeros(5, dtype=torch.float64)
        optimizer = OptimizerSpec.parse("sgdw(momentum=0.8, weight_decay=0.01)").build([weight], 0.1)
        for step in range(20):
            rate = 0.1 * (1 - step / 20)
            optimizer.param_groups[0]["lr"] = rate
            gradient = torch.randn(5, dtype=torch.float64)
            weight.grad = gradient.clone()
            optimizer.step()
            velocity = 0.8 * velocity + gradient
            twin = twin - rate * velocity - rate / 0.1 * 0.01 * twin
            # Same formula in another order of operations, in float64.
            torch.testing.assert_close(weight.detach(), twin, rtol=1e-12, atol=0)


class TestPlans:
    def test_momentum_of_a_plan_is_beta_one_of_adam(self, monkeypatch):
        seen, groups, build = [], [], OptimizerSpec.build

        def kept(self, parameters, rate):
            optimizer = build(self, parameters, rate)
            groups.extend(optimizer.param_groups)
            return optimizer

        def loss(self, model, batch, noise):
            seen.append(groups[0]["betas"])
            return tiny_tasks.Regression.loss(self, model, batch, noise)

        monkeypatch.setattr(OptimizerSpec, "build", kept)
        monkeypatch.setattr(tiny_tasks.Random, "loss", loss)
        record = run_trial(make_spec("tiny_tasks:Random", "one_cycle", optimizer="adam", updates=4))
        assert record.status == "finished"
        assert [beta for beta, _ in seen] == pytest.approx([0.95, 0.9, 0.85, 0.9], rel=1e-12)
        assert {beta for _, beta in seen} == {0.999}

    def test_a_plan_for_what_the_optimizer_lacks_is_a_failed_trial(self):
        record = run_trial(make_spec(schedule="plan(lr=rex, temperature=linear)"))
        assert record.status == "failed"
        assert "temperature" in record.error
