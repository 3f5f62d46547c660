"""timm: in the order of its script, rates follow k/N, epochs end, and a run resumes as the script resumes it."""

import json

import pytest
import torch

from glideslope import Epochs, Linear, Plan, Plateau, Preamble, Steps
from glideslope.integrations.timm import TimmBudgetScheduler
from glideslope.torch import Clock

STOPPED = Clock(monotonic=lambda: 0.0, wall=lambda: 0.0)
EPOCHS, BATCHES, ACCUMULATED = 3, 7, 2
PER_EPOCH = 4  # 2 + 2 + 2 + 1 batches
LENGTH = Epochs(EPOCHS, PER_EPOCH)


def adamw():
    return torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))], lr=0.1)


def script(optimizer, scheduler, start_epoch=0, sched_on_updates=False, metric=None, states=None):
    """The calls of timm's train.py, with accumulation. Returns the rate of every update."""
    if start_epoch > 0:
        if sched_on_updates:
            scheduler.step_update(start_epoch * PER_EPOCH)
        else:
            scheduler.step(start_epoch)
    rates = []
    for epoch in range(start_epoch, EPOCHS):
        num_updates = epoch * PER_EPOCH
        for batch in range(BATCHES):
            if batch != BATCHES - 1 and (batch + 1) % ACCUMULATED:
                continue
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            num_updates += 1
            scheduler.step_update(num_updates=num_updates, metric=0.123)
        scheduler.step(epoch + 1, metric)
        if states is not None:
            states.append(json.dumps([optimizer.state_dict(), scheduler.state_dict()]))
    return rates


def line(begin=0, base=0.1):
    return [base * (1 - update / (EPOCHS * PER_EPOCH)) for update in range(begin, EPOCHS * PER_EPOCH)]


def test_every_update_runs_at_its_rate():
    optimizer = adamw()
    scheduler = TimmBudgetScheduler(optimizer, "linear", LENGTH)
    assert script(optimizer, scheduler) == pytest.approx(line())
    assert (scheduler.progress, scheduler.exhausted, scheduler.get_last_lr()) == (1.0, True, [0.0])
    assert scheduler.t_in_epochs is False


def test_epochs_of_unknown_length_are_learned_from_the_first_epochs_end():
    optimizer = adamw()
    scheduler = TimmBudgetScheduler(optimizer, "linear", "3ep")
    assert script(optimizer, scheduler) == pytest.approx([0.1] * PER_EPOCH + line(PER_EPOCH))
    assert scheduler.scheduler.budget == LENGTH


def test_the_metric_of_an_epoch_is_observed_and_that_of_an_update_is_not():
    optimizer = adamw()
    scheduler = TimmBudgetScheduler(optimizer, "linear", LENGTH, Plateau(patience=0, factor=0.5))
    factors = [1.0] * (2 * PER_EPOCH) + [0.5] * PER_EPOCH  # the second epoch brings no improvement
    rates = [rate * factor for rate, factor in zip(line(), factors, strict=True)]
    assert script(optimizer, scheduler, metric=1.0) == pytest.approx(rates)
    optimizer.step()
    scheduler.step_update(num_updates=EPOCHS * PER_EPOCH + 1, metric=0.123)
    assert scheduler.state_dict()["scheduler"]["unseen_losses"] == []
    assert len(scheduler.scheduler.decisions) == EPOCHS


def test_layer_wise_decay_is_in_the_base_rate():
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr_scale": scale} for scale in (0.25, 1.0)]
    optimizer = torch.optim.SGD(groups, lr=0.4)
    scheduler = TimmBudgetScheduler(optimizer, "linear", "2ba")
    assert scheduler.get_last_lr() == [0.1, 0.4]
    scheduler.step_update(1)
    assert scheduler.get_last_lr() == [0.05, 0.2]
    # timm loads the optimizer before it makes the scheduler of a resumed run.
    again = TimmBudgetScheduler(optimizer, "linear", "2ba")
    again.step_update(1)
    assert again.get_last_lr() == [0.05, 0.2]


def test_a_wrapper_like_timms_lookahead_is_counted_by_the_optimizer_inside():
    class Lookahead(torch.optim.Optimizer):
        def __init__(self, base_optimizer):  # no super().__init__(), so no hooks
            self._base_optimizer, self.param_groups = base_optimizer, base_optimizer.param_groups

        def step(self, closure=None):
            return self._base_optimizer.step(closure)

    optimizer = Lookahead(adamw())
    assert script(optimizer, TimmBudgetScheduler(optimizer, "linear", LENGTH)) == pytest.approx(line())


@pytest.mark.parametrize("sched_on_updates", [False, True])
@pytest.mark.parametrize("start_epoch", [1, 2])
def test_a_run_resumed_as_the_script_does_it_goes_on_in_its_place(start_epoch, sched_on_updates):
    optimizer = adamw()
    scheduler = TimmBudgetScheduler(optimizer, "linear", LENGTH)
    rates = script(optimizer, scheduler, start_epoch, sched_on_updates)
    assert rates == pytest.approx(line(start_epoch * PER_EPOCH))
    assert scheduler.exhausted


@pytest.mark.parametrize("sched_on_updates", [False, True])
@pytest.mark.parametrize("start_epoch", [1, 2])
def test_a_run_resumed_from_its_state_is_the_run_that_never_stopped(start_epoch, sched_on_updates):
    def new():
        optimizer = adamw()
        return optimizer, TimmBudgetScheduler(optimizer, "one_cycle", "3ep", Plateau(patience=0), clock=STOPPED)

    states = []
    whole = script(*new(), metric=1.0, states=states)
    optimizer, scheduler = new()
    for part, state in zip((optimizer, scheduler), json.loads(states[start_epoch - 1]), strict=True):
        part.load_state_dict(state)
    again = []
    assert script(optimizer, scheduler, start_epoch, sched_on_updates, 1.0, again) == whole[start_epoch * PER_EPOCH :]
    assert again == states[start_epoch:]


@pytest.mark.parametrize("sched_on_updates", [False, True])
@pytest.mark.parametrize(
    ("schedule", "budget", "controller"),
    [
        ("linear", "45min", None),
        ("linear", "3ep", None),
        ("linear", LENGTH, Plateau()),
        (Plan({"lr": Linear()}, Preamble(Steps(3), 0.0, 0.5)), LENGTH, None),
    ],
)
def test_a_place_that_a_number_does_not_tell_has_to_be_loaded(schedule, budget, controller, sched_on_updates):
    optimizer = adamw()
    scheduler = TimmBudgetScheduler(optimizer, schedule, budget, controller)
    with pytest.raises(ValueError, match=r"does not tell where it stood\. Save `lr_scheduler\.state_dict\(\)`"):
        script(optimizer, scheduler, 1, sched_on_updates)


def test_a_number_of_epochs_does_not_tell_where_a_budget_in_updates_stood():
    optimizer = adamw()
    with pytest.raises(ValueError, match=r"or give the budget as Epochs\(epochs, updates_per_epoch\)"):
        script(optimizer, TimmBudgetScheduler(optimizer, "linear", "12ba"), 1, sched_on_updates=False)
    assert script(optimizer, TimmBudgetScheduler(optimizer, "linear", "12ba"), 1, True) == pytest.approx(line(4))


@pytest.mark.parametrize("every", [1, 2])
def test_what_is_counted_is_what_the_optimizer_did_whatever_the_script_says(every):
    optimizer = adamw()
    scheduler = TimmBudgetScheduler(optimizer, "linear", "12ba")
    for num_updates in range(1, 11):
        if num_updates != 5:  # as a skipped step of mixed precision
            optimizer.step()
        if num_updates % every == 0:
            scheduler.step_update(num_updates)
            assert scheduler.progress == pytest.approx((num_updates - (num_updates >= 5)) / 12)
