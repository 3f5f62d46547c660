"""Defects of peers by name: the scenario that shows each, and the same scenario under ours.

The laws of the table cover them all; here each stands alone, as its user would meet it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from conformance_laws import expect, raising, same
from conformance_peers_alone import timm_library
from conformance_peers_on_torch import pytorch_optimizer_library, pytorch_scheduler_library, transformers_library
from conformance_peers_torch import torch_library
from conformance_runs import Ask, Cycles, Library, Offer
from torch.optim import lr_scheduler as torch_schedulers

from glideslope import Constant, Cosine, Linear, Plan, Policy, Polynomial, Rex, Schedule, Sequence, Steps, Warmup
from glideslope import Cycles as Restarts
from glideslope.controller import Plateau
from glideslope.core.catalog import one_cycle_pytorch
from glideslope.torch import BudgetScheduler


@dataclass(frozen=True)
class Defect:
    """One defect.

    Args:
        claim: what the peer does.
        library: the distribution.
        peer: builds the peer's `Library`, for the warnings to silence.
        shown: () → the evidence; empty where the peer behaves.
        ours: the same scenario under ours; raises `Broken` if ours has the defect too.
    """

    claim: str
    library: str
    peer: Callable[[], Library]
    shown: Callable[[], str]
    ours: Callable[[], None]

    def evidence(self) -> str:
        """What the peer does, in numbers; empty where it behaves."""
        with self.peer().hushed():
            return self.shown()


def sgd(*bases: float, in_tensors: bool = False) -> torch.optim.SGD:
    groups = [
        {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": torch.tensor(base) if in_tensors else base}
        for base in bases or (0.1,)
    ]
    return torch.optim.SGD(groups, lr=(bases or (0.1,))[0], momentum=0.9)


def rates(optimizer: Any, scheduler: Any, updates: int) -> list[float]:
    """The first group's rate at the present position and after each of the next updates."""
    seen = [float(optimizer.param_groups[0]["lr"])]
    for _ in range(updates):
        optimizer.step()
        scheduler.step()
        seen.append(float(optimizer.param_groups[0]["lr"]))
    return seen


def found(library: Library, kind: str, name: str) -> Offer:
    """The scheduler of that name."""
    return next(offer for offer in getattr(library, kind) if offer.name == name)


def ours(schedule: Any, updates: int, *bases: float) -> tuple[torch.optim.SGD, BudgetScheduler]:
    optimizer = sgd(*bases)
    return optimizer, BudgetScheduler(optimizer, schedule, Steps(updates))


# ---------------------------------------------------------------- torch


def _shrunk_cosine() -> str:
    optimizer = sgd()
    scheduler = torch_schedulers.CosineAnnealingLR(optimizer, 20)
    rates(optimizer, scheduler, 10)
    scheduler.T_max = 8
    highest = max(rates(optimizer, scheduler, 50))
    return f"T_max 20 → 8 after 10 updates: {highest / 0.1:.3g} × base" if highest > 0.1001 else ""


def _ours_shrunk(schedule: Any) -> None:
    optimizer, scheduler = ours(schedule, 20)
    rates(optimizer, scheduler, 10)
    scheduler.rebudget(Steps(8))
    seen = rates(optimizer, scheduler, 50)
    expect(max(seen) == 0, f"{max(seen)} after the budget was shrunk below the present update")


def _rebound() -> str:
    optimizer = sgd()
    seen = rates(optimizer, torch_schedulers.CosineAnnealingLR(optimizer, 20), 40)
    return f"T = 20: back at {seen[40]:.3g} after 40 updates" if seen[40] > 1e-6 else ""


def _ours_holds() -> None:
    seen = rates(*ours("cosine", 20), 60)
    expect(set(seen[20:]) == {0.0}, "a rate other than 0 past the end")


def _negative_one_cycle() -> str:
    optimizer = sgd()
    scheduler = torch_schedulers.OneCycleLR(optimizer, 0.1, total_steps=20, anneal_strategy="linear")
    last = rates(optimizer, scheduler, 20)[20]
    return f"T = 20: {last:.3g} after update 20" if last < 0 else ""


def _ours_one_cycle_holds() -> None:
    seen = rates(*ours("one_cycle_smith", 20), 40)
    expect(min(seen) > 0, f"{min(seen)}")
    expect(len(set(seen[20:])) == 1, "the rate moves past the end")


def _zero_division() -> str:
    try:
        torch_schedulers.OneCycleLR(sgd(), 0.1, total_steps=10, pct_start=0.1)
    except ZeroDivisionError as error:
        return f"total_steps = 10, pct_start = 0.1: {raising(error)}"
    return ""


def _ours_rises_over_one_update() -> None:
    up_and_down = Sequence((Schedule(Linear(), floor=1.0), Linear()), at=(0.1,))
    seen = rates(*ours(up_and_down, 10), 10)
    expect(max(seen) == 0.1, f"peak {max(seen)}")
    expect(rates(*ours(Schedule(Cosine(), warmup=0.1), 10), 10)[1] == 0.1, "the peak is missed")


def _missed_peak() -> str:
    optimizer = sgd()
    highest = max(rates(optimizer, torch_schedulers.OneCycleLR(optimizer, 0.1, total_steps=4), 3))
    return f"T = 4: at most {highest / 0.1:.3g} of the peak" if highest < 0.0999 else ""


def _ours_reaches_the_peak() -> None:
    highest = max(rates(*ours(one_cycle_pytorch(), 4), 3))
    expect(same(highest, 0.1, 0.1), f"T = 4: at most {highest / 0.1:.3g} of the peak")


def _raises_on_resume() -> str:
    optimizer = sgd()
    scheduler = torch_schedulers.OneCycleLR(optimizer, 0.1, total_steps=10)
    rates(optimizer, scheduler, 5)
    longer = sgd()
    resumed = torch_schedulers.OneCycleLR(longer, 0.1, total_steps=20)
    resumed.load_state_dict(scheduler.state_dict())
    for update in range(5, 20):
        try:
            rates(longer, resumed, 1)
        except ValueError as error:
            return f"T = 10 resumed with T = 20: {raising(error)} (after update {update})"
    return ""


def _ours_names_the_way_out() -> None:
    optimizer, scheduler = ours("one_cycle", 10)
    rates(optimizer, scheduler, 5)
    _, longer = ours("one_cycle", 20)
    try:
        longer.load_state_dict(scheduler.state_dict())
    except ValueError as error:
        expect("rebudget" in str(error), str(error))
    else:
        expect(False, "another budget was taken in silence")
    optimizer, resumed = ours("one_cycle", 10)
    resumed.load_state_dict(scheduler.state_dict())
    resumed.rebudget(Steps(20))
    seen = rates(optimizer, resumed, 20)
    expect(same(seen[15], 0.01, 0.1), f"ends at {seen[15]}")


def _frozen_linear() -> str:
    optimizer = sgd()
    scheduler = torch_schedulers.LinearLR(optimizer, 1.0, 0.0, 20)
    rates(optimizer, scheduler, 10)
    scheduler.total_iters = 8
    last = rates(optimizer, scheduler, 1000)[-1]
    return f"total_iters 20 → 8 after 10 updates: at {last:.3g} a thousand updates later" if last > 1e-9 else ""


def _decays_twice() -> str:
    optimizer = sgd()
    rates(optimizer, torch_schedulers.StepLR(optimizer, 3, 0.1), 3)
    torch_schedulers.StepLR(optimizer, 3, 0.1, last_epoch=2)
    rate = optimizer.param_groups[0]["lr"]
    return f"built again with last_epoch = 2 after 3 updates: {rate:.3g} instead of 0.01" if rate < 0.009 else ""


def _ours_rebuilt() -> None:
    optimizer, scheduler = ours("step", 4)
    rates(optimizer, scheduler, 2)
    again = BudgetScheduler(optimizer, "step", Steps(4))
    again.load_state_dict(scheduler.state_dict())
    rate = optimizer.param_groups[0]["lr"]
    expect(same(rate, 0.01, 0.1), f"{rate} instead of 0.01")


def _dropped_factor() -> str:
    s, optimizer = torch_schedulers, sgd()
    half, cosine = s.ConstantLR(optimizer, 0.5, 99), s.CosineAnnealingWarmRestarts(optimizer, 10)
    first = rates(optimizer, s.ChainedScheduler([half, cosine]), 1)[0]
    return f"half × CosineAnnealingWarmRestarts starts at {first:.3g} instead of 0.05" if first > 0.0501 else ""


def _ours_keeps_factors() -> None:
    halved = Schedule(Schedule(Cosine(), floor=0.5), warmup=Warmup(0.5, start=0.5))
    seen = rates(*ours(halved, 20), 20)
    expect(same(seen[0], 0.05, 0.1), f"starts at {seen[0]}")
    expect(same(seen[20], 0.05, 0.1), f"ends at {seen[20]}")


def _applied_twice_by_sequential() -> str:
    s, optimizer = torch_schedulers, sgd()
    chained = s.ChainedScheduler([s.ConstantLR(optimizer, 0.5, 99), s.ExponentialLR(optimizer, 0.9)])
    scheduler = s.SequentialLR(optimizer, [chained, s.LambdaLR(optimizer, lambda _: 1.0)], [5])
    first = rates(optimizer, scheduler, 1)[0]
    return f"half × ExponentialLR(0.9) in SequentialLR starts at {first:.3g} instead of 0.05" if first < 0.0499 else ""


def _ours_in_sequential() -> None:
    optimizer, scheduler = ours("step", 20)
    constant = torch_schedulers.ConstantLR(optimizer, 0.5, 99)
    try:
        torch_schedulers.SequentialLR(optimizer, [scheduler, constant], [5])
    except TypeError as error:
        expect("sequence" in str(error), str(error))
        return
    expect(False, "SequentialLR took it")


NAMED_RESTARTS = ((7, 3, 847), (1, 3, 121), (1, 10, 111), (5, 3, 605), (3, 7, 171), (3, 7, 1200))
"""(first cycle, growth, update of a restart)."""


def _late_restarts(offer: Callable[[], Offer]) -> str:
    missed = []
    for first, growth, update in NAMED_RESTARTS:
        run = offer().run(Cycles(updates=3500, first=first, growth=growth))
        run.skip(update)
        if not same(run.rate, 0.1, 0.1):
            missed.append(f"({first}, {growth}) at {update}: {run.rate:.3g}")
    return ", ".join(missed)


def _ours_restarts() -> None:
    for first, growth, update in NAMED_RESTARTS:
        optimizer, scheduler = ours(Restarts(Cosine(), first / 3500, float(growth)), 3500)
        for _ in range(update - 1):
            scheduler.step()
        before = optimizer.param_groups[0]["lr"]
        scheduler.step()
        expect(optimizer.param_groups[0]["lr"] == 0.1, f"({first}, {growth}) at {update}")
        expect(before < 0.05, f"({first}, {growth}): the restart comes before {update}")


def _wraps() -> str:
    optimizer = sgd()
    seen = rates(optimizer, torch_schedulers.CosineAnnealingWarmRestarts(optimizer, 20), 20)
    return f"one cycle of T = 20: {seen[20]:.3g} after update 20, where 0 was due" if seen[20] > 1e-6 else ""


def _ours_does_not_wrap() -> None:
    for schedule in (Restarts(Cosine(), 1.0), Restarts(Cosine(), 0.25), Restarts(Cosine(), 1 / 7, 2.0)):
        seen = rates(*ours(schedule, 140), 200)
        expect(max(seen[140:]) < 1e-12, f"{max(seen[140:])} at the end")


# ---------------------------------------------------------------- libraries on torch


def _rex(in_tensors: bool = False, *bases: float) -> tuple[torch.optim.SGD, Any]:
    from pytorch_optimizer.lr_scheduler import REXScheduler

    optimizer = sgd(*bases, in_tensors=in_tensors)
    return optimizer, REXScheduler(optimizer, 20, max_lr=0.1)


def _rex_at_zero() -> str:
    first = rates(*_rex(), 1)[0]
    return "the first update runs at rate 0" if first == 0 else ""


def _rex_flattens() -> str:
    optimizer, scheduler = _rex(False, 0.1, 0.01)
    rates(optimizer, scheduler, 3)
    high, low = (group["lr"] for group in optimizer.param_groups)
    return f"groups with bases 0.1 and 0.01 run at {high:.3g} and {low:.3g}" if high == low else ""


def _rex_forgets_tensors() -> str:
    optimizer, scheduler = _rex(in_tensors=True)
    rates(optimizer, scheduler, 1)
    kind = type(optimizer.param_groups[0]["lr"]).__name__
    return f"a rate given as a tensor is a {kind} after the first update" if kind != "Tensor" else ""


def _ours_rex() -> None:
    expect(rates(*ours(Rex(), 20), 1)[0] == 0.1, "the first update is not at the base")


def _ours_rex_groups() -> None:
    optimizer, scheduler = ours(Rex(), 20, 0.1, 0.01)
    rates(optimizer, scheduler, 3)
    high, low = (group["lr"] for group in optimizer.param_groups)
    expect(same(high, 10 * low, 0.1), f"{high} and {low}")


def _ours_rex_tensors() -> None:
    optimizer = sgd(in_tensors=True)
    rate = optimizer.param_groups[0]["lr"]
    rates(optimizer, BudgetScheduler(optimizer, Rex(), Steps(20)), 20)
    expect(optimizer.param_groups[0]["lr"] is rate, "another object")


def _linear_below_zero() -> str:
    offer = found(pytorch_optimizer_library(), "decays", "LinearScheduler")
    lowest = min(offer.run(Ask(20)).curve(40))
    return f"T = 20: {lowest:.3g} after 39 updates" if lowest < 0 else ""


def _ours_linear_holds() -> None:
    expect(min(rates(*ours("linear", 20), 40)) == 0, "a negative rate")


def _restarts_below_the_floor() -> str:
    offer = found(pytorch_optimizer_library(), "restarts", "CosineAnnealingWarmupRestarts")
    ask = Cycles(updates=500, first=10, peak_decay=0.9, floor=0.1)
    lowest = min(offer.run(ask).curve(500))
    return f"gamma = 0.9 (the default), min_lr = 0.01: {lowest:.3g} within 50 cycles" if lowest < 0.00999 else ""


def _ours_restarts_above_the_floor() -> None:
    lowest = min(rates(*ours(Schedule(Restarts(Cosine(), 0.02, peak_decay=0.9), floor=0.1), 500), 499))
    expect(lowest >= 0.01 - 1e-12, f"{lowest}")


def _restarts_without_a_peak() -> str:
    offer = found(pytorch_scheduler_library(), "restarts", "CosineAnnealingWarmupRestarts")
    seen = offer.run(Cycles(updates=40, first=10)).curve(40)
    return (
        f"four cycles of 10: {seen[10]:.3g} at the restarts, at most {max(seen):.3g} of 0.1"
        if max(seen) < 0.0999
        else ""
    )


def _ours_every_cycle_peaks() -> None:
    seen = rates(*ours(Restarts(Cosine(), 0.25), 40), 39)
    expect([seen[update] for update in (0, 10, 20, 30)] == [0.1] * 4, str(seen))


def _compounded_by_warmup() -> str:
    import pytorch_scheduler

    optimizer = sgd()
    inner = torch_schedulers.LinearLR(optimizer, 0.5, 0.1, 4)
    seen = rates(optimizer, pytorch_scheduler.WarmupScheduler(optimizer, inner, 4), 4)
    twice = abs(seen[4] - 0.05) > 1e-6
    return f"the base scheduler starts at {seen[4]:.3g} instead of 0.05, from the warmup's last rate" if twice else ""


def _ours_after_warmup() -> None:
    seen = rates(*ours(Schedule(Schedule(Linear(), floor=0.2), warmup=0.2), 20), 20)
    expect(seen[4] == 0.1, f"{seen[4]} where the warmup ends")
    expect(same(seen[20], 0.02, 0.1), f"ends at {seen[20]}")


def _wrong_floor() -> str:
    run = found(transformers_library(), "decays", "polynomial").run(Ask(20, floor=0.05, bases=(0.1, 0.01)))
    run.advance(20)
    second = run.rates()[1]
    return f"lr_end = 0.005: the group with base 0.01 ends at {second:.3g}" if abs(second - 0.005) > 1e-6 else ""


def _ours_floors() -> None:
    optimizer, scheduler = ours(Schedule(Polynomial(2), floor=0.05), 20, 0.1, 0.01)
    rates(optimizer, scheduler, 20)
    ends = [group["lr"] for group in optimizer.param_groups]
    expect(same(ends[0], 0.005, 0.1) and same(ends[1], 0.0005, 0.1), str(ends))


def _warmup_from_zero() -> str:
    first = found(transformers_library(), "warmups", "linear").run(Ask(20, warmup=5)).rate
    return "the first update runs at rate 0" if first == 0 else ""


def _ours_warmup() -> None:
    expect(rates(*ours("linear + warmup(25%)", 20), 1)[0] > 0, "rate 0")


def _new_group_raises() -> str:
    run = found(transformers_library(), "decays", "linear").run(Ask(20))
    run.advance(10)
    run.add_group(0.05)
    try:
        run.advance()
    except ValueError as error:
        return f"after add_param_group: {raising(error)}"
    return ""


def _new_group_is_frozen() -> str:
    run = found(timm_library(), "decays", "CosineLRScheduler").run(Ask(20))
    run.advance(10)
    run.add_group(0.05)
    run.advance(10)
    return f"a group added with rate 0.05 is still at {run.rates()[1]:.3g} at the end" if run.rates()[1] == 0.05 else ""


def _ours_new_group() -> None:
    optimizer, scheduler = ours("linear", 20)
    rates(optimizer, scheduler, 10)
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.05})
    rates(optimizer, scheduler, 5)
    expect(same(optimizer.param_groups[1]["lr"], 0.0125, 0.1), str(optimizer.param_groups[1]["lr"]))
    rates(optimizer, scheduler, 5)
    expect(optimizer.param_groups[1]["lr"] == 0, "not at the end")


# ---------------------------------------------------------------- timm and keras


def _lengthened_by_prefix() -> str:
    run = found(timm_library(), "warmups", "CosineLRScheduler(warmup_prefix)").run(Ask(20, warmup=5))
    run.advance(20)
    return f"T = 20 with 5 of warmup: {run.rate:.3g} after update 20" if run.rate > 1e-6 else ""


def _dropped_after_warmup() -> str:
    run = found(timm_library(), "warmups", "CosineLRScheduler").run(Ask(20, warmup=5))
    run.advance(5)
    return f"T = 20 with 5 of warmup: {run.rate:.3g} of 0.1 where the warmup ends" if run.rate < 0.0999 else ""


def _lengthened_by_keras() -> str:
    from conformance_peers_counted import keras_library

    run = found(keras_library(), "warmups", "CosineDecay(warmup_target)").run(Ask(20, warmup=5))
    run.advance(20)
    return f"decay_steps = 20, warmup_steps = 5: {run.rate:.3g} after update 20" if run.rate > 1e-6 else ""


def _keras_restarts() -> str:
    from conformance_peers_counted import keras_library

    return _late_restarts(lambda: found(keras_library(), "restarts", "CosineDecayRestarts"))


def _keras() -> Library:
    from conformance_peers_counted import keras_library

    return keras_library()


def _ours_warmup_inside() -> None:
    seen = rates(*ours("cosine + warmup(25%)", 20), 20)
    expect(seen[20] == 0, f"{seen[20]} after update 20")
    expect(seen[5] == 0.1, f"{seen[5]} where the warmup ends")


def _plateau_forgets() -> str:
    run = timm_library().plateaus[0].run()
    for _ in range(2):
        run.observe(1.0)
    resumed = run.saved_and_resumed()
    for _ in range(2):
        run.observe(1.0)
        resumed.observe(1.0)
    return (
        f"saved after 2 losses: at {resumed.rate:g} after 4, where {run.rate:g} was due"
        if run.rate != resumed.rate
        else ""
    )


def _ours_plateau() -> None:
    policy = Policy(Plan({"lr": Constant()}), Plateau(patience=2, factor=0.5))
    _, scheduler = ours(policy, 20)
    for _ in range(2):
        scheduler.observe(1.0)
    optimizer, resumed = ours(policy, 20)
    resumed.load_state_dict(scheduler.state_dict())
    seen = []
    for _ in range(2):
        resumed.observe(1.0)
        seen.append(optimizer.param_groups[0]["lr"])
    expect(seen == [0.1, 0.05], str(seen))


def _entries() -> dict[str, Defect]:
    t, h, p, q, m = (
        ("torch", torch_library),
        ("transformers", transformers_library),
        ("pytorch_optimizer", pytorch_optimizer_library),
        ("pytorch-scheduler", pytorch_scheduler_library),
        ("timm", timm_library),
    )
    k = ("keras", _keras)
    by_epoch = lambda: found(torch_library(), "restarts", "CosineAnnealingWarmRestarts.step(epoch)")  # noqa: E731
    by_timm = lambda: found(timm_library(), "restarts", "CosineLRScheduler(cycle_mul)")  # noqa: E731
    return {
        "shrunk cosine climbs": Defect(
            "CosineAnnealingLR climbs when T_max is shrunk below the present step",
            *t,
            _shrunk_cosine,
            lambda: _ours_shrunk("cosine"),
        ),
        "cosine rebounds": Defect("CosineAnnealingLR rebounds after T", *t, _rebound, _ours_holds),
        "one cycle below zero": Defect(
            "OneCycleLR goes negative at the T-th step with anneal_strategy='linear'",
            *t,
            _negative_one_cycle,
            _ours_one_cycle_holds,
        ),
        "one cycle divides by zero": Defect(
            "OneCycleLR divides by zero when pct_start·T = 1", *t, _zero_division, _ours_rises_over_one_update
        ),
        "one cycle misses its peak": Defect(
            "OneCycleLR misses its peak at small T", *t, _missed_peak, _ours_reaches_the_peak
        ),
        "one cycle raises on resume": Defect(
            "OneCycleLR raises on resume with another T", *t, _raises_on_resume, _ours_names_the_way_out
        ),
        "shrunk linear freezes": Defect(
            "LinearLR freezes for ever when shrunk", *t, _frozen_linear, lambda: _ours_shrunk("linear")
        ),
        "step decays twice": Defect(
            "StepLR built again with last_epoch decays twice", *t, _decays_twice, _ours_rebuilt
        ),
        "chain drops a factor": Defect("ChainedScheduler drops a factor", *t, _dropped_factor, _ours_keeps_factors),
        "sequence applies twice": Defect(
            "SequentialLR around chained recursive schedulers applies a factor once too often",
            *t,
            _applied_twice_by_sequential,
            _ours_in_sequential,
        ),
        "torch restarts late": Defect(
            "CosineAnnealingWarmRestarts.step(epoch) is at the minimum where it should restart",
            *t,
            lambda: _late_restarts(by_epoch),
            _ours_restarts,
        ),
        "wraps at T": Defect(
            "a cycle of CosineAnnealingWarmRestarts that ends with the budget wraps to the maximum at t = T",
            *t,
            _wraps,
            _ours_does_not_wrap,
        ),
        "polynomial floor": Defect(
            "polynomial decay ends the second group at the wrong floor", *h, _wrong_floor, _ours_floors
        ),
        "warmup from zero": Defect("warmup makes its first update at rate 0", *h, _warmup_from_zero, _ours_warmup),
        "new group raises": Defect("a group added in mid-run raises", *h, _new_group_raises, _ours_new_group),
        "rex at zero": Defect("REXScheduler makes its first update at rate 0", *p, _rex_at_zero, _ours_rex),
        "rex flattens": Defect("REXScheduler flattens the rates of the groups", *p, _rex_flattens, _ours_rex_groups),
        "rex forgets tensors": Defect(
            "REXScheduler turns tensor rates into floats", *p, _rex_forgets_tensors, _ours_rex_tensors
        ),
        "linear below zero": Defect(
            "LinearScheduler goes negative past the end", *p, _linear_below_zero, _ours_linear_holds
        ),
        "restarts below the floor": Defect(
            "CosineAnnealingWarmupRestarts falls below its minimum",
            *p,
            _restarts_below_the_floor,
            _ours_restarts_above_the_floor,
        ),
        "restarts without a peak": Defect(
            "CosineAnnealingWarmupRestarts never reaches the peak at a restart",
            *q,
            _restarts_without_a_peak,
            _ours_every_cycle_peaks,
        ),
        "warmup compounds": Defect(
            "WarmupScheduler around a recursive scheduler applies the warmup to it for ever",
            *q,
            _compounded_by_warmup,
            _ours_after_warmup,
        ),
        "timm restarts late": Defect(
            "CosineLRScheduler is at the minimum where it should restart",
            *m,
            lambda: _late_restarts(by_timm),
            _ours_restarts,
        ),
        "prefix lengthens": Defect(
            "warmup_prefix lengthens the budget in silence", *m, _lengthened_by_prefix, _ours_warmup_inside
        ),
        "rate drops after warmup": Defect(
            "the rate drops where the warmup ends", *m, _dropped_after_warmup, _ours_warmup_inside
        ),
        "plateau forgets": Defect(
            "PlateauLRScheduler's state forgets its counter", *m, _plateau_forgets, _ours_plateau
        ),
        "new group is frozen": Defect("a group added in mid-run is frozen", *m, _new_group_is_frozen, _ours_new_group),
        "keras restarts late": Defect(
            "CosineDecayRestarts is at the minimum where it should restart", *k, _keras_restarts, _ours_restarts
        ),
        "keras lengthens": Defect(
            "the warmup of CosineDecay lengthens the budget in silence", *k, _lengthened_by_keras, _ours_warmup_inside
        ),
    }


DEFECTS: Mapping[str, Defect] = _entries()
"""Short name → defect."""
