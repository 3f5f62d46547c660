"""UpdateCount: how many updates an optimizer really made."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer


def innermost(optimizer: Optimizer) -> Optimizer:
    """The optimizer itself, out of wrappers that keep it in `.optimizer` (Accelerate's): the one that has hooks."""
    while isinstance(wrapped := getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = wrapped
    return optimizer


class UpdateCount:
    """Counts the updates of an optimizer through its step hooks; falls back to counting calls if it never reports.

    A step that AMP skips is no update: an ordinary optimizer is not stepped then, and a fused one, whose hooks fire all
    the same, carries `found_inf`, which is read inside the hook.

    Args:
        optimizer: the optimizer itself, or a wrapper of it.
        catch_up: a method to call before an update that finds other groups than were known, or calls counted that were
            no updates.

    Attributes:
        reported: one number, the updates reported so far; 0 if the optimizer never did.
        seen: one number, how many updates `new` has handed out.
        known_groups: one number, the groups that were taken up.
    """

    def __init__(self, optimizer: Optimizer, catch_up: Callable[[], None]) -> None:
        inner = innermost(optimizer)
        # Lists, because the hooks must not keep the scheduler alive, nor be copied with it.
        self.reported = reported = [0]
        self.seen = seen = [0]
        begun = [False]

        self.known_groups = known = [len(inner.param_groups)]
        behind = weakref.WeakMethod(catch_up)

        def begin(stepped: Optimizer, args: Any, kwargs: Any) -> None:
            begun[0] = True
            stale = len(stepped.param_groups) != known[0] or (seen[0] and not reported[0])
            if stale and (catch_up_now := behind()) is not None:
                catch_up_now()

        def end(stepped: Optimizer, args: Any, kwargs: Any) -> None:
            # A class that calls super().step() fires its hooks twice: what begins once or more and ends is one update.
            if begun[0]:
                begun[0] = False
                found_inf = stepped.__dict__.get("found_inf")  # a third of the time of getattr with a default
                if found_inf is None or not float(found_inf):
                    reported[0] += 1

        for handle in (inner.register_step_pre_hook(begin), inner.register_step_post_hook(end)):
            weakref.finalize(self, handle.remove)

    def skip(self) -> None:
        """Forget what was reported and not handed out: it belongs to a position that was left by loading another."""
        self.seen[0] = self.reported[0]

    def take_back(self) -> int:
        """Calls that were counted for want of any report, to be forgotten: the optimizer is about to report.

        Accumulation calls before the first update, and AMP usually skips the first steps of a run.
        """
        if self.reported[0]:
            return 0
        calls, self.seen[0] = self.seen[0], 0
        return calls

    def new(self) -> int:
        """Updates since the last call; 1 if the optimizer has never reported any."""
        total = self.reported[0]
        if not total:
            self.seen[0] += 1
            return 1
        new, self.seen[0] = total - self.seen[0], total
        return new
