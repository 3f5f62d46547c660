"""Optimizers as named values: "sgdm", "adam", "sgdm(momentum=0.95)", or any class by its import path."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from glideslope.core.spec import canonical, parse_call
from glideslope.core.value import unknown
from glideslope.torch.sgdw import SGDW

_NAMED: Mapping[str, tuple[Callable[..., Optimizer], Mapping[str, Any]]] = {
    # fused: one kernel for all parameters, 10 to 25 % of an update saved on small models.
    "sgdm": (torch.optim.SGD, {"momentum": 0.9, "fused": True}),
    "adam": (torch.optim.Adam, {"fused": True}),
    "adamw": (torch.optim.AdamW, {"fused": True}),
    "amsgrad": (torch.optim.Adam, {"amsgrad": True, "fused": True}),
    "rmsprop": (torch.optim.RMSprop, {}),
    "sgdw": (SGDW, {}),
}
FALLBACK_RATE = 1e-3


@dataclass(frozen=True)
class OptimizerSpec:
    """Which optimizer, with which settings.

    Args:
        name: "sgdm" (SGD with momentum 0.9), "adam", "adamw", "amsgrad", "rmsprop", "sgdw", or "package.module:Class" for
            any class with a `torch.optim` constructor.
        settings: canonical JSON of the arguments that differ from the defaults; `parse` writes it.

    >>> OptimizerSpec.parse("sgdm(momentum=0.95)")
    OptimizerSpec(name='sgdm', settings='{"momentum":0.95}')
    """

    name: str
    settings: str = "{}"

    @classmethod
    def parse(cls, text: str) -> OptimizerSpec:
        """From a text such as "adamw(weight_decay=0.05)" or "schedulefree:SGDScheduleFree"."""
        name, arguments = parse_call(text)
        spec = cls(name, canonical(arguments))
        accepted = inspect.signature(spec._maker()[0]).parameters
        for argument in arguments:
            if argument not in accepted and not any(p.kind == p.VAR_KEYWORD for p in accepted.values()):
                raise unknown(f"argument of {name}", argument, [key for key in accepted if key not in ("params", "lr")])
        return spec

    def __str__(self) -> str:
        arguments = ", ".join(f"{key}={value}" for key, value in json.loads(self.settings).items())
        return f"{self.name}({arguments})" if arguments else self.name

    def _maker(self) -> tuple[Callable[..., Optimizer], Mapping[str, Any]]:
        if self.name in _NAMED:
            return _NAMED[self.name]
        module_name, colon, attribute = self.name.partition(":")
        if not colon:
            raise unknown("optimizer", self.name, [*_NAMED, "package.module:Class"])
        try:
            return getattr(importlib.import_module(module_name), attribute), {}
        except (ImportError, AttributeError) as error:
            raise ValueError(f"optimizer {self.name!r} cannot be imported: {error}.") from error

    @property
    def rate(self) -> float:
        """A starting point for tuning where the task names none: the class's own default."""
        parameter = inspect.signature(self._maker()[0]).parameters.get("lr")
        default = parameter.default if parameter else None
        return float(default) if isinstance(default, (int, float)) else FALLBACK_RATE

    def build(self, parameters: Iterable[nn.Parameter], rate: float) -> Optimizer:
        """The optimizer itself."""
        make, defaults = self._maker()
        return make(parameters, lr=rate, **{**defaults, **json.loads(self.settings)})
