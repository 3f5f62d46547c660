"""What each rank of the test of Accelerate does; a module of its own, so that new processes can import it."""

import itertools
import json
import os

import torch
import torch.distributed
from accelerate import Accelerator, DataLoaderConfiguration
from accelerate.utils import set_seed

from glideslope.integrations.accelerate import AcceleratedBudgetScheduler
from glideslope.torch import BudgetScheduler, Clock

RANKS, UPDATES = 4, 20
WAYS = ("prepared", "proxy", "proxy of prepared")


class Run:
    """A prepared regression on one weight, and the rates its updates ran at."""

    def __init__(self, split_batches=False, accumulation=1):
        self.accelerator = Accelerator(
            cpu=True,
            gradient_accumulation_steps=accumulation,
            dataloader_config=DataLoaderConfiguration(split_batches=split_batches),
        )
        set_seed(0)
        data = torch.randn(RANKS * UPDATES * accumulation, 2)
        loader = torch.utils.data.DataLoader(data, batch_size=RANKS if split_batches else 1)
        model = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
        self.model, self.optimizer, self.loader = self.accelerator.prepare(model, optimizer, loader)
        self.rates = []

    def batches(self, begin=0):
        """Trains on one batch after the other, for ever; the caller steps its scheduler after each."""
        first = self.accelerator.skip_first_batches(self.loader, begin)
        for batch in itertools.chain(first, itertools.chain.from_iterable(itertools.repeat(self.loader))):
            with self.accelerator.accumulate(self.model):
                self.accelerator.backward(self.model(batch).square().mean())
                if self.accelerator.sync_gradients:
                    self.rates.append(self.optimizer.param_groups[0]["lr"])
                self.optimizer.step()
                yield batch
                self.optimizer.zero_grad()

    def weights(self):
        return [value.hex() for parameter in self.model.parameters() for value in parameter.flatten().tolist()]


def counted(way, split_batches, accumulation):
    """The rate of every update until a budget of 20 is spent."""
    run = Run(split_batches, accumulation)
    scheduler = inner = BudgetScheduler(run.optimizer, "linear", f"{UPDATES}ba")
    if "prepared" in way:
        scheduler = run.accelerator.prepare(scheduler)
    if "proxy" in way:
        scheduler = AcceleratedBudgetScheduler(scheduler)
    for _ in run.batches():
        scheduler.step()
        if inner.exhausted:
            break
    return run.rates


def peer():
    """The same with PyTorch's scheduler, prepared as Accelerate's documents have it."""
    run = Run()
    scheduler = torch.optim.lr_scheduler.LinearLR(run.optimizer, start_factor=1.0, end_factor=0.0, total_iters=UPDATES)
    scheduler = run.accelerator.prepare(scheduler)
    for _ in itertools.islice(run.batches(), UPDATES):
        scheduler.step()
    return run.rates


def tokens(rank, prepared):
    """Progress after every update; each rank has other tokens, 100 in all for each batch, 200 for each update."""
    run = Run(accumulation=2)
    scheduler = BudgetScheduler(run.optimizer, "linear", "1000tok")
    scheduler = AcceleratedBudgetScheduler(run.accelerator.prepare(scheduler) if prepared else scheduler)
    seen = []
    for _ in run.batches():
        scheduler.step(tokens=10 * (rank + 1))
        seen.append(scheduler.progress)
        if scheduler.exhausted:
            break
    return seen


def wall_clock(rank, prepared):
    """Progress after every update of 20 seconds; every rank's clock starts elsewhere and runs at another speed."""
    now = [1000.0 * rank]
    run = Run()
    clock = Clock(monotonic=lambda: now[0], wall=lambda: 1_800_000_000.0 + now[0])
    scheduler = BudgetScheduler(run.optimizer, "linear", "20sec", clock=clock)
    scheduler = AcceleratedBudgetScheduler(run.accelerator.prepare(scheduler) if prepared else scheduler)
    seen = []
    for _ in run.batches():
        now[0] += 2.0 + 0.7 * rank
        scheduler.step()
        seen.append([scheduler.progress, scheduler.get_last_lr()[0]])
        if scheduler.exhausted:
            break
    return seen


def broken(folder, prepared):
    """A run that never stopped, and one resumed by Accelerate's own means: last rates, weights and state of each."""
    ends = []
    for begin in (0, 4):
        run = Run()
        scheduler = BudgetScheduler(run.optimizer, "one_cycle", "120tok", clock=Clock(lambda: 0.0, lambda: 0.0))
        scheduler = AcceleratedBudgetScheduler(run.accelerator.prepare(scheduler) if prepared else scheduler)
        run.accelerator.register_for_checkpointing(scheduler)
        if begin:
            run.accelerator.load_state(folder)
        for update, _ in enumerate(run.batches(begin), begin):
            scheduler.step(tokens=3)
            if update == 3:
                run.accelerator.save_state(folder)
            if scheduler.exhausted:
                break
        ends.append([run.rates[-6:], run.weights(), scheduler.state_dict()])
    return ends


def work(rank, folder):
    torch.set_num_threads(1)
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": RANKS, "LOCAL_WORLD_SIZE": RANKS, "OMP_NUM_THREADS": 1}
    os.environ |= {name: str(number) for name, number in ranks.items()}
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS)
    found = {"peer": peer()}
    for way, split_batches, accumulation in itertools.product(WAYS, (False, True), (1, 2)):
        found[f"counted {way} {split_batches} {accumulation}"] = counted(way, split_batches, accumulation)
    for prepared in (False, True):
        found[f"tokens {prepared}"] = tokens(rank, prepared)
        found[f"wall clock {prepared}"] = wall_clock(rank, prepared)
        found[f"broken {prepared}"] = broken(f"{folder}/{prepared}", prepared)
    with open(f"{folder}/{rank}.json", "w") as file:
        json.dump(found, file)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    os._exit(0)  # gloo's threads sometimes abort an ordinary exit: "terminate called without an active exception"
