"""Data-parallel training for a given time: all ranks follow rank 0's clock, so all leave the loop at the same update.

    torchrun --nproc-per-node 2 examples/ddp_torchrun.py
    torchrun --nproc-per-node 2 examples/ddp_torchrun.py --budget "45min reserve 2min"

If every rank looked at a clock of its own, one would leave the loop while the others still wait for its gradients.
`BudgetScheduler` sees by itself that `torch.distributed` is initialised; nothing has to be said about ranks.
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import distributed, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from glideslope.torch import BudgetScheduler

TRAIN = 1500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="5sec", help="time running, such as 45min or 1h30m")
    args = parser.parse_args()

    distributed.init_process_group("gloo")  # on GPUs "nccl", with model and data on this rank's device
    rank, ranks = distributed.get_rank(), distributed.get_world_size()

    data = load_digits()
    inputs, labels = torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target)
    mine = torch.arange(rank, TRAIN, ranks)  # every rank has its own share of the data
    torch.manual_seed(rank)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = BudgetScheduler(optimizer, "rex + warmup(10%)", args.budget)

    while not scheduler.exhausted:
        rows = mine[torch.randint(len(mine), (32,))]
        loss = cross_entropy(model(inputs[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()

    spent = scheduler.state_dict()["position"]["running_seconds"]
    with torch.no_grad():
        accuracy = (model(inputs[TRAIN:]).argmax(dim=1) == labels[TRAIN:]).float().mean()
    rate = scheduler.get_last_lr()[0]
    print(f"rank {rank} of {ranks}: landed at rate {rate:.3g} after {scheduler.last_epoch} updates")
    if rank == 0:
        print(f"{1000 * (spent - scheduler.budget.limit):.1f} ms over {scheduler.budget}, test accuracy {accuracy:.1%}")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
