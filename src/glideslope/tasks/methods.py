"""Training methods: `mnist1d-mlp+label_smoothing+mixup` is a task with two of them switched on, in any order.

They come from the entry-point group `glideslope.methods`; a user's own come the same way, or as "package.module:Class".

| method | what it changes | tasks |
|---|---|---|
| `label_smoothing` | the loss: a tenth of every label is spread over all classes | with labels |
| `mixup` | examples are averaged in pairs, and so are their losses | with labels or of images; not of tokens |
| `channels_last` | the layout in memory, not the arithmetic | with 2-d convolutions |
| `blurpool` | maps are blurred before they are subsampled | with 2-d max pools or strided convolutions |
| `layer_freezing`, `progressive_resizing` | refused: they have schedules of their own | none |

Weight decay and its kind are settings of the optimizer: `adamw(weight_decay=0.1)`.
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor, nn

from glideslope.tasks.reconstruction import Reconstruction, VariationalReconstruction
from glideslope.trials.task import Noise, Task
from glideslope.trials.variant import Criterion, Method, in_parts

WITHOUT_LABELS = "its loss is not one of labels that a method can reach into (see glideslope.trials.task.Labelled)"
BLUR_SIZE = 3
"""Of the binomial kernel (1, 2, 1) / 4 along each axis."""


@final
@dataclass(frozen=True)
class LabelSmoothing(Method):
    r"""Training labels that are not quite certain: the share `amount` of each is spread over all classes evenly.

    .. math:: (1 - a) \, H(y, p) + a \, H(u, p), \quad u = 1 / \text{classes}

    Weights stop growing to make sure answers surer. Evaluation sees whole labels, so the training loss lies above the
    evaluated one.

    Args:
        amount: 0 < amount < 1.

    Source: Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, "Rethinking the Inception Architecture for Computer Vision",
        CVPR 2016, Section 7.
    """

    name: ClassVar[str] = "label_smoothing"
    source: ClassVar[str] = "Szegedy et al., CVPR 2016"

    amount: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.amount < 1:
            raise ValueError(f"`amount` is {self.amount}, but must satisfy 0 < amount < 1.")

    def refusal(self, task: Task) -> str:
        return "" if in_parts(task) else WITHOUT_LABELS

    def criterion(self, criterion: Criterion, noise: Noise) -> Criterion:
        return functools.partial(criterion, label_smoothing=self.amount)


@final
@dataclass(frozen=True)
class Mixup(Method):
    r"""Averages of examples, in pairs: every example of a batch is mixed with another one, all by one share.

    .. math:: \lambda \, L(x', y) + (1 - \lambda) \, L(x', y_\pi), \quad
        x' = \lambda x + (1 - \lambda) x_\pi, \quad \lambda \sim \mathrm{Beta}(\alpha, \alpha)

    Share and permutation :math:`\pi` are drawn anew in every update. What has no labels (autoencoders) is trained to
    reconstruct the averages. Inputs are mixed as the task shows them: after its augmentation.

    Args:
        alpha: > 0; near 0 most batches are hardly mixed, at 1 all shares are equally likely.

    Source: Zhang, Cisse, Dauphin, Lopez-Paz, "mixup: Beyond Empirical Risk Minimization", ICLR 2018, Section 2 and its
        Figure 1a, where one share holds for the batch.
    """

    name: ClassVar[str] = "mixup"
    source: ClassVar[str] = "Zhang et al., ICLR 2018"

    alpha: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.alpha < float("inf"):
            raise ValueError(f"`alpha` is {self.alpha}, but must satisfy 0 < alpha < inf.")

    def refusal(self, task: Task) -> str:
        if not (in_parts(task) or isinstance(task, (Reconstruction, VariationalReconstruction))):
            return f"{WITHOUT_LABELS}, and it reconstructs nothing either"
        if _has(task.model(0), nn.Embedding):
            return "its inputs are tokens, and the average of two tokens is none"
        return ""

    def noise(self, generator: np.random.Generator, batch_size: int) -> dict[str, np.ndarray]:
        """ "mixup_share": how much of each example stays, (1,); "mixup_partner": who is mixed in, (1, batch_size)."""
        return {
            "mixup_share": generator.beta(self.alpha, self.alpha, 1).astype(np.float32),
            "mixup_partner": generator.permutation(batch_size)[None],
        }

    def shown(self, inputs: Tensor, noise: Noise) -> Tensor:
        """See `Method.shown`.

        Raises:
            ValueError: this is a part of a batch, and partners are in another one.
        """
        share, partner = noise["mixup_share"][0], noise["mixup_partner"][0]
        if len(partner) != len(inputs):
            raise ValueError(
                f"mixup mixes the {len(partner)} examples of a batch, but has {len(inputs)} of them: a batch cannot be "
                "shared by several ranks. Run it with --ranks 1 or --executor processes."
            )
        return share * inputs + (1 - share) * inputs[partner]

    def criterion(self, criterion: Criterion, noise: Noise) -> Criterion:
        share, partner = noise["mixup_share"][0], noise["mixup_partner"][0]

        def mixed(logits: Tensor, labels: Tensor, **options: float) -> Tensor:
            own, other = criterion(logits, labels, **options), criterion(logits, labels[partner], **options)
            return share * own + (1 - share) * other

        return mixed


@final
@dataclass(frozen=True)
class ChannelsLast(Method):
    """Images and their weights with the channels innermost in memory, as many convolution kernels want them.

    The same arithmetic in another order: losses differ in the last digits, seconds by more. With
    `precision="bfloat16"` tensors lie so in any case.

    Source: PyTorch tutorials, "Channels Last Memory Format in PyTorch".
    """

    name: ClassVar[str] = "channels_last"
    source: ClassVar[str] = "PyTorch's memory format"

    def refusal(self, task: Task) -> str:
        return "" if _has(task.model(0), nn.Conv2d) else "its model has no 2-d convolutions"

    def model(self, model: nn.Module) -> nn.Module:
        # The first convolution follows its weights' layout, and every layer after it that of its inputs.
        return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


@final
@dataclass(frozen=True)
class BlurPool(Method):
    """Blur before every second pixel is dropped: a shift of the image by one pixel then changes less.

    A max pool with a stride becomes a dense one and a blur that strides. A convolution with a stride gets a blur before
    it, as in MosaicML's Composer, where the paper has it dense and blurs behind its ReLU, at several times the cost.
    Subsampling that a model does by slices, as the shortcuts of `cifar10-resnet20`, stays as it is.

    Source: Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML 2019, Section 3, with the filter Tri-3.
    """

    name: ClassVar[str] = "blurpool"
    source: ClassVar[str] = "Zhang, ICML 2019; layers of kornia"

    def refusal(self, task: Task) -> str:
        if not any(_strides(layer) for layer in task.model(0).modules()):
            return "its model has no 2-d max pools or convolutions with a stride"
        return "" if importlib.util.find_spec("kornia") else "kornia is missing: pip install 'glideslope[methods]'"

    def model(self, model: nn.Module) -> nn.Module:
        for path, layer in list(model.named_modules()):
            if _strides(layer):
                model.set_submodule(path, _blurred(layer))
        return model


def _strides(layer: nn.Module) -> bool:
    return isinstance(layer, (nn.Conv2d, nn.MaxPool2d)) and layer.stride not in (1, (1, 1))


def _blurred(layer: nn.Module) -> nn.Sequential:
    from kornia.filters import BlurPool2D

    if isinstance(layer, nn.MaxPool2d):
        dense = nn.MaxPool2d(layer.kernel_size, 1, layer.padding, layer.dilation)
        return nn.Sequential(dense, BlurPool2D(BLUR_SIZE, layer.stride))  # type: ignore[arg-type]  # pairs are taken too
    return nn.Sequential(BlurPool2D(BLUR_SIZE, 1), layer)


class Scheduled(Method):
    """A method that changes in the course of a run: refused by every task, until it can follow the rate's cycles.

    A curve is read where cycles of the rate end. A course that is spread over the whole run would be half done at the
    early points, and their separate runs, which go through all of it, would be something else.
    """

    course: ClassVar[str]

    def refusal(self, task: Task) -> str:
        return (
            f"it has a schedule of its own ({self.course}), which would have to cycle with the rate, and cannot yet: "
            "read at the end of a cycle, the curve would not be that of separate runs"
        )


@final
@dataclass(frozen=True)
class ProgressiveResizing(Scheduled):
    """Refused: images grow in the course of a run, and their sizes would have to cycle with the rate.

    Source: Howard et al., "Now anyone can train Imagenet in 18 minutes", fast.ai, 2018.
    """

    name: ClassVar[str] = "progressive_resizing"
    source: ClassVar[str] = "Howard et al., fast.ai, 2018"
    course: ClassVar[str] = "the size of images"


@final
@dataclass(frozen=True)
class LayerFreezing(Scheduled):
    """Refused: layers stop learning one after another, and would have to thaw with the rate.

    Source: Brock, Lim, Ritchie, Weston, "FreezeOut: Accelerate Training by Progressively Freezing Layers", 2017.
    """

    name: ClassVar[str] = "layer_freezing"
    source: ClassVar[str] = "Brock et al., 2017"
    course: ClassVar[str] = "which layers still learn"


def _has(model: nn.Module, kind: type[nn.Module]) -> bool:
    return any(isinstance(layer, kind) for layer in model.modules())
