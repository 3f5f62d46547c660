"""Several tasks in one network, weighted by uncertainties that are learned along."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from glideslope.tasks.cifar import CIFAR10_MEAN, CIFAR10_STD
from glideslope.tasks.classification import NUM_CLASSES
from glideslope.tasks.models import Standardise, image_cnn
from glideslope.tasks.parts import cut, labelled
from glideslope.tasks.small_image_sets import CIFAR10
from glideslope.trials.task import Batch, Default, Metric, Noise, Splits, Task, seeded_model

CODE_SIZE = 32
FIRST_ANIMAL, LAST_ANIMAL = 2, 7
"""Bird, cat, deer, dog, frog, horse."""


class TwoHeads(nn.Module):
    """One network, a head for the class and one for "an animal", and a log-variance for each task."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            Standardise(CIFAR10_MEAN, CIFAR10_STD),
            nn.AvgPool2d(2),
            *image_cnn(16, (8, 16), CODE_SIZE, colours=3),
            nn.ReLU(),
        )
        self.heads = nn.Linear(CODE_SIZE, NUM_CLASSES + 2)
        self.log_variances = nn.Parameter(torch.zeros(2))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the classes, (batch, 10), and of "an animal", (batch, 2); log-variances, (2,)."""
        outputs = self.heads(self.trunk(images))
        return outputs[:, :NUM_CLASSES], outputs[:, NUM_CLASSES:], self.log_variances


@final
@dataclass(frozen=True)
class CIFAR10Multitask(Task):
    r"""Which of ten things, and is it an animal? On 1,000 images of CIFAR-10, reduced to 16 x 16.

    .. math:: \sum_i e^{-v_i} L_i + v_i / 2

    with a learned log-variance :math:`v_i` for each task's cross-entropy :math:`L_i`. The validation loss has the same
    weights, so it is no constant objective: it can fall without any better verdict.

    Source: Kendall, Gal, Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses", CVPR 2018.
    """

    name: ClassVar[str] = "cifar10-multitask"
    version: ClassVar[int] = 1
    source: ClassVar[str] = "CIFAR-10 (Krizhevsky, 2009)"
    needs: ClassVar[str | None] = CIFAR10.name
    maximum_epochs: ClassVar[int] = 60
    batch_size: ClassVar[int] = 50
    metric: ClassVar[Metric] = Metric("error", unit="%")
    defaults: ClassVar[Mapping[str, Default]] = {
        "sgdm": Default(0.03),
        "adam": Default(0.003),
        "adamw": Default(0.003),
    }

    def splits(self) -> Splits:
        arrays = CIFAR10.arrays()
        return cut(labelled(arrays, "train", 2000), labelled(arrays, "test", 1000), num_train=1000)

    def model(self, seed: int) -> nn.Module:
        return seeded_model(seed, TwoHeads)

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        return self.evaluate(model, batch, noise)["loss"].mean()

    def evaluate(self, model: nn.Module, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """ "loss": weighted as in training; "error" of the ten classes: 0 where right, 100 where wrong."""
        images, labels = batch
        classes, animals, log_variances = model(images)
        is_animal = ((labels >= FIRST_ANIMAL) & (labels <= LAST_ANIMAL)).long()
        losses = torch.stack(
            [
                functional.cross_entropy(classes, labels, reduction="none"),
                functional.cross_entropy(animals, is_animal, reduction="none"),
            ],
            dim=-1,
        )
        weighted = (torch.exp(-log_variances) * losses + log_variances / 2).sum(-1)
        wrong = classes.argmax(-1) != labels
        return {"loss": weighted, "error": 100.0 * wrong.to(weighted.dtype)}
