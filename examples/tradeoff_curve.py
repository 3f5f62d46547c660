"""What every budget would buy, from one run: a cycle ends at each budget, and its accuracy is a point of the curve.

    python examples/tradeoff_curve.py
    python examples/tradeoff_curve.py --estimator "cooldown(0.1)"   # a constant rate, and a short branch to each budget
    python examples/tradeoff_curve.py --estimator separate          # the standard curve, at twice the price

The loop is an ordinary one: `step` after each update, `record` at each point. The batch follows from `run.update`, so a
branch sees what an ordinary run of its budget would.
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from glideslope import Steps
from glideslope.torch import Tradeoff

BATCH_SIZE, TRAIN = 50, 1200


def batch(update: int) -> torch.Tensor:
    """Rows of an update's batch, drawn from its number alone."""
    return torch.randint(TRAIN, (BATCH_SIZE,), generator=torch.Generator().manual_seed(update))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--estimator", default="cyclic", help="separate, cyclic, wsd-s, cooldown(0.1), average, anytime"
    )
    parser.add_argument("--first", type=int, default=50, help="the smallest budget in updates; each next is the double")
    parser.add_argument("--budgets", type=int, default=6, help="how many there are")
    parser.add_argument("--target", type=float, default=0.92, help="what to ask the price of, as a share")
    args = parser.parse_args()

    data = load_digits()
    inputs, labels = torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def right(rows: slice) -> float:
        with torch.no_grad():
            return (model(inputs[rows]).argmax(dim=1) == labels[rows]).float().mean().item()

    budgets = Steps.doubling(args.first, upto=args.first * 2 ** (args.budgets - 1))
    run = Tradeoff(model, optimizer, budgets, args.estimator)
    while not run.exhausted:
        rows = batch(run.update)
        loss = cross_entropy(model(inputs[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.step()
        if run.at_point:
            run.record(right=right(slice(TRAIN, 1500)))
            print(f"{run.points[-1].budget:>7}ba buy {run.points[-1].metrics['right']:.1%}")

    planned, measured = run.planned_cost, run.measured_cost
    print(f"the curve cost {measured.full_runs:.2f} full runs, {planned.full_runs:.2f} were planned")
    print(f"{measured.seconds:.2f} s of training, {measured.evaluation_seconds:.2f} s of looking")
    print(f"{args.target:.0%} cost {run.curve.cost_to_reach(right=args.target)}")
    print(f"landed at rate {optimizer.param_groups[0]['lr']:.3g} after {measured.updates} updates")
    print(f"test accuracy {right(slice(1500, None)):.1%}")


if __name__ == "__main__":
    main()
