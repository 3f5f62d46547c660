"""Ranks: one decides progress, exhaustion and gain; all leave the loop at the same update. Real processes, gloo."""

import json
import multiprocessing
import sys

import pytest
import ranks
import torch

from glideslope import Clock
from glideslope.torch import BudgetScheduler


@pytest.mark.skipif(sys.platform == "win32", reason="gloo's file rendezvous")
def test_ranks_agree_under_skewed_clocks_and_opinions_and_sum_their_tokens(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=ranks.work, args=(rank, str(tmp_path))) for rank in range(ranks.RANKS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(600)
    assert [process.exitcode for process in processes] == [0] * ranks.RANKS
    results = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(ranks.RANKS)]
    assert results[1] == results[0]
    assert results[2] == results[0]
    clocked = results[0]["wall clock"]
    assert len(clocked) == 20  # rank 0's clock ticks once an update
    assert clocked[-1][1] < 1  # the controller did decide
    # Update k spends 0·k + 1·k + 2·k tokens on the three ranks together: 3, 9, 18, …
    spent = [3 * k * (k + 1) / 2 for k in range(1, 9)]
    assert [progress for progress, _ in results[0]["tokens"]] == [min(1.0, tokens / 100) for tokens in spent]


@pytest.mark.parametrize("tick", [0.07, 0.11, 0.13, 0.19, 0.23, 0.29, 0.31, 0.37])
def test_time_that_runs_out_between_two_readings_of_the_clock_leaves_no_rate_behind(tick, monkeypatch):
    monkeypatch.setattr("glideslope.torch.scheduler.is_distributed", lambda: True)
    monkeypatch.setattr("glideslope.torch.scheduler.agree_on", lambda numbers: [float(number) for number in numbers])
    readings = iter(range(10**6))
    clock = Clock(monotonic=lambda: tick * next(readings), wall=lambda: 1_800_000_000.0)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = BudgetScheduler(optimizer, "linear", "10sec", clock=clock)
    while not scheduler.exhausted:
        optimizer.step()
        scheduler.step()
    assert (scheduler.progress, optimizer.param_groups[0]["lr"]) == (1.0, 0.0)
