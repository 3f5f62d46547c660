"""Libraries of schedulers that stand on torch's: transformers, pytorch_optimizer and pytorch-scheduler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from conformance_peers_torch import QUIET, MetricRun, assign, build_again, installed, offer
from conformance_runs import (
    Ask,
    Composed,
    Cycles,
    Library,
    NotApplicable,
    Offer,
    Plateaued,
    TorchRun,
    cosine_at,
    exact_shapes,
)


def transformers_library() -> Library:
    """The schedules of `transformers.optimization`."""
    number = installed("transformers", "transformers")
    if number is None:
        return Library("transformers", None)
    from transformers import optimization as t

    exact = exact_shapes()

    def lowest(ask: Ask) -> float:
        return ask.floor * ask.bases[0]

    makers: dict[str, Callable[..., Any]] = {
        "linear": lambda o, a, **more: t.get_linear_schedule_with_warmup(o, a.warmup, a.updates, **more),
        "cosine": lambda o, a, **more: t.get_cosine_schedule_with_warmup(o, a.warmup, a.updates, **more),
        "cosine_with_min_lr": lambda o, a, **more: t.get_cosine_with_min_lr_schedule_with_warmup(
            o, a.warmup, a.updates, min_lr_rate=a.floor, **more
        ),
        "cosine_warmup_with_min_lr": lambda o, a, **more: t.get_cosine_with_min_lr_schedule_with_warmup_lr_rate(
            o, a.warmup, a.updates, min_lr_rate=a.floor, **more
        ),
        "polynomial": lambda o, a, **more: t.get_polynomial_decay_schedule_with_warmup(
            o, a.warmup, a.updates, lr_end=lowest(a), power=2.0, **more
        ),
        "warmup_stable_decay": lambda o, a, **more: t.get_wsd_schedule(
            o, a.warmup, max(1, a.updates // 4), a.updates, min_lr_ratio=a.floor, **more
        ),
    }
    """By the names that `SchedulerType` gives them."""
    formulas = {"linear": "linear", "cosine": "cosine", "cosine_with_min_lr": "cosine", "polynomial": "square"}

    def made(name: str) -> Offer:
        return offer(
            name,
            makers[name],
            has_floor=name not in ("linear", "cosine"),
            floor_is_absolute=name == "polynomial",
            exact=exact.get(formulas.get(name, "")),
            rebudget=build_again(makers[name]),
        )

    def restarts(optimizer: Any, ask: Cycles) -> Any:
        if ask.growth != 1 or ask.peak_decay != 1 or ask.floor:
            raise NotApplicable("cycles are equal, and fall to 0")
        return t.get_cosine_with_hard_restarts_schedule_with_warmup(
            optimizer, 0, ask.updates, num_cycles=ask.updates // ask.first
        )

    return Library(
        "transformers",
        number,
        decays=tuple(made(name) for name in makers),
        steps=(offer("inverse_sqrt", lambda o, a, **more: t.get_inverse_sqrt_schedule(o, 1, **more), has_floor=False),),
        warmups=tuple(made(name) for name in makers),
        restarts=(offer("cosine_with_restarts", restarts),),
        plateaus=(
            Plateaued(
                "reduce_lr_on_plateau",
                lambda: MetricRun(lambda o: t.get_reduce_on_plateau_schedule(o, factor=0.5, patience=2)),
            ),
            Plateaued("greedy", lambda: MetricRun(lambda o: t.GreedyLR(o, factor=0.5, patience=2))),
        ),
        lacks={"one_cycles": "no one-cycle schedule", "compositions": "nothing to put together"},
        quiet=QUIET,
    )


def pytorch_optimizer_library() -> Library:
    """The schedulers of pytorch_optimizer's own; it also hands out torch's."""
    number = installed("pytorch_optimizer", "pytorch_optimizer")
    if number is None:
        return Library("pytorch_optimizer", None)
    from pytorch_optimizer import lr_scheduler as p

    exact = exact_shapes()

    def linear_warmup(scheduler: Any, **fixed: Any) -> Callable[..., Any]:
        def make(optimizer: Any, ask: Ask, **more: Any) -> Any:
            if more:
                raise NotApplicable("no `last_epoch`")
            return scheduler(
                optimizer,
                t_max=ask.updates,
                max_lr=ask.bases[0],
                min_lr=ask.floor * ask.bases[0],
                warmup_steps=ask.warmup,
                **fixed,
            )

        return make

    def rex(optimizer: Any, ask: Ask, **more: Any) -> Any:
        if more:
            raise NotApplicable("no `last_epoch`")
        return p.REXScheduler(optimizer, ask.updates, max_lr=ask.bases[0], min_lr=ask.floor * ask.bases[0])

    def wsd(optimizer: Any, ask: Ask, **more: Any) -> Any:
        decay = max(1, ask.updates // 4)
        stable = ask.updates - ask.warmup - decay
        return p.get_wsd_schedule(optimizer, ask.warmup, stable, decay, cooldown_type="linear", **more)

    def restarts(optimizer: Any, ask: Cycles) -> Any:
        return p.CosineAnnealingWarmupRestarts(
            optimizer,
            ask.first,
            float(ask.growth),
            max_lr=ask.bases[0],
            min_lr=ask.floor * ask.bases[0],
            gamma=ask.peak_decay,
        )

    total = assign("total_steps")
    linear = offer("LinearScheduler", linear_warmup(p.LinearScheduler), rebudget=total, exact=exact["linear"])
    cosine = offer("CosineScheduler", linear_warmup(p.CosineScheduler), rebudget=total, exact=exact["cosine"])
    poly = offer("PolyScheduler", linear_warmup(p.PolyScheduler), rebudget=total)
    stable = offer("get_wsd_schedule", wsd, has_floor=False, rebudget=build_again(wsd))
    return Library(
        "pytorch_optimizer",
        number,
        decays=(
            linear,
            cosine,
            poly,
            offer("REXScheduler", rex, rebudget=total, exact=exact["rex"]),
            stable,
        ),
        steps=(
            offer(
                "get_chebyshev_schedule",
                lambda o, a, **more: p.get_chebyshev_schedule(o, a.updates, **more),
                has_floor=False,
            ),
        ),
        warmups=(linear, cosine, poly, stable),
        restarts=(offer("CosineAnnealingWarmupRestarts", restarts),),
        lacks={
            "one_cycles": "torch's",
            "compositions": "torch's",
            "plateaus": "torch's",
        },
        quiet=QUIET,
    )


def pytorch_scheduler_library() -> Library:
    """The schedulers of pytorch-scheduler."""
    number = installed("pytorch-scheduler", "pytorch_scheduler")
    if number is None:
        return Library("pytorch-scheduler", None)
    import pytorch_scheduler as p
    from torch.optim import lr_scheduler as s

    exact = exact_shapes()

    def lowest(ask: Ask) -> float:
        return ask.floor * ask.bases[0]

    def warmup_scheduler(optimizer: Any, ask: Ask, **more: Any) -> Any:
        base = p.KDecayScheduler(optimizer, ask.updates, min_lr=lowest(ask))
        return p.WarmupScheduler(optimizer, base, ask.warmup, **more)

    def restarts(optimizer: Any, ask: Cycles) -> Any:
        return p.CosineAnnealingWarmupRestarts(
            optimizer,
            ask.first,
            max_lr=ask.bases[0],
            min_lr=lowest(ask),
            cycle_mult=float(ask.growth),
            gamma=ask.peak_decay,
        )

    def composed(name: str, base: Callable[[Any], Any], expected: Callable[[int], float]) -> Composed:
        make = lambda o, ask: p.WarmupScheduler(o, base(o), 5)  # noqa: E731
        return Composed(
            f"WarmupScheduler({name})",
            lambda: TorchRun(Ask(), make),
            lambda k: 0.1 * (k / 5 if k < 5 else expected(k - 5)),
        )

    total = assign("total_steps")
    linear = offer(
        "LinearDecayScheduler",
        lambda o, a, **more: p.LinearDecayScheduler(o, a.updates, a.warmup, lowest(a), **more),
        rebudget=total,
        exact=exact["linear"],
    )
    cosine = offer(
        "CosineWithWarmupScheduler",
        lambda o, a, **more: p.CosineWithWarmupScheduler(o, a.updates, a.warmup, lowest(a), **more),
        rebudget=total,
        exact=exact["cosine"],
    )
    polynomial = offer(
        "PolynomialScheduler(power=2)",
        lambda o, a, **more: p.PolynomialScheduler(o, a.updates, 2.0, lowest(a), a.warmup, **more),
        rebudget=assign("total_steps", "_decay_steps"),
        exact=exact["square"],
    )
    return Library(
        "pytorch-scheduler",
        number,
        decays=(
            linear,
            cosine,
            polynomial,
            offer(
                "KDecayScheduler",
                lambda o, a, **more: p.KDecayScheduler(o, a.updates, min_lr=lowest(a), **more),
                rebudget=total,
                exact=exact["cosine"],
            ),
            offer(
                "RexScheduler",
                lambda o, a, **more: p.RexScheduler(o, a.updates, **more),
                has_floor=False,
                rebudget=total,
                exact=exact["rex"],
            ),
        ),
        warmups=(linear, cosine, polynomial, offer("WarmupScheduler(KDecayScheduler)", warmup_scheduler)),
        one_cycles=(
            offer(
                "SlantedTriangularScheduler",
                lambda o, a, **more: p.SlantedTriangularScheduler(o, a.updates, **more),
                end=1 / 32,
                has_floor=False,
            ),
        ),
        restarts=(offer("CosineAnnealingWarmupRestarts", restarts),),
        compositions=(
            composed("KDecayScheduler", lambda o: p.KDecayScheduler(o, 15), lambda k: cosine_at(k / 15)),
            composed("CosineAnnealingLR", lambda o: s.CosineAnnealingLR(o, 15), lambda k: cosine_at(k / 15)),
            composed("StepLR", lambda o: s.StepLR(o, 5, 0.5), lambda k: 0.5 ** (k // 5)),
            composed("ExponentialLR", lambda o: s.ExponentialLR(o, 0.9), lambda k: 0.9**k),
        ),
        lacks={"steps": "none without an end", "plateaus": "no such rule"},
        quiet=QUIET,
    )
