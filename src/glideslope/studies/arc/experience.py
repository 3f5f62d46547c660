"""Experience: runs that try raising, keeping and lowering the rate again and again, and remember what came of it."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from torch import nn
from torch.optim import Optimizer

from glideslope.controller.arc import FACTORS, KEEP
from glideslope.core.spec import canonical
from glideslope.core.value import require
from glideslope.trials.device import exact
from glideslope.trials.lookup import data_sha256, find_task, task_splits
from glideslope.trials.optimizers import OptimizerSpec
from glideslope.trials.run import batches, evaluate, make_update, one_thread, set_training, updates_per_epoch
from glideslope.trials.task import Batch, Task
from glideslope.trials.trial import Seeds

SEGMENTS = 10
"""Of n epochs each, on the path of one run."""
MOST_EPOCHS = 10
OPTIMIZERS = ("adam", "sgd", "rmsprop")
RANGE = (0.01, 10.0)
"""Initial rates are drawn between these multiples of the task's default, evenly over the logarithm."""
OTHER_ORDER = 2**20
"""Added to the seed of the data where a segment is repeated in another order."""

_SETTINGS = {"adam": ("adam", "adam"), "sgd": ("sgdm(momentum=0)", "sgdm"), "rmsprop": ("rmsprop", "adam")}
"""Name → optimizer, and the one whose default rate is taken."""
_PLAIN_SGD = 10.0
"""Without momentum 0.9 the same step takes ten times the rate."""

FAMILIES = (
    "cifar10-multitask",
    "cola-gru",
    "diabetes-mlp",
    "digits-autoencoder",
    "digits-cnn",
    "digits-codes",
    "digits-vae",
    "mnist-adversarial",
    "mnist-mlp",
    "mnist-unet",
    "movie-gru",
    "mrpc-pairs",
    "omniglot-siamese",
    "sst2-lstm",
)
"""For collection. Selection and evaluation have others: tasks on MNIST-1D, Fashion-MNIST and Shakespeare."""

HELD_OUT = ("digits-vae", "mrpc-pairs")
"""Of these, what no candidate is trained on: offline metrics are measured there."""


@dataclass(frozen=True)
class Journey:
    """One run that gathers experience: everything it computes follows from this value.

    Args:
        family: name of a task.
        seed: of initial weights, data, noise, and of the turns taken.
        optimizer: from `OPTIMIZERS`.
        rate: initial learning rate, > 0.
        epochs: n, of each segment, from 1 to `MOST_EPOCHS`.
    """

    family: str
    seed: int
    optimizer: str
    rate: float
    epochs: int

    def __post_init__(self) -> None:
        require(self.optimizer in OPTIMIZERS, "optimizer", self.optimizer, f"one of {OPTIMIZERS}")
        require(0 < self.rate < math.inf, "rate", self.rate, "0 < rate < inf")
        require(1 <= self.epochs <= MOST_EPOCHS, "epochs", self.epochs, f"1 <= epochs <= {MOST_EPOCHS}")

    @property
    def journey_id(self) -> str:
        task = find_task(self.family)
        facts = {**asdict(self), "version": task.version, "data": data_sha256(task)}
        return sha256(canonical(facts).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Segment:
    """A control cycle on the path of a journey, and what was tried where it ended.

    Args:
        index: position on the path, from 0.
        rate: learning rate in it.
        train_losses: of every update.
        val_losses: after every epoch.
        branch_losses: validation losses after n epochs more at `FACTORS` times the rate; inf where one diverged. Empty
            for the last segment.
        repeated_loss: of the branch that keeps the rate, trained again on batches in another order; NaN for the last.
        taken: which branch the path goes on with; -1 for the last.
    """

    index: int
    rate: float
    train_losses: tuple[float, ...]
    val_losses: tuple[float, ...]
    branch_losses: tuple[float, ...] = ()
    repeated_loss: float = math.nan
    taken: int = -1

    @property
    def label(self) -> int:
        """The best branch as it came out, 0 raise, 1 keep, 2 lower; -1 where nothing was tried, or all diverged."""
        return int(np.argmin(self.branch_losses)) if any(map(math.isfinite, self.branch_losses)) else -1

    @property
    def corrected_label(self) -> int:
        """The same, but "keep" where another branch leads by no more than two runs of one branch differ.

        Two runs at the same rate, which see the same batches in other orders, end differently. A lead within that
        difference says nothing about the rate; nor does any where one of the two diverged.
        """
        if self.label in (-1, KEEP):
            return self.label
        kept = self.branch_losses[KEEP]
        if not (math.isfinite(kept) and math.isfinite(self.repeated_loss)):
            return KEEP if math.isfinite(kept) != math.isfinite(self.repeated_loss) else self.label
        lead = (kept + self.repeated_loss) / 2 - self.branch_losses[self.label]
        return KEEP if lead <= abs(kept - self.repeated_loss) else self.label


def itinerary(families: Sequence[str], count: int, seed: int = 0) -> tuple[Journey, ...]:
    """So many journeys, the families in turn, so that any beginning of it holds about as many of each.

    A longer itinerary begins as a shorter one with the same families and seed.
    """
    found = []
    for index in range(count):
        family = families[index % len(families)]
        draws = np.random.default_rng((seed, index))
        optimizer = OPTIMIZERS[int(draws.integers(len(OPTIMIZERS)))]
        epochs = int(draws.integers(1, MOST_EPOCHS + 1))
        low, high = np.log(RANGE)
        factor = float(np.exp(draws.uniform(low, high)))
        found.append(Journey(family, seed * 1_000_000 + index, optimizer, factor * _default(family, optimizer), epochs))
    return tuple(found)


def _default(family: str, optimizer: str) -> float:
    rate = find_task(family).defaults[_SETTINGS[optimizer][1]].rate
    return rate * _PLAIN_SGD if optimizer == "sgd" else rate


def travel(journey: Journey) -> tuple[Segment, ...]:
    """Train: n epochs, then at each of nine turnings n epochs in three ways; the worst is dropped, chance decides.

    A path ends early where every branch that may be taken has diverged.

    Source: Dong et al., "To Raise or Not To Raise: The Autonomous Learning Rate Question", 2021, Section 3.2.
    """
    with one_thread(), exact():
        return _Path(journey).segments()


@dataclass
class _Leg:
    """n epochs that were trained: what was seen, and where they ended."""

    train_losses: tuple[float, ...]
    val_losses: tuple[float, ...]
    state: dict[str, Any]

    @property
    def end(self) -> float:
        """Validation loss, inf where it diverged."""
        whole = self.val_losses and all(map(math.isfinite, (*self.train_losses, self.val_losses[-1])))
        return self.val_losses[-1] if whole else math.inf


class _Path:
    def __init__(self, journey: Journey) -> None:
        self.journey = journey
        self.task: Task = find_task(journey.family)
        self.splits = task_splits(self.task)
        self.per_epoch = updates_per_epoch(self.task, self.splits.train)
        self.model: nn.Module = self.task.model(journey.seed)
        optimizer = OptimizerSpec.parse(_SETTINGS[journey.optimizer][0])
        self.optimizer: Optimizer = optimizer.build(self.model.parameters(), journey.rate)
        self.turns = np.random.default_rng((journey.seed, 1))

    def segments(self) -> tuple[Segment, ...]:
        """All of the path."""
        rate, epoch = self.journey.rate, 0
        leg = self._train(self._state(), rate, epoch)
        found: list[Segment] = []
        while math.isfinite(leg.end) and len(found) < SEGMENTS - 1:
            epoch += self.journey.epochs
            branches = [self._train(leg.state, rate * factor, epoch) for factor in FACTORS]
            repeated = self._train(leg.state, rate, epoch, other_order=True)
            ends = tuple(branch.end for branch in branches)
            taken = self._turn(ends)
            found.append(
                Segment(len(found), rate, leg.train_losses, leg.val_losses, ends, repeated.end, taken),
            )
            rate, leg = rate * FACTORS[taken], branches[taken]
        if math.isfinite(leg.end):
            found.append(Segment(len(found), rate, leg.train_losses, leg.val_losses))
        return tuple(found)

    def _turn(self, ends: Sequence[float]) -> int:
        """One of the two better branches by chance; the better one where the other has diverged."""
        best, second = np.argsort(ends, kind="stable")[:2]
        chosen = int(self.turns.choice([best, second]))
        return chosen if math.isfinite(ends[chosen]) else int(best)

    def _train(self, state: dict[str, Any], rate: float, epoch: int, other_order: bool = False) -> _Leg:
        """n epochs from a state, with batches of the epochs from `epoch` on; cut short where the loss is not finite."""
        self._put_back(state, rate)
        seed = self.journey.seed
        seeds = Seeds(seed, seed + OTHER_ORDER, seed) if other_order else Seeds.all(seed)
        train_losses: list[float] = []
        val_losses: list[float] = []
        begin, end = epoch * self.per_epoch, (epoch + self.journey.epochs) * self.per_epoch
        for batch, noise in batches(self.task, self.splits.train, seeds, end, begin):
            train_losses.append(self._update(batch, noise))
            if not math.isfinite(train_losses[-1]):
                break
            if len(train_losses) % self.per_epoch == 0:
                set_training(self.model, self.optimizer, False)
                seen = evaluate(self.task, self.model, self.splits.validation, seeds, len(train_losses))
                set_training(self.model, self.optimizer, True)
                val_losses.append(seen.loss)
        return _Leg(tuple(train_losses), tuple(val_losses), self._state())

    def _update(self, batch: Batch, noise: Any) -> float:
        return make_update(self.task, self.model, self.optimizer, batch, noise)

    def _state(self) -> dict[str, Any]:
        return {
            "model": copy.deepcopy(self.model.state_dict()),
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
        }

    def _put_back(self, state: dict[str, Any], rate: float) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        set_training(self.model, self.optimizer, True)
