"""Resume: n + m updates equal n, save, load in a new process, m: bit for bit, in whatever order things are loaded."""

import json
import subprocess
import sys
from pathlib import Path

import torch

from glideslope.torch import BudgetScheduler, Clock

UPDATES, CUT = 12, 5
SCHEDULES = {
    "sgd": "one_cycle",
    "adam": "one_cycle_pytorch",
    "steered": "one_cycle | plateau(patience=0, factor=0.5)",
    "preamble": "plan(lr=rex, momentum=absolute(triangular, 0.95, 0.85), preamble=preamble(7ba, 0.00001, 0.0001))",
}
ORDERS = (
    "optimizer first",
    "scheduler first",
    "optimizer loaded before the scheduler is built",
    "rebuilt at another rate",
)


STOPPED = Clock(monotonic=lambda: 0.0, wall=lambda: 0.0)  # what a run took is in its state too


def build(kind, lr=0.1):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).double()
    groups = [{"params": model[0].parameters(), "lr": lr / 2}, {"params": model[2].parameters()}]
    if kind == "adam":
        return model, torch.optim.AdamW(groups, lr=lr)
    return model, torch.optim.SGD(groups, lr=lr, momentum=0.9)


def schedule(kind, optimizer):
    return BudgetScheduler(optimizer, SCHEDULES[kind], f"{UPDATES}ba", clock=STOPPED)


def train(model, optimizer, scheduler, updates):
    for update in updates:
        batch = torch.randn(8, 5, generator=torch.Generator().manual_seed(update), dtype=torch.float64)
        loss = (model(batch) - batch.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step(loss=loss)
        if update % 2 == 1:
            scheduler.observe(val_loss=1.0)


def fingerprint(model, optimizer, scheduler):
    weights = [value.hex() for parameter in model.parameters() for value in parameter.detach().flatten().tolist()]
    rates = [group["lr"].hex() for group in optimizer.param_groups]
    return {"weights": weights, "rates": rates, "scheduler": scheduler.state_dict()}


def resume(kind, order, checkpoint):
    model, optimizer = build(kind, lr=7.0 if order == "rebuilt at another rate" else 0.1)
    model.load_state_dict(checkpoint["model"])
    if order == "optimizer loaded before the scheduler is built":
        optimizer.load_state_dict(checkpoint["optimizer"])
        scheduler = schedule(kind, optimizer)
        scheduler.load_state_dict(checkpoint["scheduler"])
        return model, optimizer, scheduler
    scheduler = schedule(kind, optimizer)
    loads = [(optimizer, "optimizer"), (scheduler, "scheduler")]
    for target, name in reversed(loads) if order == "scheduler first" else loads:
        target.load_state_dict(checkpoint[name])
    return model, optimizer, scheduler


def main(folder):
    """The new process: load every checkpoint in every order, train to the end, print what came out."""
    result = {}
    for kind in SCHEDULES:
        for order in ORDERS:
            checkpoint = torch.load(Path(folder) / f"{kind}.pt", weights_only=True)
            checkpoint["scheduler"] = json.loads(checkpoint["scheduler"])
            run = resume(kind, order, checkpoint)
            train(*run, range(CUT, UPDATES + 3))
            result[f"{kind}, {order}"] = fingerprint(*run)
    print(json.dumps(result))


def test_a_run_resumed_in_a_new_process_is_the_run_that_never_stopped(tmp_path):
    whole = {}
    for kind in SCHEDULES:
        model, optimizer = build(kind)
        scheduler = schedule(kind, optimizer)
        train(model, optimizer, scheduler, range(CUT))
        assert scheduler.gain == (0.5 if kind == "steered" else 1.0)
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        state["scheduler"] = json.dumps(scheduler.state_dict(), allow_nan=False)
        torch.save(state, tmp_path / f"{kind}.pt")
        train(model, optimizer, scheduler, range(CUT, UPDATES + 3))
        whole |= {f"{kind}, {order}": fingerprint(model, optimizer, scheduler) for order in ORDERS}

    # One new process for all of them: starting Python with PyTorch is what takes the time.
    command = [sys.executable, __file__, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    resumed = json.loads(done.stdout)
    assert resumed.keys() == whole.keys()
    for name, run in whole.items():
        assert resumed[name] == run, name


def test_losses_not_yet_seen_by_the_controller_are_kept_over_a_break_whatever_they_are():
    seen = []

    def run(broken):
        scheduler = schedule("steered", build("steered")[1])
        for loss in (1.5, float("nan"), float("inf"), -float("inf")):
            scheduler.step(loss=torch.tensor(loss))
        if broken:
            state = json.loads(json.dumps(scheduler.state_dict(), allow_nan=False))
            scheduler = schedule("steered", build("steered")[1])
            scheduler.load_state_dict(state)
        seen.append(repr(scheduler._unseen_losses if broken else [float(x) for x in scheduler._unseen_losses]))

    run(broken=False)
    run(broken=True)
    assert seen[0] == seen[1] == "[1.5, nan, inf, -inf]"


if __name__ == "__main__":
    main(sys.argv[1])
