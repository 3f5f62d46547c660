"""VGG: plain stacks of convolutions."""

from __future__ import annotations

from torch import nn

CHANNELS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Of the 13 convolutions of VGG-16, a max pool behind each group."""


def vgg16(num_classes: int = 10) -> nn.Sequential:
    """VGG-16 with batch normalisation for images of 32 x 32: one dense layer, where the paper has three for 224 x 224.

    The convolutions are those of the paper; they keep their biases, and are initialised as torchvision's.

    >>> sum(parameter.numel() for parameter in vgg16().parameters())
    14728266

    Source: Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015,
        Table 1, D; norms after Ioffe, Szegedy, "Batch Normalization", ICML 2015; the head is that of
        github.com/kuangliu/pytorch-cifar.
    """
    layers: list[nn.Module] = []
    inputs = 3
    for group in CHANNELS:
        for outputs in group:
            convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]  # there is one
            layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
            inputs = outputs
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(inputs, num_classes))
