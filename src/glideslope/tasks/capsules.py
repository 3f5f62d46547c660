"""Capsules: groups of units whose length says whether something is there, and whose direction says how it looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from glideslope.tasks.classification import NUM_CLASSES
from glideslope.tasks.image_sets import image_splits
from glideslope.tasks.models import mlp
from glideslope.tasks.small_image_sets import FASHION_MNIST
from glideslope.trials.task import Batch, Default, Metric, Noise, Splits, Task, seeded_model

CHANNELS = 256
KINDS, UNITS = 32, 8
"""Kinds of primary capsules, and units of each."""
CLASS_UNITS = 16
ROUTINGS = 3
SIDE = 28
PLACES = 36
"""6 x 6: what two convolutions of 9 x 9, the second one at every other place, leave of 28 x 28."""

PRESENT, ABSENT, WEIGHT_ABSENT = 0.9, 0.1, 0.5
"""Lengths that the loss asks for, and what one of a class that is not there counts."""
WEIGHT_RECONSTRUCTION = 0.0005


def squash(capsules: Tensor) -> Tensor:
    r"""Same direction, length in [0, 1): :math:`\frac{\|s\|^2}{1 + \|s\|^2} \frac{s}{\|s\|}`, along the last axis.

    >>> squash(torch.tensor([3.0, 4.0])).norm()
    tensor(0.9615)
    """
    square = capsules.square().sum(dim=-1, keepdim=True)
    # Not divided by the length: at 0 it has no gradient.
    return capsules * torch.sqrt(square + 1e-12) / (1 + square)


def routed(votes: Tensor, routings: int) -> Tensor:
    """Routing by agreement: each lower capsule turns to the upper ones that its votes agree with.

    Gradients go through every round.

    Args:
        votes: what each lower capsule thinks of each upper one, (batch, lower, upper, units).
        routings: rounds, at least 1; in the first one all upper capsules count the same.

    Returns:
        The upper capsules, (batch, upper, units).
    """
    agreement = torch.zeros_like(votes[..., 0])
    for _ in range(routings - 1):
        agreement = agreement + torch.einsum("blun,bun->blu", votes, _upper(votes, agreement))
    return _upper(votes, agreement)


def _upper(votes: Tensor, agreement: Tensor) -> Tensor:
    return squash(torch.einsum("blu,blun->bun", agreement.softmax(dim=-1), votes))


def margin_loss(lengths: Tensor, labels: Tensor) -> Tensor:
    r"""What lengths lack of 0.9 where the class is there, and have above 0.1 where it is not, squared: (batch,).

    .. math:: L_k = T_k \max(0, 0.9 - \|v_k\|)^2 + 0.5 (1 - T_k) \max(0, \|v_k\| - 0.1)^2

    Args:
        lengths: of the capsules, (batch, classes).
        labels: (batch,), integers.
    """
    there = _one_hot(labels, lengths)
    losses = there * functional.relu(PRESENT - lengths).square()
    losses = losses + WEIGHT_ABSENT * (1 - there) * functional.relu(lengths - ABSENT).square()
    return losses.sum(dim=-1)


def _one_hot(labels: Tensor, like: Tensor) -> Tensor:
    """1 at the label and 0 elsewhere, (batch, classes). PyTorch's own looks at its values, which `vmap` cannot."""
    return (labels[:, None] == torch.arange(like.shape[-1], device=like.device)).to(like.dtype)


@final
class CapsuleNetwork(nn.Module):
    """A convolution, primary capsules, a capsule for each class, and a decoder that draws the image again.

    Of its 8,215,568 parameters the decoder has 1,411,344.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, CHANNELS, 9)
        self.primary = nn.Conv2d(CHANNELS, KINDS * UNITS, 9, stride=2)
        # A matrix for every pair of a primary capsule and a class.
        self.transform = nn.Parameter(0.1 * torch.randn(KINDS * PLACES, NUM_CLASSES, UNITS, CLASS_UNITS))
        self.decoder = mlp((NUM_CLASSES * CLASS_UNITS, 512, 1024, SIDE * SIDE))

    def forward(self, images: Tensor) -> Tensor:
        """Capsules of the classes, (batch, classes, 16), of images (batch, 1, 28, 28)."""
        found = self.primary(functional.relu(self.first(images)))
        primary = squash(found.unflatten(1, (KINDS, UNITS)).flatten(3).transpose(2, 3).flatten(1, 2))
        return routed(torch.einsum("blm,lumn->blun", primary, self.transform), ROUTINGS)

    def decoded(self, capsules: Tensor, labels: Tensor) -> Tensor:
        """Intensities, (batch, 784), of what the capsule of the labels' class says alone; (batch,) integers."""
        kept = capsules * _one_hot(labels, capsules[..., 0])[..., None]
        return torch.sigmoid(cast(Tensor, self.decoder(kept.flatten(1))))


@final
@dataclass(frozen=True)
class FashionCapsules(Task):
    """The capsule network of Sabour et al. (8.2 million parameters) on Fashion-MNIST, three rounds of routing.

    Trained by the margin loss and 0.0005 of the squared error of the image that the decoder draws of the right class;
    judged by the class of the longest capsule. 55,000 images to train on, 5,000 to choose rates by, the published
    10,000 to report on, as they are.

    Source: Sabour, Frosst, Hinton, "Dynamic Routing Between Capsules", NeurIPS 2017, Sections 2 to 4, who shift digits
        by up to 2 pixels; on this data among the settings of Chen, Wolfe, Kyrillidis, "REX: Revisiting Budgeted
        Training with an Improved Schedule", MLSys 2022, Appendix A. Batch, epochs, default rates, initial transforms
        (normal, 0.1), and that gradients go through all rounds, are not given there; these are ours.
    """

    name: ClassVar[str] = "fmnist-capsnet"
    version: ClassVar[int] = 1
    source: ClassVar[str] = "Fashion-MNIST (Xiao, Rasul, Vollgraf, 2017), MIT licence"
    needs: ClassVar[str | None] = FASHION_MNIST.name
    maximum_epochs: ClassVar[int] = 100
    batch_size: ClassVar[int] = 128
    metric: ClassVar[Metric] = Metric("error", unit="%")
    evaluation_batch: ClassVar[int] = 128
    whole_epochs: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Default]] = {
        "sgdm": Default(0.1),
        "adam": Default(0.001),
        "adamw": Default(0.001),
    }

    def splits(self) -> Splits:
        return image_splits(FASHION_MNIST)

    def model(self, seed: int) -> nn.Module:
        return seeded_model(seed, CapsuleNetwork)

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        return self.evaluate(model, batch, noise)["loss"].mean()

    def evaluate(self, model: nn.Module, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """ "loss": margin and reconstruction; "error": 0 where the longest capsule is the right one, else 100."""
        images, labels = batch
        network = cast(CapsuleNetwork, model)
        capsules = network(images)
        lengths = torch.sqrt(capsules.square().sum(dim=-1) + 1e-12)
        missed = (network.decoded(capsules, labels) - images.flatten(1)).square().sum(dim=-1)
        return {
            "loss": margin_loss(lengths, labels) + WEIGHT_RECONSTRUCTION * missed,
            "error": 100.0 * (lengths.argmax(dim=-1) != labels).to(lengths.dtype),
        }
