"""Residual networks beyond those for CIFAR in `models`: for ImageNet, wide ones, and ResNet-9."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from torch import Tensor, nn
from torch.nn import functional


class ShortcutBlock(nn.Module):
    """Convolutions beside a shortcut with parameters of its own (option B), and a ReLU behind their sum.

    Args:
        branch: the convolutions, which end in a norm.
        shortcut: the identity, or a 1 x 1 convolution and a norm where the shape changes.
    """

    def __init__(self, branch: nn.Sequential, shortcut: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = shortcut

    def forward(self, inputs: Tensor) -> Tensor:
        """(batch, inputs, height, width) → (batch, outputs, height / stride, width / stride)."""
        return functional.relu(self.branch(inputs) + self.shortcut(inputs))


def basic_block(inputs: int, width: int, stride: int) -> ShortcutBlock:
    """Two 3 x 3 convolutions of `width` channels."""
    branch = nn.Sequential(*_normed(inputs, width, 3, stride), nn.ReLU(), *_normed(width, width, 3))
    return ShortcutBlock(branch, _shortcut(inputs, width, stride))


def bottleneck_block(inputs: int, width: int, stride: int) -> ShortcutBlock:
    """A 3 x 3 convolution of `width` channels between two of 1 x 1, the last of which has four times as many.

    The stride is that of the 3 x 3 convolution, as in PyTorch's models ("v1.5"); the paper has it in the one before.
    """
    branch = nn.Sequential(
        *_normed(inputs, width, 1),
        nn.ReLU(),
        *_normed(width, width, 3, stride),
        nn.ReLU(),
        *_normed(width, 4 * width, 1),
    )
    return ShortcutBlock(branch, _shortcut(inputs, 4 * width, stride))


def imagenet_resnet(depth: int, num_classes: int = 1000) -> nn.Sequential:
    """The residual network for images of 224 x 224 and more, with the strides and the initialisation of torchvision's.

    Args:
        depth: 18, 50 or 101.
        num_classes: outputs.

    >>> sum(parameter.numel() for parameter in imagenet_resnet(18).parameters())
    11689512

    Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, Table 1.
    """
    known: dict[int, tuple[Block, int, Sequence[int]]] = {
        18: (basic_block, 1, (2, 2, 2, 2)),
        50: (bottleneck_block, 4, (3, 4, 6, 3)),
        101: (bottleneck_block, 4, (3, 4, 23, 3)),
    }
    if depth not in known:
        raise ValueError(f"`depth` is {depth}, but must be one of {', '.join(map(str, known))}.")
    block, expansion, counts = known[depth]
    stem = [*_normed(3, 64, 7, stride=2), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1)]
    readout = nn.Linear(512 * expansion, num_classes)
    return _initialised(nn.Sequential(*stem, *_stages(block, expansion, counts), *_pooled(), readout))


def cifar_resnet18(num_classes: int = 10) -> nn.Sequential:
    """ResNet-18 with all of its width on images of 32 x 32: its stem is one 3 x 3 convolution, without a pool.

    >>> sum(parameter.numel() for parameter in cifar_resnet18().parameters())
    11173962

    Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, Table 1; the stem is that of
        github.com/kuangliu/pytorch-cifar.
    """
    stem = [*_normed(3, 64, 3), nn.ReLU()]
    stages = _stages(basic_block, 1, (2, 2, 2, 2))
    return _initialised(nn.Sequential(*stem, *stages, *_pooled(), nn.Linear(512, num_classes)))


class AddedTo(nn.Module):
    """What a branch makes of its input, added to it."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + cast(Tensor, self.branch(inputs))


def resnet9(num_classes: int = 10) -> nn.Sequential:
    """Nine layers for images of 32 x 32 that learn in a few epochs: 64, 128, 256, 512 channels, two residual branches.

    Leaky ReLUs (0.1), statistics of norms that follow quickly (a fifth of each new batch), a maximum over the last
    map. A pool stands in front of its norm.

    >>> sum(parameter.numel() for parameter in resnet9().parameters())
    6573130

    Source: Page, "How to Train Your ResNet", 2018, with the changes of the code to Dong et al., "To Raise or Not To
        Raise: The Autonomous Learning Rate Question", 2021. Biases that a norm would take away again are left out.
    """

    def layer(inputs: int, outputs: int, pool: bool = False) -> list[nn.Module]:
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        pooled = [nn.MaxPool2d(2)] if pool else []
        return [convolution, *pooled, nn.BatchNorm2d(outputs, momentum=0.2), nn.LeakyReLU(0.1)]

    def residual(channels: int) -> nn.Module:
        return AddedTo(nn.Sequential(*layer(channels, channels), *layer(channels, channels)))

    return nn.Sequential(
        *layer(3, 64),
        *layer(64, 128, pool=True),
        residual(128),
        *layer(128, 256, pool=True),
        *layer(256, 512, pool=True),
        residual(512),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(512, num_classes),
    )


class WideBlock(nn.Module):
    """Two 3 x 3 convolutions, each behind a norm and a ReLU, and a shortcut.

    Where the shape changes, the shortcut is a 1 x 1 convolution of what the first norm and ReLU have made.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.convolution1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.convolution2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        changes = inputs != outputs or stride != 1
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False) if changes else None

    def forward(self, inputs: Tensor) -> Tensor:
        """(batch, inputs, height, width) → (batch, outputs, height / stride, width / stride)."""
        active = functional.relu(self.norm1(inputs))
        hidden = self.convolution2(functional.relu(self.norm2(self.convolution1(active))))
        return cast(Tensor, hidden + (inputs if self.shortcut is None else self.shortcut(active)))


def wide_resnet(depth: int, width: int, num_classes: int = 10) -> nn.Sequential:
    """The wide residual network WRN-depth-width for small images; without dropout.

    Args:
        depth: 6 n + 4: 10, 16, 22, 28, 40, …
        width: times as many channels as 16, 32 and 64, at least 1.
        num_classes: outputs.

    >>> sum(parameter.numel() for parameter in wide_resnet(16, 8).parameters())
    10961370

    Source: Zagoruyko, Komodakis, "Wide Residual Networks", BMVC 2016, Table 1; its Table 4 counts 11.0 M parameters for
        WRN-16-8, and 36.5 M for WRN-28-10.
    """
    blocks_per_stage, rest = divmod(depth - 4, 6)
    if rest or blocks_per_stage < 1:
        raise ValueError(f"`depth` is {depth}, but must be 6 n + 4 with n >= 1: 10, 16, 22, 28, 34, 40, …")
    if width < 1:
        raise ValueError(f"`width` is {width}, but must satisfy width >= 1.")
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1, bias=False)]
    inputs = 16
    for outputs, stride in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
        for block in range(blocks_per_stage):
            layers.append(WideBlock(inputs, outputs, stride if block == 0 else 1))
            inputs = outputs
    layers += [nn.BatchNorm2d(inputs), nn.ReLU()]
    return _initialised(nn.Sequential(*layers, *_pooled(), nn.Linear(inputs, num_classes)))


Block = Callable[[int, int, int], ShortcutBlock]
"""Channels that come in, width, stride → block."""


def _normed(inputs: int, outputs: int, size: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outputs)]


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    return nn.Identity() if inputs == outputs and stride == 1 else nn.Sequential(*_normed(inputs, outputs, 1, stride))


def _stages(block: Block, expansion: int, counts: Sequence[int]) -> list[nn.Module]:
    """Blocks of 64, 128, 256 and 512 channels; each stage but the first begins with a stride of 2."""
    blocks: list[nn.Module] = []
    inputs = 64
    for stage, count in enumerate(counts):
        width = 64 * 2**stage
        for index in range(count):
            blocks.append(block(inputs, width, 2 if stage and not index else 1))
            inputs = expansion * width
    return blocks


def _pooled() -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten()]


def _initialised(network: nn.Sequential) -> nn.Sequential:
    """Convolutions are drawn anew, by He's rule for what comes out of them."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network
