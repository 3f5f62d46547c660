"""A budget in time: the run ends on the second, evaluations are not counted, and the budget is changed on the way.

    python examples/wall_clock.py
    python examples/wall_clock.py --budget "45min reserve 2min" --rebudget "1h reserve 2min"
    python examples/wall_clock.py --budget "until 18:00 reserve 1min" --rebudget "until 19:00 reserve 1min"

How many updates fit into the time need not be known: the rate follows the clock. The reserve is for what comes after
training, here the final test.
"""

import argparse
import time

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from glideslope.torch import BudgetScheduler

TRAIN, VALIDATION, TEST = 1200, slice(1200, 1500), slice(1500, None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="5sec reserve 1sec", help="time running, or until a moment")
    parser.add_argument("--rebudget", default="8sec reserve 1sec", help="the new total, from half of the old one on")
    args = parser.parse_args()

    data = load_digits()
    inputs, labels = torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def accuracy(split: slice) -> float:
        with torch.no_grad():
            return (model(inputs[split]).argmax(dim=1) == labels[split]).float().mean().item()

    began = time.monotonic()
    scheduler = BudgetScheduler(optimizer, "rex + warmup(10%)", args.budget)  # its clock runs from here on
    looks = [0.25, 0.5, 0.75]
    while not scheduler.exhausted:
        rows = torch.randint(TRAIN, (50,))
        loss = cross_entropy(model(inputs[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()

        if looks and scheduler.progress >= looks[0]:
            with scheduler.paused():  # for a `WallClock`; a moment ("until 18:00") does not wait
                time.sleep(0.2)  # stands for the evaluation of a larger model
                print(f"{looks.pop(0):.0%} spent: rate {scheduler.get_last_lr()[0]:.3g}, {accuracy(VALIDATION):.1%}")
            if len(looks) == 1:
                scheduler.rebudget(args.rebudget)  # progress stays 50 %, and now runs on to the new end
                print(f"the budget is now {scheduler.budget}")

    spent = scheduler.state_dict()["position"]["running_seconds"]
    over = (time.time() if scheduler.budget.unit == "moment" else spent) - scheduler.budget.limit
    print(f"landed at rate {scheduler.get_last_lr()[0]:.3g} after {scheduler.last_epoch} updates")
    print(f"trained for {spent:.3f} s, {1000 * over:.1f} ms over {scheduler.budget}")
    print(f"test accuracy {accuracy(TEST):.1%}, {time.monotonic() - began:.3f} s after the start")


if __name__ == "__main__":
    main()
