"""Accelerate: T updates are T updates on every rank, prepared or not. Four real processes, gloo."""

import json
import multiprocessing
import sys
import time

import accelerate_ranks
import pytest
import torch
from accelerate_ranks import RANKS, UPDATES, WAYS

from glideslope import Plateau
from glideslope.integrations.accelerate import AcceleratedBudgetScheduler
from glideslope.torch import BudgetScheduler, Clock

LINE = [1e-2 * (1 - update / UPDATES) for update in range(UPDATES)]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What every rank found: name of the experiment → result."""
    if sys.platform == "win32":
        pytest.skip("gloo's file rendezvous")
    folder = tmp_path_factory.mktemp("ranks")
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=accelerate_ranks.work, args=(rank, str(folder)), daemon=True) for rank in range(RANKS)
    ]
    for process in processes:
        process.start()
    end = time.monotonic() + 1200
    for process in processes:
        process.join(max(0.0, end - time.monotonic()))
    assert [process.exitcode for process in processes] == [0] * RANKS
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(RANKS)]


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("split_batches", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_twenty_updates_are_twenty_updates(ranks, way, split_batches, accumulation):
    for found in ranks:
        assert found[f"counted {way} {split_batches} {accumulation}"] == pytest.approx(LINE, rel=1e-12)


def test_a_scheduler_that_counts_calls_is_over_after_a_quarter_of_them(ranks):
    quarter = UPDATES // RANKS
    for found in ranks:
        rates = found["peer"]
        assert rates[:quarter] == pytest.approx([1e-2 * (1 - RANKS * update / UPDATES) for update in range(quarter)])
        assert rates[quarter:] == pytest.approx([0.0] * (UPDATES - quarter), abs=1e-17)


@pytest.mark.parametrize("prepared", [False, True])
def test_the_tokens_of_all_ranks_and_accumulated_batches_are_counted_once(ranks, prepared):
    for found in ranks:
        assert found[f"tokens {prepared}"] == [0.0, 0.2, 0.2, 0.4, 0.4, 0.6, 0.6, 0.8, 0.8, 1.0]


@pytest.mark.parametrize("prepared", [False, True])
def test_all_ranks_leave_at_the_same_update_by_the_clock_of_one(ranks, prepared):
    runs = [found[f"wall clock {prepared}"] for found in ranks]
    assert runs[0] == [pytest.approx([k / 10, 1e-2 * (1 - k / 10)]) for k in range(1, 11)]
    assert runs[1:] == [runs[0]] * (RANKS - 1)


@pytest.mark.parametrize("prepared", [False, True])
def test_what_accelerate_saves_it_resumes_exactly(ranks, prepared):
    for found in ranks:
        whole, resumed = found[f"broken {prepared}"]
        assert len(whole[0]) == 6
        assert resumed == whole


# ------------------------------------------------------------ the proxy alone


def sgd():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)


def test_everything_a_loop_needs_reaches_the_scheduler():
    now = [0.0]
    clock = Clock(monotonic=lambda: now[0], wall=lambda: now[0])
    optimizer = sgd()
    inner = BudgetScheduler(optimizer, "linear", "10sec", Plateau(patience=0), clock=clock)
    scheduler = AcceleratedBudgetScheduler(inner)
    assert scheduler.scheduler is inner
    scheduler.add_loss(3.0)
    optimizer.step()
    now[0] = 2.0
    scheduler.step(loss=torch.tensor(4.0))
    assert inner.state_dict()["unseen_losses"] == [3.0, 4.0]
    assert (scheduler.progress, scheduler.exhausted, scheduler.get_last_lr()) == (0.2, False, [0.1 * 0.8])
    assert scheduler.observe(val_loss=1.0) is inner.decisions[0]
    with scheduler.paused():
        now[0] = 50.0
    assert scheduler.progress == 0.2
    scheduler.rebudget("18sec", policy="rescale")
    assert scheduler.progress == pytest.approx(2 / 18)
    scheduler.rewarm("4sec", from_progress=0.5)
    assert scheduler.progress == 0.5
    scheduler.end_epoch()
    assert inner.state_dict()["position"]["epochs"] == 1
    now[0] = 52.0
    assert scheduler.exhausted


def test_its_state_is_the_schedulers_own():
    stopped = Clock(monotonic=lambda: 0.0, wall=lambda: 0.0)
    first, second = (BudgetScheduler(sgd(), "linear", "10sp", clock=stopped) for _ in range(2))
    scheduler = AcceleratedBudgetScheduler(first)
    scheduler.step(samples=4)
    assert scheduler.state_dict() == first.state_dict()
    AcceleratedBudgetScheduler(second).load_state_dict(scheduler.state_dict())
    assert second.state_dict() == first.state_dict()


@pytest.mark.parametrize("scheduler", [torch.optim.lr_scheduler.ConstantLR(sgd()), None])
def test_only_a_budget_scheduler_is_taken(scheduler):
    with pytest.raises(TypeError, match=r"must be a BudgetScheduler or what `accelerator.prepare` returned for one\."):
        AcceleratedBudgetScheduler(scheduler)
