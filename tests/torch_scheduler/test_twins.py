"""Oracle twins: PyTorch's own schedulers, where they are right, give the same rates."""

import pytest
import torch
from torch.optim import lr_scheduler

from glideslope import Constant, Cosine, Cycles, Exponential, Knots, Linear, Polynomial, Step
from glideslope.torch import BudgetScheduler

UPDATES = 90
TWINS = {
    "linear": (Linear(), lambda o: lr_scheduler.LinearLR(o, 1.0, 0.0, total_iters=UPDATES), UPDATES + 10),
    "partial-linear": (
        Knots((0, 0.25), (0.5, 1), (1, 1)),
        lambda o: lr_scheduler.LinearLR(o, 0.25, 1.0, total_iters=UPDATES // 2),
        UPDATES + 10,
    ),
    "lambda": (
        Linear(),
        lambda o: lr_scheduler.LambdaLR(o, lambda update: max(0.0, 1 - update / UPDATES)),
        UPDATES + 10,
    ),
    # Beyond T_max it rises again, which is why it is a twin up to there only.
    "cosine": (Cosine(), lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=UPDATES), UPDATES),
    "exponential": (
        Exponential(-3),
        lambda o: lr_scheduler.ExponentialLR(o, gamma=2.718281828459045 ** (-3 / UPDATES)),
        UPDATES,
    ),
    "polynomial": (
        Polynomial(2.5),
        lambda o: lr_scheduler.PolynomialLR(o, total_iters=UPDATES, power=2.5),
        UPDATES + 10,
    ),
    "step": (
        Step((1 / 3, 0.7, 0.9), 0.2),
        lambda o: lr_scheduler.MultiStepLR(o, [UPDATES // 3, 63, 81], gamma=0.2),
        UPDATES + 10,
    ),
    "constant": (Constant(), lambda o: lr_scheduler.ConstantLR(o, factor=1.0), UPDATES + 10),
    "restarts": (
        Cycles(Cosine(), period=10 / UPDATES),
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=10),
        UPDATES - 1,
    ),
    "growing-restarts": (
        Cycles(Cosine(), period=10 / UPDATES, multiplier=2),
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=10, T_mult=2),
        UPDATES - 1,
    ),
}


def optimizer():
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (0.3, 0.01)]
    return torch.optim.SGD(groups, lr=1.0, momentum=0.9)


@pytest.mark.parametrize("name", TWINS)
def test_the_rates_are_those_of_the_twin(name):
    multiplier, make_twin, steps = TWINS[name]
    mine, other = optimizer(), optimizer()
    scheduler, twin = BudgetScheduler(mine, multiplier, f"{UPDATES}ba"), make_twin(other)
    for update in range(steps + 1):
        rates = [group["lr"] for group in other.param_groups]
        # PyTorch computes many of these by recursion, each step of which rounds: 1e-13 of the base per step.
        for rate, expected, base in zip(scheduler.get_last_lr(), rates, (0.3, 0.01), strict=True):
            assert rate == pytest.approx(expected, abs=base * 1e-12), f"update {update}"
        other.step()
        twin.step()
        scheduler.step()


def test_plateau_in_the_loop_is_reduce_lr_on_plateau():
    mine, other = optimizer(), optimizer()
    scheduler = BudgetScheduler(mine, "plateau(patience=3, factor=0.5)", "200ba")
    twin = lr_scheduler.ReduceLROnPlateau(other, patience=3, factor=0.5, eps=0.0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        loss = torch.rand((), generator=generator).item()
        scheduler.step()
        scheduler.observe(val_loss=loss)
        twin.step(loss)
        assert scheduler.get_last_lr() == pytest.approx([group["lr"] for group in other.param_groups], rel=1e-12)
    assert scheduler.gain < 0.01
