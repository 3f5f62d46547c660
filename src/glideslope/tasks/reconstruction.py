"""Reconstruction: autoencoders, plain and variational, judged by the loss they minimise, in nats per example."""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from glideslope.trials.task import Batch, Metric, Noise, Task


def reconstruction_loss(logits: Tensor, inputs: Tensor) -> Tensor:
    """Binary cross-entropy of pixel intensities in [0, 1], summed over the pixels: (batch, pixels) → (batch,).

    Grey pixels have an entropy of their own, so the least possible value is not 0.
    """
    return functional.binary_cross_entropy_with_logits(logits, inputs, reduction="none").sum(dim=-1)


class Reconstruction(Task):
    """Images of one colour, flattened, in [0, 1]; the model maps them to logits of themselves."""

    metric: ClassVar[Metric] = Metric("loss")

    @final
    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        (inputs,) = batch
        return functional.binary_cross_entropy_with_logits(model(inputs), inputs, reduction="sum") / inputs.shape[0]

    @final
    def evaluate(self, model: nn.Module, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        (inputs,) = batch
        return {"loss": reconstruction_loss(model(inputs), inputs)}


class VariationalReconstruction(Task):
    r"""The same images for a `VariationalAutoencoder`; the loss is the negative evidence lower bound.

    .. math:: -\log p(x \mid z) + \mathrm{KL}(q(z \mid x) \| \mathcal N(0, 1)), \quad z = \mu(x) + \sigma(x) \epsilon

    One draw of :math:`\epsilon` per example.

    On data not trained on, it is the REX paper's generalisation loss.
    """

    latent_size: ClassVar[int] = 2
    metric: ClassVar[Metric] = Metric("loss")

    @final
    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        return self.evaluate(model, batch, noise)["loss"].mean()

    @final
    def evaluate(self, model: nn.Module, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """ "loss": negative evidence lower bound in nats."""
        (inputs,) = batch
        logits, mean, log_variance = model(inputs, noise["epsilon"])
        divergence = 0.5 * (mean.square() + torch.exp(log_variance) - log_variance - 1).sum(dim=-1)
        return {"loss": reconstruction_loss(logits, inputs) + divergence}

    @final
    def noise(self, generator: np.random.Generator, batch_size: int) -> dict[str, np.ndarray]:
        """ "epsilon": the draws of the code, (batch_size, latent_size)."""
        return {"epsilon": generator.standard_normal((batch_size, self.latent_size), dtype=np.float32)}
