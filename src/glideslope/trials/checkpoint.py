"""Checkpoint: a long trial half-way, in one file. A cache, never an input: without it the trial starts anew."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from glideslope.core.spec import canonical
from glideslope.core.value import require
from glideslope.torch.scheduler import BudgetScheduler

FORMAT = "1"
EVERY_SECONDS = 60.0
LARGEST_SHARE = 0.05
ENDING = ".safetensors"


class Unusable(Exception):  # noqa: N818 - no error: the trial goes another way
    """There is no going on from this checkpoint, or no making one. The trial does without."""


@dataclass(frozen=True)
class Training:
    """What an update changes. Random numbers come from counters, so they are no part of it.

    Args:
        model: its state lies in parameters and buffers; none in attributes of other kinds.
        optimizer: its state is what `state_dict` has.
        scheduler: knows the position.
    """

    model: nn.Module
    optimizer: Optimizer
    scheduler: BudgetScheduler


@dataclass(frozen=True)
class Checkpoints:
    """Where checkpoints lie, and when one is due.

    A trial writes one when it has worked for `every_seconds` since it began, or since it wrote the last one; less often
    if writing takes long, so that it never costs more than `largest_share` of the time.

    Args:
        folder: created when the first one is written.
        every_seconds: >= 0.
        largest_share: > 0.
    """

    folder: Path
    every_seconds: float = EVERY_SECONDS
    largest_share: float = LARGEST_SHARE

    def __post_init__(self) -> None:
        require(self.every_seconds >= 0, "every_seconds", self.every_seconds, "every_seconds >= 0")
        require(self.largest_share > 0, "largest_share", self.largest_share, "largest_share > 0")

    def to_json(self) -> dict[str, Any]:
        """For a process of the same machine."""
        return {**asdict(self), "folder": str(self.folder.resolve())}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Checkpoints:
        """The inverse of `to_json`."""
        return cls(**{**data, "folder": Path(data["folder"])})

    def pause(self, writing_seconds: float) -> float:
        """Seconds from the end of one writing to the next, by how long the one took."""
        return max(self.every_seconds, writing_seconds / self.largest_share)

    def path(self, trial_id: str) -> Path:
        return self.folder / f"{trial_id}{ENDING}"

    def trial_ids(self) -> list[str]:
        """The trials that have one."""
        return sorted(path.name.removesuffix(ENDING) for path in self.folder.glob(f"*{ENDING}"))

    def remove(self, trial_id: str) -> None:
        """Remove a trial's checkpoint, if there is one, and what was left when a writer was killed."""
        for path in self.folder.glob(f"{trial_id}.*"):
            path.unlink(missing_ok=True)

    def save(self, trial_id: str, training: Training, progress: Mapping[str, Any], made_by: Mapping[str, str]) -> None:
        """Write a checkpoint in place of the last one; whoever reads sees the one or the other, whole.

        Args:
            trial_id: of the trial.
            training: as it stands between two updates.
            progress: what has been recorded so far, as JSON.
            made_by: versions of what computes; others do not go on from it.

        Raises:
            Unusable: the state has parts that this format has no place for.
            OSError: it cannot be written.
        """
        if any(name.endswith("_extra_state") for name in training.model.state_dict()):
            raise Unusable(f"{type(training.model).__name__} keeps state outside of parameters and buffers")
        tensors: dict[str, Tensor] = {}
        state = {**_exact_state(training), "scheduler": training.scheduler.state_dict()}
        content = canonical({"state": _pack(state, tensors), "progress": progress})
        labels = {"format": FORMAT, "trial_id": trial_id, "made_by": canonical(dict(made_by)), "content": content}
        labels["sha256"] = _digest(labels, tensors)
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f"{trial_id}.{os.getpid()}.partial"
        try:
            save_file(tensors, partial, labels)
            _to_disk(partial)
            os.replace(partial, self.path(trial_id))
            _to_disk(self.folder)
        finally:
            partial.unlink(missing_ok=True)

    def load(self, trial_id: str, made_by: Mapping[str, str]) -> Checkpoint:
        """Read a trial's checkpoint, every byte of it checked.

        Raises:
            Unusable: there is none, or it is damaged, or something else wrote it.
        """
        try:
            with safe_open(self.path(trial_id), "pt") as file:
                labels = dict(file.metadata() or {})
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        except (OSError, SafetensorError) as error:
            raise Unusable(f"it cannot be read: {error}") from error
        digest = labels.pop("sha256", "")
        expected = {"format": FORMAT, "trial_id": trial_id, "made_by": canonical(dict(made_by))}
        for name, value in expected.items():
            if labels.get(name) != value:
                raise Unusable(f"its {name} is {labels.get(name)}, not {value}")
        if digest != _digest(labels, tensors):
            raise Unusable("its sum does not match: it is damaged")
        content = json.loads(labels["content"])
        return Checkpoint(_unpack(content["state"], tensors), content["progress"])


@dataclass(frozen=True)
class Checkpoint:
    """A trial half-way.

    Args:
        state: of model, optimizer and scheduler.
        progress: what had been recorded, as JSON.
    """

    state: Mapping[str, Any]
    progress: Mapping[str, Any]

    def restore(self, training: Training) -> None:
        """Put a training that has just been built where this one stood, bit for bit.

        Raises:
            Unusable: it does not fit. The training is spoilt then.
        """
        fresh = _weights(training.model)
        saved = self.state["model"]
        if _forms(fresh) != _forms(saved):
            raise Unusable("its weights are not those of the model")
        with torch.no_grad():
            for name, tensor in fresh.items():
                tensor.copy_(saved[name])
        try:
            training.optimizer.load_state_dict(self.state["optimizer"])
            training.scheduler.load_state_dict(self.state["scheduler"])
        except Exception as error:  # of any kind: the class may be anybody's
            raise Unusable(f"its state does not fit: {error}") from error
        # PyTorch casts an optimizer's state to the type of the weights; what cannot come back exactly is not used.
        if not _equal(_exact_state(training), {name: self.state[name] for name in ("model", "optimizer")}):
            raise Unusable(f"{type(training.optimizer).__name__} does not take its own state back exactly")


def _exact_state(training: Training) -> dict[str, Any]:
    return {"model": _weights(training.model), "optimizer": training.optimizer.state_dict()}


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, those included that a module does not save; what is shared once."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _forms(tensors: Mapping[str, Tensor]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """A value as JSON: tensors are put aside under a number, and what JSON does not know is marked."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().clone(memory_format=torch.contiguous_format)
        return {"tensor": name, "stride": list(value.stride())}
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, list):
        return [_pack(item, tensors) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [_pack(item, tensors) for item in value]}
    if isinstance(value, Mapping):
        return {"map": [[_pack(key, tensors), _pack(item, tensors)] for key, item in value.items()]}
    raise Unusable(f"the state holds a {type(value).__name__}, which a checkpoint has no place for")


def _unpack(data: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(data, list):
        return [_unpack(item, tensors) for item in data]
    if not isinstance(data, dict):
        return data
    if "tensor" in data:
        return _strided(tensors[data["tensor"]], data["stride"])
    if "float" in data:
        return float(data["float"])
    if "tuple" in data:
        return tuple(_unpack(item, tensors) for item in data["tuple"])
    return {_unpack(key, tensors): _unpack(item, tensors) for key, item in data["map"]}


def _strided(tensor: Tensor, stride: list[int]) -> Tensor:
    """In the order of memory that it had (channels last, say): sums depend on it. Views with gaps become dense."""
    extent = 1 + sum((size - 1) * step for size, step in zip(tensor.shape, stride, strict=True))
    if list(tensor.stride()) == stride or tensor.numel() != extent:
        return tensor
    return torch.empty_strided(tensor.shape, stride, dtype=tensor.dtype).copy_(tensor)


def _equal(left: Any, right: Any) -> bool:
    """Bit for bit, in types, values and order."""
    mine: dict[str, Tensor] = {}
    theirs: dict[str, Tensor] = {}
    if canonical(_pack(left, mine)) != canonical(_pack(right, theirs)):
        return False
    return _digest({}, mine) == _digest({}, theirs)


def _digest(labels: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(canonical(dict(labels)).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _to_disk(path: Path) -> None:
    """Make sure that a file, or a folder's list of files, is written and not only noted to be."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
