"""UpdateCount: how many updates an optimizer really made."""

from __future__ import annotations

import weakref
from typing import Any

from torch.optim import Optimizer


class UpdateCount:
    """Counts the updates of an optimizer through a post-step hook; falls back to counting calls if it never reports.

    A step that AMP skips is no update: an ordinary optimizer is not stepped then, and a fused one, whose hooks fire all
    the same, carries `found_inf`, which is read inside the hook.

    Args:
        optimizer: the optimizer itself, or a wrapper that keeps it in `.optimizer` (Accelerate's).
    """

    def __init__(self, optimizer: Optimizer) -> None:
        inner, wrapped = optimizer, getattr(optimizer, "optimizer", None)
        while isinstance(wrapped, Optimizer):
            inner, wrapped = wrapped, getattr(wrapped, "optimizer", None)
        # A list, because the hook must not keep the scheduler alive, nor be copied with it.
        self._reported = reported = [0]
        self._seen = 0

        def count(stepped: Optimizer, args: Any, kwargs: Any) -> None:
            found_inf = getattr(stepped, "found_inf", None)
            if found_inf is None or not float(found_inf):
                reported[0] += 1

        handle = inner.register_step_post_hook(count)
        weakref.finalize(self, handle.remove)

    def new(self) -> int:
        """Updates since the last call; 1 if the optimizer has never reported any."""
        total = self._reported[0]
        if not total:
            return 1
        new, self._seen = total - self._seen, total
        return new
