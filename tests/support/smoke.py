"""A smoke test for a task of any size: one update, one evaluation, and a resume that goes on to the bit."""

from __future__ import annotations

import io
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import SGD

from glideslope.trials.run import one_thread
from glideslope.trials.task import Batch, Noise, Part, Task

RATE = 1e-3
MOMENTUM = 0.9


def smoke(task: Task, examples: int = 4) -> dict[str, float]:
    """Train the task's model for two updates on its own data, and judge it in between.

    The model is of full size and the inputs of full shape; only the batch is small, so one update takes seconds.

    Args:
        task: its data must be where `splits` looks for them.
        examples: of the training and of the validation part, at most as many as an update has.

    Returns:
        "loss_before" and "loss_after": the training loss of the same examples before and after the first update;
        and the metric after it, by its name.

    Raises:
        AssertionError: a number is not finite, the update left the weights as they were, a global generator was used,
            or a model and an optimizer that were saved, loaded and updated are not the ones that were only updated.
    """
    splits = task.splits()
    count = min(examples, task.batch_size)
    train, validation = _first(splits.train, count), _first(splits.validation, count)
    generator = np.random.default_rng(0)
    noise = _tensors(task.noise(generator, count) | task.augmentation(generator, count))
    before_all = _generators()
    with one_thread():
        model, optimizer = _built(task, seed=0)
        untrained = _copied(model.state_dict())
        before = _update(task, model, optimizer, train, noise)
        assert not _equal(untrained, model.state_dict()), f"{task.name}: an update changed nothing"
        metric = _metric(task, model, validation, _tensors(task.noise(generator, len(validation[0]))))
        saved = io.BytesIO()
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, saved)

        after = _update(task, model, optimizer, train, noise)
        gone_on = _copied({"model": model.state_dict(), "optimizer": optimizer.state_dict()})
        del model, optimizer

        saved.seek(0)
        state = torch.load(saved, weights_only=True)
        resumed, its_optimizer = _built(task, seed=1)  # other weights, which loading must replace
        resumed.load_state_dict(state["model"])
        its_optimizer.load_state_dict(state["optimizer"])
        again = _update(task, resumed, its_optimizer, train, noise)
    assert _generators() == before_all, f"{task.name}: something was drawn from a global generator"
    assert again == after, f"{task.name}: the loss after a resume is {again!r}, and without one {after!r}"
    assert _equal(gone_on, {"model": resumed.state_dict(), "optimizer": its_optimizer.state_dict()}), (
        f"{task.name}: saving and loading changed what the next update makes"
    )
    numbers = {"loss_before": before, "loss_after": after, task.metric.name: metric}
    assert np.isfinite(list(numbers.values())).all(), f"{task.name}: not finite: {numbers}"
    return numbers


def _generators() -> tuple[Any, ...]:
    kind, keys, *rest = np.random.get_state()
    return torch.get_rng_state().tolist(), kind, keys.tolist(), *rest, random.getstate()


def _first(part: Part, count: int) -> Batch:
    return tuple(column[:count] for column in part)


def _tensors(draws: dict[str, np.ndarray]) -> Noise:
    return {name: torch.from_numpy(values) for name, values in draws.items()}


def _built(task: Task, seed: int) -> tuple[nn.Module, SGD]:
    model = task.model(seed)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    return model, SGD(trained, lr=RATE, momentum=MOMENTUM)


def _update(task: Task, model: nn.Module, optimizer: SGD, batch: Batch, noise: Noise) -> float:
    """Returns: the loss before it."""
    model.train()
    optimizer.zero_grad()
    loss = task.loss(model, batch, noise)
    assert loss.shape == ()
    loss.backward()
    optimizer.step()
    return loss.item()


@torch.no_grad()
def _metric(task: Task, model: nn.Module, batch: Batch, noise: Noise) -> float:
    model.eval()
    values = task.evaluate(model, batch, noise)
    assert all(len(rows) == len(batch[0]) for rows in values.values()), f"{task.name}: not one row per example"
    assert values["loss"].isfinite().all(), f"{task.name}: the evaluated loss is not finite"
    if task.metric.over_split is not None:
        return task.metric.over_split(values)
    return values[task.metric.name].double().mean().item()


def _copied(state: Any) -> Any:
    """A state with tensors of its own."""
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {name: _copied(value) for name, value in state.items()}
    return [_copied(value) for value in state] if isinstance(state, list) else state


def _equal(left: Any, right: Any) -> bool:
    """To the bit, whatever the nesting."""
    if isinstance(left, Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_equal(left[name], right[name]) for name in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    return bool(left == right)
