"""Classification: cross-entropy to train on, error to be judged by, label noise that makes schedules separate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from glideslope.tasks.cache import Arrays
from glideslope.trials.task import Batch, Labelled, Metric, Noise, Splits

NUM_CLASSES = 10
"""Of digits in all forms, of Fashion-MNIST and of CIFAR-10."""
LABEL_NOISE_SEED = 0
"""Which labels are wrong belongs to the task, not to the trial: all seeds train on the same ones."""


class Classification(Labelled):
    """Inputs and integer labels; the model's output are logits. Final classes give `splits` and `model`."""

    metric: ClassVar[Metric] = Metric("error", unit="%")

    @final
    def evaluate(self, model: nn.Module, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """ "loss": cross-entropy in nats; "error": 0 where the most likely class is right, 100 where it is wrong."""
        inputs, labels = batch
        logits = model(inputs)
        wrong = logits.argmax(dim=-1) != labels
        return {
            "loss": functional.cross_entropy(logits, labels, reduction="none"),
            "error": 100.0 * wrong.to(logits.dtype),
        }


@dataclass(frozen=True)
class NoisyClassification(Classification):
    """Classification of embedded data, with wrong labels in training, and in training only.

    On clean labels of an easy set every schedule ends at the same error. Wrong labels pull on every update, so a rate
    that stays high keeps the weights in motion, and one that falls lets them settle on what the labels have in common:
    how it falls becomes visible.

    Args:
        label_noise: share of training labels replaced by another class, 0 <= label_noise < 1.
    """

    label_noise: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.label_noise < 1:
            raise ValueError(f"`label_noise` is {self.label_noise}, but must satisfy 0 <= label_noise < 1.")
        # 0 and 0.0 are one task, and must be one text in a trial's identity.
        object.__setattr__(self, "label_noise", float(self.label_noise))

    def shaped(self, inputs: Tensor) -> Tensor:
        """Inputs (num_examples, features), in the shape the model takes."""
        return inputs

    @final
    def cut(self, arrays: Arrays, num_train: int, num_validation: int) -> Splits:
        """The first `num_train` of "inputs" and "labels" to train on, then validation; the rest is the test."""
        inputs, labels = self.shaped(torch.from_numpy(arrays["inputs"])), torch.from_numpy(arrays["labels"])
        noisy = torch.from_numpy(with_label_noise(arrays["labels"][:num_train], self.label_noise, LABEL_NOISE_SEED))
        test = num_train + num_validation
        return Splits(
            train=(inputs[:num_train], noisy),
            validation=(inputs[num_train:test], labels[num_train:test]),
            test=(inputs[test:], labels[test:]),
        )


def with_label_noise(labels: NDArray[np.int64], share: float, seed: int) -> NDArray[np.int64]:
    """A copy of `labels` in which each one is, with probability `share`, replaced by another class, all equally likely.

    Args:
        labels: (num_examples,), integers in [0, NUM_CLASSES).
        share: 0 <= share < 1.
        seed: of the draws; the examples hit at one share are hit, with the same wrong class, at every larger share.
    """
    generator = np.random.default_rng(seed)
    hit = generator.random(len(labels)) < share
    shift = generator.integers(1, NUM_CLASSES, len(labels))
    return np.where(hit, (labels + shift) % NUM_CLASSES, labels)
