"""Score matching: a network that knows which way an image with noise on it becomes more likely, at ten noise levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from glideslope.tasks.image_sets import image_splits
from glideslope.tasks.small_image_sets import CIFAR10
from glideslope.trials.task import Batch, Default, Metric, Noise, Part, Splits, Task, seeded_model

NUM_LEVELS = 10
LARGEST, SMALLEST = 1.0, 0.01
"""Standard deviations of the noise at the first level and at the last, for intensities in [0, 1]."""
CHANNELS = 128
SHAPE = (3, 32, 32)


def deviations() -> Tensor:
    """Standard deviation of the noise at each level, (10,): a geometric sequence.

    >>> [round(value, 3) for value in deviations().tolist()]
    [1.0, 0.599, 0.359, 0.215, 0.129, 0.077, 0.046, 0.028, 0.017, 0.01]
    """
    return torch.from_numpy(np.geomspace(LARGEST, SMALLEST, NUM_LEVELS, dtype=np.float32))


def score_matching_losses(scores: Tensor, epsilon: Tensor, deviation: Tensor) -> Tensor:
    r"""Denoising score matching, weighed by the square of the level: :math:`\frac12 \|\sigma s + \epsilon\|^2`.

    The score of :math:`x + \sigma \epsilon` given :math:`x` is :math:`-\epsilon / \sigma`.

    Args:
        scores, epsilon: (batch, …).
        deviation: (batch,).

    Returns:
        (batch,), summed over the pixels.
    """
    return 0.5 * (deviation[:, None] * scores.flatten(1) + epsilon.flatten(1)).square().sum(dim=-1)


@final
class LevelNorm(nn.Module):
    """Conditional instance normalisation++: each level has scales and shifts of its own, and means of channels return.

    A channel's mean, which instance normalisation takes away, is standardised over the channels and added again.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(1 + 0.02 * torch.randn(NUM_LEVELS, channels))
        self.mean_scale = nn.Parameter(1 + 0.02 * torch.randn(NUM_LEVELS, channels))
        self.shift = nn.Parameter(torch.zeros(NUM_LEVELS, channels))

    def forward(self, values: Tensor, level: Tensor) -> Tensor:
        """Values, (batch, channels, height, width), at levels, (batch,): the same shape."""
        means = values.mean(dim=(2, 3))
        centred = means - means.mean(dim=1, keepdim=True)
        means = centred / torch.sqrt(means.var(dim=1, keepdim=True) + 1e-5)
        shifted = functional.instance_norm(values) + (means * self.mean_scale[level])[..., None, None]
        return self.scale[level][..., None, None] * shifted + self.shift[level][..., None, None]


def _three(inputs: int, outputs: int, dilation: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation, bias=bias)


@final
class ResidualBlock(nn.Module):
    """Two convolutions, each behind normalisation and ELU, beside a way past them.

    Args:
        inputs, outputs: channels. An opening block changes their number in its second convolution.
        dilation: of the convolutions.
        opens: whether it is the first one of a stage: then the way past is a convolution, and without dilation height
            and width are halved.
    """

    def __init__(self, inputs: int, outputs: int, dilation: int, opens: bool) -> None:
        super().__init__()
        middle = inputs if opens else outputs
        self.norms = nn.ModuleList([LevelNorm(inputs), LevelNorm(middle)])
        self.convs = nn.ModuleList([_three(inputs, middle, dilation), _three(middle, outputs, dilation)])
        self.halves = opens and dilation == 1
        past: nn.Module = nn.Identity()
        if opens:
            past = nn.Conv2d(inputs, outputs, 1) if self.halves else _three(inputs, outputs, dilation)
        self.past = past

    def forward(self, values: Tensor, level: Tensor) -> Tensor:
        found = values
        for norm, conv in zip(self.norms, self.convs, strict=True):
            found = conv(functional.elu(norm(found, level)))
        found = found + self.past(values)
        return functional.avg_pool2d(found, 2) if self.halves else found


@final
class ConvolutionUnits(nn.Module):
    """Residual units of two convolutions each, in a row."""

    def __init__(self, channels: int, num_units: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(LevelNorm(channels) for _ in range(2 * num_units))
        self.convs = nn.ModuleList(_three(channels, channels, bias=False) for _ in range(2 * num_units))

    def forward(self, values: Tensor, level: Tensor) -> Tensor:
        found = values
        for index, (norm, conv) in enumerate(zip(self.norms, self.convs, strict=True)):
            found = conv(functional.elu(norm(found, level)))
            if index % 2:
                values = found = found + values
        return found


@final
class ChainedPooling(nn.Module):
    """Two rounds of mean pooling over 5 x 5 and a convolution, each added to what came before."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(LevelNorm(channels) for _ in range(2))
        self.convs = nn.ModuleList(_three(channels, channels, bias=False) for _ in range(2))

    def forward(self, values: Tensor, level: Tensor) -> Tensor:
        found = path = functional.elu(values)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            path = conv(functional.avg_pool2d(norm(path, level), 5, stride=1, padding=2))
            found = found + path
        return found


@final
class RefineBlock(nn.Module):
    """Joins a stage's features with the refined ones of the stage below, at the finer resolution.

    Args:
        inputs: channels of the stage, and of what comes from below if there is anything.
        outputs: channels.
        num_last: convolution units at the end.
    """

    def __init__(self, inputs: Sequence[int], outputs: int, num_last: int) -> None:
        super().__init__()
        self.adapt = nn.ModuleList(ConvolutionUnits(channels, 2) for channels in inputs)
        # With nothing to join there is nothing to make alike.
        joined = inputs if len(inputs) > 1 else ()
        self.norms = nn.ModuleList(LevelNorm(channels) for channels in joined)
        self.convs = nn.ModuleList(_three(channels, outputs) for channels in joined)
        self.pool = ChainedPooling(outputs)
        self.last = ConvolutionUnits(outputs, num_last)

    def forward(self, inputs: Sequence[Tensor], level: Tensor) -> Tensor:
        found = [adapt(values, level) for adapt, values in zip(self.adapt, inputs, strict=True)]
        for index, (norm, conv) in enumerate(zip(self.norms, self.convs, strict=True)):
            alike = conv(norm(found[index], level))
            found[index] = functional.interpolate(alike, size=inputs[0].shape[2:], mode="bilinear", align_corners=True)
        return cast(Tensor, self.last(self.pool(sum(found[1:], start=found[0]), level), level))


@final
class NoiseConditionalScoreNetwork(nn.Module):
    """RefineNet with four stages of two residual blocks; the level of noise is told to every normalisation."""

    def __init__(self, channels: int = CHANNELS) -> None:
        super().__init__()
        wide = 2 * channels
        self.begin = _three(SHAPE[0], channels)
        stages = (
            (channels, channels, 1, False),
            (channels, wide, 1, True),
            (wide, wide, 2, True),
            (wide, wide, 4, True),
        )
        self.stages = nn.ModuleList(
            nn.ModuleList(
                [ResidualBlock(inputs, outputs, dilation, opens), ResidualBlock(outputs, outputs, dilation, False)]
            )
            for inputs, outputs, dilation, opens in stages
        )
        self.refine = nn.ModuleList(
            [
                RefineBlock((wide,), wide, 1),
                RefineBlock((wide, wide), wide, 1),
                RefineBlock((wide, wide), channels, 1),
                RefineBlock((channels, channels), channels, 3),
            ]
        )
        self.norm = LevelNorm(channels)
        self.end = _three(channels, SHAPE[0])

    def forward(self, images: Tensor, level: Tensor) -> Tensor:
        """Scores, the gradients of the log density, (batch, 3, 32, 32), of images about [0, 1] at levels (batch,)."""
        values = self.begin(2 * images - 1)
        features: list[Tensor] = []
        for stage in self.stages:
            for block in cast(nn.ModuleList, stage):
                values = block(values, level)
            features.append(values)
        refined: list[Tensor] = []
        for refine, found in zip(self.refine, reversed(features), strict=True):
            refined = [refine([found, *refined], level)]
        return cast(Tensor, self.end(functional.elu(self.norm(refined[0], level))))


@final
@dataclass(frozen=True)
class CIFAR10ScoreNetwork(Task):
    """The noise conditional score network of Song and Ermon (30.1 million parameters) on CIFAR-10.

    Denoising score matching over ten levels of noise, from 1 down to 0.01; an example has one level and one draw, and
    is mirrored half of the time in training. The metric is that loss on images not trained on, each under one fixed
    draw, summed over an image's numbers. The paper judges samples by Inception score and FID, which want a network that
    is not part of this library. 45,000 images to train on, 5,000 to choose rates by, the published test set to report
    on, so the paper's 200,000 updates of 128 images are 570 epochs here.

    Source: Song and Ermon, "Generative Modeling by Estimating Gradients of the Data Distribution", NeurIPS 2019,
        Sections 4.2 and 5 and Appendix A; sizes of the network that are not given there, and mirroring, as in the
        authors' code, which has Adam at 0.001. The code also blurs the steps between intensities by noise of 1/256,
        which is left out here. Rates of the other optimizers are ours.
    """

    name: ClassVar[str] = "cifar10-ncsn"
    version: ClassVar[int] = 1
    source: ClassVar[str] = "CIFAR-10 (Krizhevsky, 2009)"
    needs: ClassVar[str | None] = CIFAR10.name
    maximum_epochs: ClassVar[int] = 570
    batch_size: ClassVar[int] = 128
    metric: ClassVar[Metric] = Metric("loss")
    evaluation_batch: ClassVar[int] = 128
    whole_epochs: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Default]] = {
        "sgdm": Default(1e-5),
        "adam": Default(0.001),
        "adamw": Default(0.001),
    }

    def splits(self) -> Splits:
        whole = image_splits(CIFAR10)

        def images(part: Part) -> Part:
            return part[:1]

        return Splits(images(whole.train), images(whole.validation), images(whole.test))

    def model(self, seed: int) -> nn.Module:
        return seeded_model(seed, NoiseConditionalScoreNetwork)

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        (images,) = batch
        shown = torch.where(noise["flip"][:, None, None, None], images.flip(-1), images)
        return self.evaluate(model, (shown,), noise)["loss"].mean()

    def evaluate(self, model: nn.Module, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """ "loss": see `score_matching_losses`."""
        (images,) = batch
        level, epsilon = noise["level"], noise["epsilon"]
        deviation = deviations().to(images.device)[level]
        scores = model(images + deviation[:, None, None, None] * epsilon, level)
        return {"loss": score_matching_losses(scores, epsilon, deviation)}

    def noise(self, generator: np.random.Generator, batch_size: int) -> dict[str, np.ndarray]:
        """ "level": which noise, (batch_size,); "epsilon": of deviation 1, (batch_size, 3, 32, 32)."""
        return {
            "level": generator.integers(0, NUM_LEVELS, batch_size),
            "epsilon": generator.standard_normal((batch_size, *SHAPE), dtype=np.float32),
        }

    def augmentation(self, generator: np.random.Generator, num_samples: int) -> dict[str, np.ndarray]:
        """ "flip": mirrored or not, (num_samples,)."""
        return {"flip": generator.random(num_samples) < 0.5}
