"""A plain PyTorch loop: REX with warmup over a budget of updates, and a checkpoint that goes on where it stopped.

    python examples/plain_loop.py
    python examples/plain_loop.py --schedule one_cycle --budget 300ba     # moves the momentum too
    python examples/plain_loop.py --checkpoint run.pt --leave-after 250   # a job that is preempted …
    python examples/plain_loop.py --checkpoint run.pt                     # … and resumed

The resumed run ends as the one that was never stopped, bit for bit: run the first and the last two, and compare.
"""

import argparse
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from glideslope.torch import BudgetScheduler

BATCH_SIZE, TRAIN = 50, 1500


def batch(update: int) -> torch.Tensor:
    """Rows of an update's batch, drawn from its number alone: a resumed run sees what it would have seen."""
    epoch, place = divmod(update, TRAIN // BATCH_SIZE)
    order = torch.randperm(TRAIN, generator=torch.Generator().manual_seed(epoch))
    return order[place * BATCH_SIZE : (place + 1) * BATCH_SIZE]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="900ba", help="updates, epochs (30ep*30ba) or time (10sec)")
    parser.add_argument("--schedule", default="rex + warmup(10%)", help="text of a schedule or plan")
    parser.add_argument("--checkpoint", type=Path, help="file to resume from, if there is one, and to save to")
    parser.add_argument("--leave-after", type=int, help="updates after which to leave, as a preempted job would")
    args = parser.parse_args()

    data = load_digits()
    inputs, labels = torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = BudgetScheduler(optimizer, args.schedule, args.budget)

    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    if args.checkpoint and args.checkpoint.exists():
        for name, state in torch.load(args.checkpoint).items():
            parts[name].load_state_dict(state)
        print(f"resumed after {scheduler.last_epoch} updates, {scheduler.progress:.0%} of the budget")

    while not scheduler.exhausted and scheduler.last_epoch != args.leave_after:
        rows = batch(scheduler.last_epoch)
        loss = cross_entropy(model(inputs[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()

    if args.checkpoint:
        # The scheduler's state is plain JSON types; json.dumps would do as well.
        torch.save({name: part.state_dict() for name, part in parts.items()}, args.checkpoint)
    if not scheduler.exhausted:
        print(f"left after {scheduler.last_epoch} updates, {scheduler.progress:.0%} of the budget")
        return
    with torch.no_grad():
        logits = model(inputs[TRAIN:])
    accuracy = (logits.argmax(dim=1) == labels[TRAIN:]).float().mean()
    print(f"landed at rate {scheduler.get_last_lr()[0]:.3g} after {scheduler.last_epoch} updates")
    print(f"test accuracy {accuracy:.1%}, loss {cross_entropy(logits, labels[TRAIN:]):.8f}")


if __name__ == "__main__":
    main()
