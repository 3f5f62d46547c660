"""torch.optim.lr_scheduler as the laws see it, and what its relatives share."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from conformance_runs import (
    Ask,
    Composed,
    Cycles,
    Library,
    Maker,
    NotApplicable,
    Offer,
    Plateaued,
    PlateauRun,
    TorchRun,
    cosine_at,
    exact_shapes,
    warmed,
)
from torch.optim import lr_scheduler as torch_schedulers

QUIET = (
    r"Detected call of `lr_scheduler\.step\(\)` before `optimizer\.step\(\)`",
    r"Seems like `optimizer\.step\(\)` has been overridden",
    r"To get the last learning rate computed by the scheduler",
    r"The epoch parameter in `scheduler\.step\(\)` was not necessary",
)
"""What torch's schedulers say of the calls that laws make on purpose."""


def installed(distribution: str, module: str) -> str | None:
    """The version of a library that stands on torch, with torch's own; None where it is not installed."""
    if importlib.util.find_spec(module) is None:
        return None
    try:
        number = version(distribution)
    except PackageNotFoundError:  # a folder of that name is no installed library
        return None
    return number if distribution == "torch" else f"{number} (torch {public('torch')})"


def public(distribution: str) -> str:
    """The version without the local part, which names the build: 2.13.0 of 2.13.0+cpu."""
    return version(distribution).split("+")[0]


def offer(name: str, make: Maker, *, run: type[TorchRun] = TorchRun, **more: Any) -> Offer:
    return Offer(name, lambda ask: run(ask, make), **more)


def assign(*attributes: str) -> Callable[[TorchRun, int], None]:
    """The budget is changed by setting attributes of the scheduler."""

    def rebudget(run: TorchRun, updates: int) -> None:
        for attribute in attributes:
            setattr(run.scheduler, attribute, updates)

    return rebudget


def build_again(make: Maker) -> Callable[[TorchRun, int], None]:
    """The budget is changed by building the scheduler again where it stands: its length is fixed at construction."""

    def rebudget(run: TorchRun, updates: int) -> None:
        run.scheduler = make(
            run.optimizer, Ask(updates, run.ask.warmup, run.ask.floor), last_epoch=run.scheduler.last_epoch - 1
        )

    return rebudget


class MetricRun(PlateauRun):
    """A run under a scheduler whose `step` takes a loss.

    Args:
        make: optimizer → scheduler.
    """

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make
        self._run = TorchRun(Ask(), lambda optimizer, ask: make(optimizer))

    @property
    def rate(self) -> float:
        return self._run.rate

    def observe(self, loss: float) -> None:
        self._run.scheduler.step(loss)

    def saved_and_resumed(self) -> MetricRun:
        resumed = MetricRun(self._make)
        resumed._run.resume(self._run.state())
        return resumed


def _sequence(optimizer: Any, ask: Ask, **more: Any) -> Any:
    """A warmup as the documentation of SequentialLR has it; the user takes it off the decay's length."""
    if more:
        raise NotApplicable("its parts have positions of their own")
    return torch_schedulers.SequentialLR(
        optimizer,
        [
            torch_schedulers.LinearLR(optimizer, 0.1, total_iters=ask.warmup),
            torch_schedulers.CosineAnnealingLR(optimizer, ask.updates - ask.warmup, ask.floor * ask.bases[0]),
        ],
        [ask.warmup],
    )


def _one_cycle(strategy: str) -> Maker:
    return lambda optimizer, ask, **more: torch_schedulers.OneCycleLR(
        optimizer, list(ask.bases), total_steps=ask.updates, anneal_strategy=strategy, **more
    )


def _restarts(optimizer: Any, ask: Cycles, **more: Any) -> Any:
    if ask.peak_decay != 1:
        raise NotApplicable("peaks do not decay")
    return torch_schedulers.CosineAnnealingWarmRestarts(optimizer, ask.first, ask.growth, ask.floor * ask.bases[0])


class _ByEpoch(TorchRun):
    """The position is given to `step`, as the documentation of CosineAnnealingWarmRestarts shows."""

    def skip(self, updates: int) -> None:
        self.updates += updates
        self.scheduler.step(self.updates)


def _composed(name: str, parts: Callable[[Any], Any], expected: Callable[[int], float]) -> Composed:
    run = lambda: TorchRun(Ask(), lambda optimizer, ask: parts(optimizer))  # noqa: E731
    return Composed(name, run, lambda update: 0.1 * expected(update))


def _compositions() -> tuple[Composed, ...]:
    s = torch_schedulers
    rise = warmed(0.1, 5)

    def sequence(second: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda o: s.SequentialLR(o, [s.LinearLR(o, 0.1, total_iters=5), second(o)], [5])

    def chain(second: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda o: s.ChainedScheduler([s.LinearLR(o, 0.1, total_iters=5), second(o)])

    return (
        _composed(
            "SequentialLR(LinearLR, CosineAnnealingLR)",
            sequence(lambda o: s.CosineAnnealingLR(o, 15)),
            lambda k: rise(k) if k < 5 else cosine_at((k - 5) / 15),
        ),
        _composed(
            "SequentialLR(LinearLR, StepLR)",
            sequence(lambda o: s.StepLR(o, 5, 0.5)),
            lambda k: rise(k) if k < 5 else 0.5 ** ((k - 5) // 5),
        ),
        _composed(
            "SequentialLR(LinearLR, MultiplicativeLR)",
            sequence(lambda o: s.MultiplicativeLR(o, lambda _: 0.9)),
            lambda k: rise(k) if k < 5 else 0.9 ** (k - 5),
        ),
        _composed(
            "SequentialLR(LinearLR, SequentialLR)",
            sequence(lambda o: s.SequentialLR(o, [s.ConstantLR(o, 0.5, 99), s.ExponentialLR(o, 0.9)], [5])),
            lambda k: rise(k) if k < 5 else 0.5 if k < 10 else 0.9 ** (k - 10),
        ),
        _composed(
            "SequentialLR(ChainedScheduler, LambdaLR)",
            lambda o: s.SequentialLR(
                o,
                [
                    s.ChainedScheduler([s.ConstantLR(o, 0.5, 99), s.ExponentialLR(o, 0.9)]),
                    s.LambdaLR(o, lambda _: 1.0),
                ],
                [5],
            ),
            lambda k: 0.5 * 0.9**k if k < 5 else 1.0,
        ),
        _composed(
            "ChainedScheduler(LinearLR, ExponentialLR)",
            chain(lambda o: s.ExponentialLR(o, 0.9)),
            lambda k: rise(k) * 0.9**k,
        ),
        _composed(
            "ChainedScheduler(LinearLR, CosineAnnealingLR)",
            chain(lambda o: s.CosineAnnealingLR(o, 20)),
            lambda k: rise(k) * cosine_at(k / 20),
        ),
        _composed(
            "ChainedScheduler(LinearLR, LambdaLR)",
            chain(lambda o: s.LambdaLR(o, lambda k: 1 - k / 20)),
            lambda k: rise(k) * (1 - k / 20),
        ),
        _composed(
            "ChainedScheduler(LinearLR, CosineAnnealingWarmRestarts)",
            chain(lambda o: s.CosineAnnealingWarmRestarts(o, 10)),
            lambda k: rise(k) * cosine_at(k % 10 / 10),
        ),
    )


def torch_library() -> Library:
    """The schedulers that torch brings."""
    s = torch_schedulers
    exact = exact_shapes()
    return Library(
        "torch",
        public("torch"),
        decays=(
            offer(
                "CosineAnnealingLR",
                lambda o, ask, **more: s.CosineAnnealingLR(o, ask.updates, ask.floor * ask.bases[0], **more),
                exact=exact["cosine"],
                rebudget=assign("T_max"),
            ),
            offer(
                "LinearLR",
                lambda o, ask, **more: s.LinearLR(o, 1.0, ask.floor, ask.updates, **more),
                floor_is_absolute=False,
                exact=exact["linear"],
                rebudget=assign("total_iters"),
            ),
            offer(
                "PolynomialLR(power=2)",
                lambda o, ask, **more: s.PolynomialLR(o, ask.updates, 2.0, **more),
                has_floor=False,
                exact=exact["square"],
                rebudget=assign("total_iters"),
            ),
        ),
        steps=(
            offer("StepLR", lambda o, ask, **more: s.StepLR(o, 5, 0.5, **more), has_floor=False),
            offer("MultiStepLR", lambda o, ask, **more: s.MultiStepLR(o, [5, 10], 0.5, **more), has_floor=False),
            offer("ConstantLR", lambda o, ask, **more: s.ConstantLR(o, 0.5, 10, **more), has_floor=False),
            offer("ExponentialLR", lambda o, ask, **more: s.ExponentialLR(o, 0.9, **more), has_floor=False),
            offer("LambdaLR", lambda o, ask, **more: s.LambdaLR(o, lambda k: 0.9**k, **more), has_floor=False),
        ),
        warmups=(offer("SequentialLR(LinearLR, CosineAnnealingLR)", _sequence),),
        one_cycles=tuple(
            offer(f"OneCycleLR({strategy})", _one_cycle(strategy), end=1 / 250_000, has_floor=False)
            for strategy in ("cos", "linear")
        ),
        restarts=(
            offer("CosineAnnealingWarmRestarts", _restarts),
            offer("CosineAnnealingWarmRestarts.step(epoch)", _restarts, run=_ByEpoch),
        ),
        compositions=_compositions(),
        plateaus=(
            Plateaued(
                "ReduceLROnPlateau",
                lambda: MetricRun(lambda o: s.ReduceLROnPlateau(o, factor=0.5, patience=2)),
            ),
        ),
        quiet=QUIET,
    )
