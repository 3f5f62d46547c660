"""The contract of `Task`, for every task of the house. Data-folder tasks run on tiny files in the real formats."""

import gzip
import importlib
import inspect
import os
import pkgutil
import random
import tomllib
from dataclasses import is_dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap

import glideslope.tasks
from glideslope.tasks.language import CHARACTERS
from glideslope.trials.task import Task

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
NUM_EXAMPLES = 12


def all_tasks() -> list[Task]:
    found = {}
    for module_info in pkgutil.walk_packages(glideslope.tasks.__path__, "glideslope.tasks."):
        module = importlib.import_module(module_info.name)
        for _, value in inspect.getmembers(module, inspect.isclass):
            if issubclass(value, Task) and not inspect.isabstract(value) and "name" in vars(value):
                found[value.name] = value()
    return [found[name] for name in sorted(found)]


TASKS = all_tasks()
BY_NAME = {task.name: task for task in TASKS}
DEFAULT_TASKS = ("digits-autoencoder", "mnist1d-mlp")
SETTINGS = [task for task in TASKS if task.whole_epochs and task.name not in ("cifar10-resnet20", "mnist-vae")]
"""The papers' own: their models are too large for laws that build them often, and some of their splits are read on
demand. `smoke` tries them at full size instead, and looks at generators and resumes as these laws do."""
SMALL = [task for task in TASKS if task not in SETTINGS]
# Recurrent layers cannot be batched by vmap, batch normalisation updates its statistics in place, and adversarial
# training asks autograd for a gradient of its own.
BATCHABLE = [task for task in SMALL if not task.name.endswith(("-gru", "-lstm", "-resnet20", "-adversarial"))]
OF_TOKENS = ("shakespeare", "cola", "sst2", "mrpc", "movie")
"""Inputs are positions in a vocabulary."""
OF_NUMBERS = ("diabetes-mlp", "mnist-unet")
"""Targets are no classes."""
TRAINED_OTHERWISE = {
    "cifar10-resnet20": "trains on cropped images and batch statistics, and is evaluated without",
    "mnist-adversarial": "trains on images that are moved, and is evaluated without",
    "cola-gru": "trains on the mean over characters, and is evaluated on that over sentences",
    "movie-gru": "trains on the mean over words, and is evaluated on that over sentences",
}

every_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
every_small_task = pytest.mark.parametrize("task", SMALL, ids=lambda task: task.name)


@pytest.fixture(scope="module", autouse=True)
def data_folder(tmp_path_factory):
    """Tiny files of random contents in the real formats, and a cache that the user's own one does not see."""
    folder = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    sizes = {"train": 60, "test": 20}
    labels = {f"{split}_labels": generator.integers(0, 10, n, dtype=np.uint8) for split, n in sizes.items()}
    for name in ("mnist.npz", "fashion_mnist.npz"):
        images = {
            f"{split}_images": generator.integers(0, 256, (n, 28, 28), dtype=np.uint8) for split, n in sizes.items()
        }
        np.savez(folder / name, **images, **labels)
    deltas = {
        f"{split}_delta": generator.integers(0, 256, (3, n, 32, 32), dtype=np.uint8) for split, n in sizes.items()
    }
    np.savez(folder / "cifar10.npz", **deltas, **labels, test_index=np.arange(sizes["test"], dtype=np.uint16))
    with gzip.open(folder / "tinyshakespeare.txt.gz", "wt", encoding="utf-8", newline="") as file:
        file.write("".join(generator.choice(list(CHARACTERS), 64 * 400)))
    words = [f"word{index}" for index in range(40)]

    def sentence() -> str:
        return " ".join(generator.choice(words, generator.integers(4, 9)))

    def table(name: str, columns: str, *splits: str) -> None:
        with gzip.open(folder / name, "wt", encoding="utf-8", newline="") as file:
            file.write(columns + "\n")
            for split in splits:
                for row in range(120):
                    cells = {"split": split, "label": str(row % 2)}
                    file.write("\t".join(cells.get(name) or sentence() for name in columns.split("\t")) + "\n")

    table("glue_sst2.tsv.gz", "split\tlabel\tsentence", "train", "dev")
    table("glue_cola.tsv.gz", "split\tlabel\tsentence", "train", "dev")
    table("glue_mrpc.tsv.gz", "split\tlabel\tsentence1\tsentence2", "train", "dev", "test")
    with gzip.open(folder / "mit_movie_trivia10k13.train.bio.gz", "wt", encoding="utf-8") as file:
        for _ in range(160):
            file.write("".join(f"{generator.choice(['O', 'B-Actor', 'I-Actor'])}\t{w}\n" for w in sentence().split()))
            file.write("\n")
    drawings = {
        f"small{part}_{name}": values
        for part in (1, 2)
        for name, values in {
            "bits": generator.integers(0, 256, (400, 1379), dtype=np.uint8),
            "labels": np.arange(400) // 20,
        }.items()
    }
    np.savez(folder / "omniglot_small.npz", **drawings)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("GLIDESLOPE_DATA", str(folder))
        # MNIST-1D takes seconds to make: where a cache is already set for the tests, use that one.
        if "GLIDESLOPE_CACHE" not in os.environ:
            base = tmp_path_factory.getbasetemp()
            shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
            patched.setenv("GLIDESLOPE_CACHE", str(shared / "glideslope-cache"))
        yield


class TrainingLoss(nn.Module):
    """A task's loss as a module, so that `functional_call` can run it with any parameters."""

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self.task = task
        self.model = model

    def forward(self, batch, noise):
        return self.task.loss(self.model, batch, noise)


def first(batch, count=NUM_EXAMPLES):
    return tuple(tensor[:count] for tensor in batch)


def draws(task, batch_size, seed=0):
    """What a trial would pass in for one batch: noise, and the batch's rows of an epoch's augmentation."""
    generator = np.random.default_rng(seed)
    drawn = task.noise(generator, batch_size) | task.augmentation(generator, batch_size)
    return {name: torch.from_numpy(values) for name, values in drawn.items()}


def global_generators():
    kind, keys, *rest = np.random.get_state()
    return torch.get_rng_state().tolist(), (kind, keys.tolist(), *rest), random.getstate()


def rows(batch):
    """Each example's inputs as bytes."""
    return {row.numpy().tobytes() for row in batch[0]}


@every_task
def test_is_a_frozen_dataclass_that_says_all_about_itself(task):
    assert is_dataclass(task)
    assert hash(task) == hash(type(task)())
    assert "TODO" not in inspect.getdoc(type(task))
    assert task.version >= 1
    assert task.source
    assert task.maximum_epochs >= 1
    assert {"sgdm", "adam", "adamw"} <= set(task.defaults)
    assert all(default.rate > 0 for default in task.defaults.values())


def test_every_task_is_registered_under_its_name():
    registered = tomllib.loads(PYPROJECT.read_text())["project"]["entry-points"]["glideslope.tasks"]
    assert registered == {task.name: f"{type(task).__module__}:{type(task).__qualname__}" for task in TASKS}


@pytest.mark.parametrize("task", SETTINGS, ids=lambda task: task.name)
def test_every_setting_of_the_papers_has_a_smoke_test(task):
    tests = [path.read_text(encoding="utf-8") for path in (PYPROJECT.parent / "tests" / "tasks").glob("test_*.py")]
    assert any("smoke(" in text and type(task).__name__ in text for text in tests)


@pytest.mark.parametrize("name", DEFAULT_TASKS)
def test_default_tasks_are_small(name):
    task = BY_NAME[name]
    assert sum(parameter.numel() for parameter in task.model(0).parameters()) <= 3000
    updates = task.maximum_epochs * (len(task.splits().train[0]) // task.batch_size)
    assert updates == pytest.approx(2000, rel=0.01)


@every_small_task
def test_splits_are_a_pure_function_and_touch_no_global_generator(task):
    before = global_generators()
    once, again = task.splits(), type(task)().splits()
    assert global_generators() == before
    for split in ("train", "validation", "test"):
        for left, right in zip(getattr(once, split), getattr(again, split), strict=True):
            assert torch.equal(left, right)


@every_small_task
def test_splits_share_no_example(task):
    splits = task.splits()
    parts = [rows(splits.train), rows(splits.validation), rows(splits.test)]
    assert all(parts)
    assert len(set.union(*parts)) == sum(map(len, parts))


@every_small_task
def test_splits_hold_what_a_model_takes(task):
    for batch in vars(task.splits()).values():
        assert len({len(tensor) for tensor in batch}) == 1
        assert batch[0].dtype == (torch.int64 if task.name.startswith(OF_TOKENS) else torch.float32)
        target = torch.float32 if task.name in OF_NUMBERS else torch.int64
        assert all(tensor.dtype == target for tensor in batch[1:])
        assert all(tensor.device.type == "cpu" for tensor in batch)


@every_small_task
def test_model_is_a_pure_function_of_its_seed_and_touches_no_global_generator(task):
    before = global_generators()
    once, again, other = task.model(3).state_dict(), task.model(3).state_dict(), task.model(4).state_dict()
    assert global_generators() == before
    assert all(torch.equal(once[name], again[name]) for name in once)
    assert any(not torch.equal(once[name], other[name]) for name in once)


@every_small_task
def test_loss_draws_nothing_and_reaches_every_parameter(task):
    model, batch = task.model(0), first(task.splits().train)
    noise = draws(task, NUM_EXAMPLES)
    before = global_generators()
    once = task.loss(model, batch, noise)
    again = task.loss(model, batch, noise)
    assert global_generators() == before
    assert once.shape == ()
    assert torch.equal(once, again)
    once.backward()
    assert all(
        parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any()
        for parameter in model.parameters()
    )


@every_small_task
def test_evaluation_gives_one_value_per_example_whatever_the_chunks(task):
    model = task.model(0).eval()
    batch, noise = first(task.splits().test), draws(task, NUM_EXAMPLES)
    before = global_generators()
    with torch.no_grad():
        whole = task.evaluate(model, batch, noise)
        chunks = [
            task.evaluate(
                model,
                tuple(tensor[start : start + 5] for tensor in batch),
                {name: values[start : start + 5] for name, values in noise.items()},
            )
            for start in range(0, NUM_EXAMPLES, 5)
        ]
    assert global_generators() == before
    assert {"loss", task.metric.name} <= set(whole)
    for name, values in whole.items():
        assert values.shape == (NUM_EXAMPLES,)
        # Not equal to the bit: matrix products of another size may add in another order.
        torch.testing.assert_close(torch.cat([chunk[name] for chunk in chunks]), values, rtol=1e-5, atol=1e-5)


@every_small_task
def test_training_loss_is_the_mean_of_the_evaluated_losses(task):
    if task.name in TRAINED_OTHERWISE:
        pytest.skip(TRAINED_OTHERWISE[task.name])
    model, batch, noise = task.model(0), first(task.splits().train), draws(task, NUM_EXAMPLES)
    torch.testing.assert_close(task.loss(model, batch, noise), task.evaluate(model, batch, noise)["loss"].mean())


@every_small_task
def test_draws_have_one_row_per_example_and_come_from_the_generator(task):
    assert {name: len(values) for name, values in draws(task, 7).items()} == dict.fromkeys(draws(task, 7), 7)
    once, again, other = draws(task, 7, seed=1), draws(task, 7, seed=1), draws(task, 7, seed=2)
    assert all(torch.equal(once[name], again[name]) for name in once)
    assert all(not torch.equal(once[name], other[name]) for name in once)


@pytest.mark.parametrize("task", BATCHABLE, ids=lambda task: task.name)
def test_a_population_under_vmap_equals_its_members_alone(task):
    """Losses and gradients of three members, each with a batch and draws of its own."""
    members = [TrainingLoss(task, task.model(seed)) for seed in range(3)]
    train = task.splits().train
    batches = [tuple(tensor[5 * i : 5 * i + 5] for tensor in train) for i in range(3)]
    noises = [draws(task, 5, seed) for seed in range(3)]
    parameters, buffers = stack_module_state(members)
    shell = TrainingLoss(task, task.model(0)).to("meta")

    def loss(parameters, buffers, batch, noise):
        return functional_call(shell, (parameters, buffers), (batch, noise))

    stacked_batch = tuple(map(torch.stack, zip(*batches, strict=True)))
    stacked_noise = {name: torch.stack([noise[name] for noise in noises]) for name in noises[0]}
    losses = vmap(loss)(parameters, buffers, stacked_batch, stacked_noise)
    gradients = vmap(grad(loss))(parameters, buffers, stacked_batch, stacked_noise)
    for index, (member, batch, noise) in enumerate(zip(members, batches, noises, strict=True)):
        alone = member(batch, noise)
        alone.backward()
        # Batched products may add in another order, so equal up to float32 rounding and no further.
        torch.testing.assert_close(losses[index], alone)
        for name, parameter in member.named_parameters():
            torch.testing.assert_close(gradients[name][index], parameter.grad, rtol=1e-4, atol=1e-5)


@every_small_task
def test_a_few_updates_bring_the_loss_down(task):
    """At the default rate of Adam, on one batch: catches a model that cannot learn, and a default of the wrong size."""
    model, batch = task.model(0), first(task.splits().train)
    noise = draws(task, NUM_EXAMPLES)
    optimizer = torch.optim.Adam(model.parameters(), lr=task.defaults["adam"].rate)
    losses = []
    for _ in range(20):
        loss = task.loss(model, batch, noise)
        losses.append(loss.detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0]
