"""What can be put back: the weights of a model, and the global random generators."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

State = dict[str, Any]


def weights_of(model: nn.Module) -> State:
    """The state of a model, with the buffers that it does not save."""
    state = model.state_dict()
    unsaved = {name: buffer for name, buffer in model.named_buffers() if name not in state}
    return {"saved": copy.deepcopy(dict(state)), "unsaved": {name: b.detach().clone() for name, b in unsaved.items()}}


@torch.no_grad()
def load_weights(model: nn.Module, state: State) -> None:
    """The inverse of `weights_of`."""
    # Tensors are copied into the model; what else a module keeps, it would take over as it is.
    model.load_state_dict({n: v if isinstance(v, Tensor) else copy.deepcopy(v) for n, v in state["saved"].items()})
    buffers = dict(model.named_buffers())
    for name, buffer in state["unsaved"].items():
        buffers[name].copy_(buffer)


def generators() -> State:
    """The states of the global random generators, as types that `torch.load` reads without executing anything."""
    name, keys, *position = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *position),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def load_generators(state: State) -> None:
    """The inverse of `generators`."""
    random.setstate(state["python"])
    name, keys, *position = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *position))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([generator.cpu() for generator in state["cuda"]])
