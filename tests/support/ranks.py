"""What each rank of a distributed test does; a module of its own, so that new processes can import it."""

import json
import os

import torch
import torch.distributed

from glideslope import Plateau
from glideslope.torch import BudgetScheduler

RANKS = 3


class SkewedClock:
    """Every rank's clock starts elsewhere, runs at another speed, and one rank is slow."""

    def __init__(self, rank):
        self.rank, self.now = rank, 1000.0 * rank

    def tick(self):
        self.now += 1.0 + 0.37 * self.rank

    def monotonic(self):
        return self.now

    def wall(self):
        return 1_800_000_000.0 + self.now


def count_tokens(rank, optimizer):
    """Each rank gives its own tokens; ragged batches, one of them empty."""
    scheduler = BudgetScheduler(optimizer, "linear", "100tok")
    seen = []
    while not scheduler.exhausted:
        optimizer.step()
        scheduler.step(tokens=rank * (len(seen) + 1))
        seen.append([scheduler.progress, scheduler.get_last_lr()[0]])
    return seen


def work(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS)
    clock = SkewedClock(rank)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = BudgetScheduler(optimizer, "linear", "20sec", Plateau(patience=0), clock=clock)
    seen = []
    while not scheduler.exhausted:
        seen.append([scheduler.progress, scheduler.gain, scheduler.get_last_lr()[0]])
        clock.tick()
        optimizer.step()
        scheduler.step(loss=1.0 + rank)
        if len(seen) % 5 == 0:
            # Rank 0 sees no improvement; left to themselves, the others would see one.
            scheduler.observe(val_loss=1.0 if rank == 0 else 1.0 / len(seen))
    with open(f"{folder}/{rank}.json", "w") as file:
        json.dump({"wall clock": seen, "tokens": count_tokens(rank, optimizer)}, file)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    os._exit(0)  # gloo's threads sometimes abort an ordinary exit: "terminate called without an active exception"
