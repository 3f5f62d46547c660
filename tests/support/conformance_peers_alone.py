"""timm and composer: schedulers that need torch only, inside packages that need far more.

`import timm` and `import composer` load torchvision, whose published build does not load beside a CPU torch. What they
schedule with does not use it, so their modules are loaded here without what stands around them, and put away again:
nobody else in the process finds half a package.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType, SimpleNamespace
from typing import Any

from conformance_peers_torch import QUIET, assign, installed, offer
from conformance_runs import (
    Ask,
    Cycles,
    Library,
    NotApplicable,
    Offer,
    Plateaued,
    PlateauRun,
    TorchRun,
    exact_shapes,
)


@contextmanager
def _bare(*packages: str) -> Iterator[None]:
    """Inside, these packages are folders of modules: their own `__init__` is not run."""
    top = packages[0].split(".")[0]
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == top}
    try:
        for name in packages:
            spec = importlib.util.find_spec(name)
            if spec is None or spec.submodule_search_locations is None:
                raise ImportError(name)
            sys.modules[name] = module = ModuleType(name)
            module.__path__ = list(spec.submodule_search_locations)
        yield
    finally:
        for name in list(sys.modules):
            if name.split(".")[0] == top:
                del sys.modules[name]
        sys.modules.update(before)


# ---------------------------------------------------------------- timm


@cache
def _timm() -> Any:
    with _bare("timm"):
        return importlib.import_module("timm.scheduler")


class TimmRun(TorchRun):
    """timm's schedulers are functions of the update count, which the training loop keeps."""

    def call(self) -> None:
        self.scheduler.step_update(self.updates)

    def skip(self, updates: int) -> None:
        self.updates += updates
        self.call()

    def state(self) -> dict[str, Any]:
        return {**super().state(), "updates": self.updates}

    def resume_scheduler(self, state: dict[str, Any]) -> None:
        super().resume_scheduler(state)
        self.updates = state["updates"]
        self.call()

    def rebuild(self) -> None:
        self.scheduler = self._make(self.optimizer, self.ask, initialize=False)
        self.call()


class TimmPlateau(PlateauRun):
    def __init__(self) -> None:
        self._run = TimmRun(
            Ask(),
            lambda o, ask: _timm().PlateauLRScheduler(o, decay_rate=0.5, patience_t=2, mode="min"),
        )
        self._epoch = 0

    @property
    def rate(self) -> float:
        return self._run.rate

    def observe(self, loss: float) -> None:
        self._epoch += 1
        self._run.scheduler.step(self._epoch, loss)

    def saved_and_resumed(self) -> TimmPlateau:
        resumed = TimmPlateau()
        state = self._run.state()
        resumed._run.optimizer.load_state_dict(state["optimizer"])
        resumed._run.scheduler.load_state_dict(state["scheduler"])
        resumed._epoch = self._epoch
        return resumed


def timm_library() -> Library:
    """The schedulers of timm, counted in updates."""
    number = installed("timm", "timm")
    if number is None:
        return Library("timm", None)
    t = _timm()
    exact = exact_shapes()

    def made(scheduler: Any, **fixed: Any) -> Callable[..., Any]:
        return lambda o, ask, **more: scheduler(
            o,
            ask.updates,
            lr_min=ask.floor * ask.bases[0],
            warmup_t=ask.warmup,
            t_in_epochs=False,
            **fixed,
            **more,
        )

    def wsd(optimizer: Any, ask: Ask, **more: Any) -> Any:
        return t.WSDLRScheduler(
            optimizer,
            ask.updates,
            max(1, ask.updates // 4),
            lr_min=ask.floor * ask.bases[0],
            warmup_t=ask.warmup,
            t_in_epochs=False,
            **more,
        )

    def restarts(optimizer: Any, ask: Cycles) -> Any:
        return t.CosineLRScheduler(
            optimizer,
            ask.first,
            lr_min=ask.floor * ask.bases[0],
            cycle_mul=float(ask.growth),
            cycle_decay=ask.peak_decay,
            cycle_limit=10_000,
            t_in_epochs=False,
        )

    def timed(name: str, make: Callable[..., Any], **more: Any) -> Offer:
        return offer(name, make, run=TimmRun, rebudget=assign("t_initial"), **more)

    cosine, poly, tanh = (
        made(t.CosineLRScheduler),
        made(t.PolyLRScheduler, power=2.0),
        made(t.TanhLRScheduler),
    )
    return Library(
        "timm",
        number,
        decays=(
            timed("CosineLRScheduler", cosine, exact=exact["cosine"]),
            timed("PolyLRScheduler(power=2)", poly, exact=exact["square"]),
            timed("TanhLRScheduler", tanh),
            timed("WSDLRScheduler", wsd),
        ),
        steps=(
            timed(
                "StepLRScheduler",
                lambda o, ask, **more: t.StepLRScheduler(o, 5, 0.5, t_in_epochs=False, **more),
                has_floor=False,
            ),
        ),
        warmups=(
            timed("CosineLRScheduler", cosine),
            timed("CosineLRScheduler(warmup_prefix)", made(t.CosineLRScheduler, warmup_prefix=True)),
            timed("PolyLRScheduler(power=2)", poly),
            timed("TanhLRScheduler", tanh),
            timed("WSDLRScheduler", wsd),
        ),
        restarts=(offer("CosineLRScheduler(cycle_mul)", restarts, run=TimmRun),),
        plateaus=(Plateaued("PlateauLRScheduler", TimmPlateau),),
        lacks={"one_cycles": "no one-cycle schedule", "compositions": "nothing to put together"},
        quiet=(*QUIET, "PlateauLRScheduler is deprecated"),
    )


# ---------------------------------------------------------------- composer


@cache
def _composer() -> Any:
    """Its schedulers and its `Time`, which they compute with."""
    with _bare("composer", "composer.utils", "composer.core", "composer.optim"):
        utils, core = sys.modules["composer.utils"], sys.modules["composer.core"]
        utils.StringEnum = importlib.import_module("composer.utils.string_enum").StringEnum  # type: ignore[attr-defined]
        time = importlib.import_module("composer.core.time")
        core.Time, core.TimeUnit, core.State = time.Time, time.TimeUnit, object  # type: ignore[attr-defined]
        schedulers = importlib.import_module("composer.optim.scheduler")
    return SimpleNamespace(schedulers=schedulers, Time=time.Time, Timestamp=time.Timestamp)


class ComposerRun(TorchRun):
    """Composer's schedulers are functions of the trainer's state, here reduced to what they read."""

    def __init__(self, ask: Ask, make: Any) -> None:
        self.trainer = SimpleNamespace(max_duration=_composer().Time(ask.updates, "ba"), dataloader_len=None)
        self._tell(0)
        self._schedule = make
        super().__init__(ask, self._compiled)

    def _compiled(self, optimizer: Any, ask: Ask, **more: Any) -> Any:
        if more:
            raise NotApplicable("the trainer builds it")
        self.trainer.optimizers = [optimizer]
        return _composer().schedulers.compile_composer_scheduler(self._schedule(ask), self.trainer)

    def _tell(self, updates: int) -> None:
        self.trainer.timestamp = _composer().Timestamp(batch=updates)

    def another(self, updates: int | None = None) -> ComposerRun:
        ask = self.ask if updates is None else Ask(updates, self.ask.warmup, self.ask.floor)
        return ComposerRun(ask, self._schedule)

    def build(self, optimizer: Any) -> Any:
        raise NotApplicable("it follows the trainer's clock; calls do not count")

    def call(self) -> None:
        self._tell(self.updates)
        super().call()

    def skip(self, updates: int) -> None:
        self.updates += updates
        self.call()

    def state(self) -> dict[str, Any]:
        return {**super().state(), "updates": self.updates}

    def resume_scheduler(self, state: dict[str, Any]) -> None:
        super().resume_scheduler(state)
        self.updates = state["updates"]
        self._tell(self.updates)


def composer_library() -> Library:
    """The schedulers of Composer (distribution `mosaicml`)."""
    number = installed("mosaicml", "composer")
    if number is None:
        return Library("mosaicml", None)
    c = _composer().schedulers
    exact = exact_shapes()

    def rebudget(run: ComposerRun, updates: int) -> None:
        run.trainer.max_duration = _composer().Time(updates, "ba")

    def timed(name: str, schedule: Callable[[Any], Any], **more: Any) -> Offer:
        return offer(name, schedule, run=ComposerRun, floor_is_absolute=False, rebudget=rebudget, **more)

    def restarts(ask: Cycles) -> Any:
        if ask.peak_decay != 1:
            raise NotApplicable("peaks do not decay")
        return c.CosineAnnealingWarmRestartsScheduler(f"{ask.first}ba", float(ask.growth), ask.floor)

    def warm(scheduler: Any, **fixed: Any) -> Callable[[Ask], Any]:
        return lambda ask: scheduler(t_warmup=f"{ask.warmup}ba", alpha_f=ask.floor, **fixed)

    return Library(
        "mosaicml",
        number,
        decays=(
            timed("LinearScheduler", lambda ask: c.LinearScheduler(alpha_f=ask.floor), exact=exact["linear"]),
            timed(
                "CosineAnnealingScheduler",
                lambda ask: c.CosineAnnealingScheduler(alpha_f=ask.floor),
                exact=exact["cosine"],
            ),
            timed(
                "PolynomialScheduler(power=2)",
                lambda ask: c.PolynomialScheduler(2.0, alpha_f=ask.floor),
                exact=exact["square"],
            ),
        ),
        steps=(
            timed("StepScheduler", lambda ask: c.StepScheduler("5ba", 0.5), has_floor=False),
            timed("ExponentialScheduler", lambda ask: c.ExponentialScheduler(0.9, "1ba"), has_floor=False),
        ),
        warmups=(
            timed("LinearWithWarmupScheduler", warm(c.LinearWithWarmupScheduler)),
            timed("CosineAnnealingWithWarmupScheduler", warm(c.CosineAnnealingWithWarmupScheduler)),
            timed("PolynomialWithWarmupScheduler", warm(c.PolynomialWithWarmupScheduler)),
        ),
        restarts=(timed("CosineAnnealingWarmRestartsScheduler", restarts),),
        lacks={
            "one_cycles": "no one-cycle schedule",
            "compositions": "nothing to put together",
            "plateaus": "no such rule",
        },
        quiet=QUIET,
    )
