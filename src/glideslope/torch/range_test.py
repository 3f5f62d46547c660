"""Learning-rate range test: raise the rate from update to update, watch the loss, and put everything back."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch.optim import Optimizer

from glideslope.core.value import require, unknown
from glideslope.torch.groups import write
from glideslope.torch.snapshot import generators, load_generators

if TYPE_CHECKING:
    import plotly.graph_objects as go

SMOOTHING = 0.9
"""Decay of the running mean that suggestions are read from; single losses are too noisy to differentiate."""

CLEAR = 6.0
"""A fall of the smoothed loss counts from this many standard deviations of its noise on. Losses that are nothing but
noise reach it in 1 of 1,000 tests of 300 or 1,000 updates (simulated; the largest of many differences is looked at)."""
FEWEST_LOSSES = 10


@dataclass(frozen=True)
class Suggestion:
    """A rate, or why none could be told.

    Args:
        rate: the suggested learning rate of the first group; None if the curve does not tell.
        reason: what it was read from, or what is missing.
    """

    rate: float | None
    reason: str


@dataclass(frozen=True)
class RangeTest:
    """What a range test saw.

    Args:
        rates: learning rate of the first group at each update, increasing.
        losses: the training loss returned at each update.
        accuracies: what `accuracy` returned after each update; empty without it.
        diverged: whether the test was stopped because the loss ran away.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    accuracies: tuple[float, ...]
    diverged: bool

    @property
    def smoothed(self) -> tuple[float, ...]:
        """Exponentially weighted mean of the losses up to each update, without the bias of its start."""
        mean, weight, values = 0.0, 0.0, []
        for loss in self.losses:
            mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
            weight = SMOOTHING * weight + (1 - SMOOTHING)
            values.append(mean / weight)
        return tuple(values)

    @property
    def suggestions(self) -> dict[str, Suggestion]:
        """Every rule's suggestion, by the rule's name."""
        return {
            "steepest descent": self.steepest(),
            "minimum / 10": self.minimum_over_ten(),
            "accuracy peak": self.accuracy_peak(),
        }

    def figure(self) -> go.Figure:
        """Loss against rate, the suggestions marked, as a plotly figure.

        Raises:
            ImportError: plotly is not installed.
        """
        try:
            from glideslope.report.figures import Curve, rate_range
        except ImportError as error:
            raise ImportError('the figure needs plotly: pip install "glideslope[studies]"') from error
        marks = {rule: found.rate for rule, found in self.suggestions.items() if found.rate is not None}
        accuracies = Curve(self.rates, self.accuracies) if self.accuracies else None
        return rate_range(Curve(self.rates, self.losses), Curve(self.rates, self.smoothed), marks, accuracies)

    def steepest(self) -> Suggestion:
        """The rate below the minimum at which the smoothed loss falls fastest per factor of the rate.

        Source: the rule that fastai's and PyTorch Lightning's learning-rate finders suggest by.
        """
        finite = [(rate, loss) for rate, loss in zip(self.rates, self.smoothed, strict=True) if math.isfinite(loss)]
        if unclear := self._unclear():
            return Suggestion(None, unclear)
        logs, losses = np.log([rate for rate, _ in finite]), np.array([loss for _, loss in finite])
        slopes = np.gradient(losses, logs)
        index = int(slopes[: int(losses.argmin()) + 1].argmin())  # beyond the minimum it may fall back from a peak
        if index == 0:
            return Suggestion(None, "could not tell: the loss falls fastest at the first rate. Start lower.")
        if index == len(finite) - 1:
            return Suggestion(None, "could not tell: the loss still falls fastest at the last rate. Stop higher.")
        return Suggestion(finite[index][0], f"the smoothed loss falls fastest here ({slopes[index]:.3g} per e-fold).")

    def _unclear(self) -> str:
        """Why the losses do not tell a rate: there are too few, or their fall is no larger than their noise."""
        finite = np.array([loss for loss in self.losses if math.isfinite(loss)])
        if finite.size < FEWEST_LOSSES:
            return f"could not tell: {finite.size} finite losses, and {FEWEST_LOSSES} are needed. Start lower."
        smoothed = np.array(self.smoothed[: finite.size])
        bottom = int(smoothed.argmin())
        # Second differences see the noise and not the trend. A running mean of n losses keeps `kept` of their variance.
        noise = float(np.std(np.diff(finite[: max(FEWEST_LOSSES, bottom + 1)], n=2))) / math.sqrt(6)
        forgotten = SMOOTHING ** np.arange(1, bottom + 2)
        kept = (1 - SMOOTHING) / (1 + SMOOTHING) * (1 + forgotten) / (1 - forgotten)
        falls = smoothed[: bottom + 1] - smoothed[bottom]
        needed = CLEAR * noise * np.sqrt(kept + kept[bottom])
        if not (falls > needed).any():
            clearest = int((falls - needed).argmax())
            return (
                f"could not tell: the smoothed loss falls by {falls[clearest]:.2g}, and noise alone may move it by "
                f"{needed[clearest]:.2g}. Start lower, stop higher, or take more updates."
            )
        return ""

    def minimum_over_ten(self) -> Suggestion:
        """A tenth of the rate at which the smoothed loss is lowest.

        Source: the usual reading of Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017.
        """
        if unclear := self._unclear():
            return Suggestion(None, unclear)
        values = self.smoothed
        index = min((i for i, loss in enumerate(values) if math.isfinite(loss)), key=lambda i: values[i])
        if index == len(values) - 1 and not self.diverged:
            return Suggestion(None, "could not tell: the loss is lowest at the last rate. Stop higher.")
        return Suggestion(self.rates[index] / 10, f"the smoothed loss is lowest at {self.rates[index]:.3g}.")

    def accuracy_peak(self) -> Suggestion:
        """The rate at which the accuracy is highest: the maximum of a cycle.

        Source: Smith, WACV 2017, Section 3.3; the protocol of Dong et al., 2021, Appendix A.3.
        """
        if not self.accuracies:
            return Suggestion(None, "could not tell: no accuracy was measured.")
        index = max(range(len(self.accuracies)), key=lambda position: self.accuracies[position])
        if index == len(self.accuracies) - 1 and not self.diverged:
            return Suggestion(None, "could not tell: the accuracy is highest at the last rate. Stop higher.")
        return Suggestion(self.rates[index], f"the accuracy peaks here ({self.accuracies[index]:.4g}).")


def range_test(
    model_step: Callable[[], float | torch.Tensor],
    optimizer: Optimizer,
    start: float,
    stop: float,
    *,
    stateful: Sequence[Any],
    num_updates: int = 100,
    spacing: Literal["exponential", "linear"] = "exponential",
    divergence: float = 4.0,
    accuracy: Callable[[], float] | None = None,
) -> RangeTest:
    """Train for a few updates at a rising rate, then put model, optimizer and random generators back bit for bit.

    Works on anything that makes one update and returns a loss: AMP, accumulation, several losses, custom loops; with
    several groups (their rates keep their ratios) and while a scheduler is attached (its values are overwritten; name
    it in `stateful`).

    Args:
        model_step: makes one update (forward, backward, `optimizer.step()`) and returns the loss.
        optimizer: whose rates are raised.
        start, stop: rates of the first group at the first and the last update, 0 < start < stop.
        stateful: everything else that an update changes and that has `state_dict` and `load_state_dict`: the model, a
            scaler, a scheduler, a stateful data loader. What is left out stays as the test leaves it.
        num_updates: length of the test, >= 2.
        spacing: "exponential" (equal factors) or "linear" (equal steps, as Smith's).
        divergence: stop when the smoothed loss exceeds this many times its minimum, > 1; a loss that is not finite
            stops at once.
        accuracy: measured after each update, for `RangeTest.accuracy_peak`.

    Raises:
        ValueError: an argument is out of its bounds.
    """
    require(0 < start < stop < math.inf, "start, stop", (start, stop), "0 < start < stop < inf")
    require(num_updates >= 2, "num_updates", num_updates, "num_updates >= 2")
    require(divergence > 1, "divergence", divergence, "divergence > 1")
    if spacing not in ("exponential", "linear"):
        raise unknown("spacing", spacing, ("exponential", "linear"))
    spaced = np.geomspace if spacing == "exponential" else np.linspace
    ratios = _ratios(optimizer)
    rates: list[float] = []
    losses: list[float] = []
    accuracies: list[float] = []
    diverged = False
    with _put_back(optimizer, stateful):
        for rate in map(float, spaced(start, stop, num_updates)):
            for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
                write(group, "lr", rate * ratio)
            returned = model_step()
            loss = float(returned.detach() if isinstance(returned, torch.Tensor) else returned)
            rates.append(rate)
            losses.append(loss)
            if accuracy is not None:
                accuracies.append(float(accuracy()))
            seen = RangeTest(tuple(rates), tuple(losses), (), False).smoothed
            diverged = not math.isfinite(loss) or (len(seen) > 1 and seen[-1] > divergence * min(seen) > 0)
            if diverged:
                break
    return RangeTest(tuple(rates), tuple(losses), tuple(accuracies), diverged)


def _ratios(optimizer: Optimizer) -> list[float]:
    """Each group's rate against the first's; all equal where the first is 0, as under a warmup from 0."""
    rates = [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]
    return [rate / rates[0] if rates[0] else 1.0 for rate in rates]


@contextmanager
def _put_back(optimizer: Optimizer, stateful: Sequence[Any]) -> Iterator[None]:
    """Restore the optimizer, everything stateful and every global random generator, whatever happens inside."""
    # The optimizer before the rest: a scheduler among them then writes its own values last.
    things = [optimizer, *stateful]
    saved = [copy.deepcopy(thing.state_dict()) for thing in things]
    drawn = generators()
    modes = [(thing, thing.training) for thing in stateful if isinstance(thing, torch.nn.Module)]
    try:
        yield
    finally:
        for thing, state in zip(things, saved, strict=True):
            thing.load_state_dict(state)
        for module, training in modes:
            module.train(training)
        load_generators(drawn)
