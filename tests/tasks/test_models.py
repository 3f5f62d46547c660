"""Networks: sizes as published, and the few properties their docstrings promise."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from glideslope.tasks import models


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        (lambda: models.mlp((40, 32, 32, 10)), 2_698),
        (lambda: models.mlp((64, 20, 6, 20, 64), linear_after=(1,)), 2_910),
        (lambda: models.sequence_cnn(40, 25, 10), 5_210),
        (lambda: models.RecurrentClassifier(40, 6, 10), 5_134),
        (lambda: models.cifar_resnet(20), 269_722),
        (lambda: models.cifar_resnet(56), 853_018),
    ],
)
def test_sizes(network, parameters):
    assert size(network()) == parameters


def test_a_dense_network_is_linear_where_it_says_so():
    kinds = [type(layer).__name__ for layer in models.mlp((8, 4, 2, 4, 8), linear_after=(1,))]
    assert kinds == ["Linear", "ReLU", "Linear", "Linear", "ReLU", "Linear"]


def test_orthogonalise_keeps_the_size_of_a_signal():
    torch.manual_seed(0)
    network = models.orthogonalise(models.mlp((64, 64, 64)))
    assert not network[0].bias.any()
    torch.testing.assert_close(network[0].weight @ network[0].weight.T, 2 * torch.eye(64), atol=1e-5, rtol=0)
    torch.testing.assert_close(network[2].weight @ network[2].weight.T, torch.eye(64), atol=1e-5, rtol=0)


def test_the_variational_code_is_mean_plus_scaled_draw():
    torch.manual_seed(0)
    network = models.VariationalAutoencoder((8, 6, 5), latent_size=2)
    inputs, epsilon = torch.rand(3, 8), torch.randn(3, 2)
    logits, mean, log_variance = network(inputs, epsilon)
    assert logits.shape == (3, 8)
    torch.testing.assert_close(logits, network.decoder(mean + (log_variance / 2).exp() * epsilon))
    assert sum(isinstance(layer, nn.Linear) for layer in network.encoder) == 3
    assert sum(isinstance(layer, nn.Linear) for layer in network.decoder) == 3


@pytest.mark.parametrize("depth", [0, 2, 18, 21])
def test_depths_that_no_residual_network_has(depth):
    with pytest.raises(ValueError, match=rf"`depth` is {depth}, but must be 6 n \+ 2"):
        models.cifar_resnet(depth)


def test_where_a_residual_block_adds_nothing_only_its_shortcut_is_left():
    block = models.ResidualBlock(4, 8, stride=2)
    nn.init.zeros_(block.norm2.weight)
    inputs = torch.rand(2, 4, 6, 6)
    expected = torch.cat([inputs[:, :, ::2, ::2], torch.zeros(2, 4, 3, 3)], dim=1)
    torch.testing.assert_close(block(inputs), expected)


def test_standardise_uses_each_channels_numbers_and_keeps_them_out_of_checkpoints():
    layer = models.Standardise((1.0, 2.0), (2.0, 4.0))
    torch.testing.assert_close(layer(torch.full((1, 2, 1, 1), 3.0)).flatten(), torch.tensor([1.0, 0.25]))
    assert layer.state_dict() == {}


def test_a_character_model_does_not_look_ahead():
    torch.manual_seed(0)
    network = models.CharacterModel(10, 4, 6)
    text = torch.randint(10, (1, 8))
    changed = text.clone()
    changed[0, 5] = (changed[0, 5] + 1) % 10
    before, after = network(text), network(changed)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5], after[:, 5])


def test_initialisation_of_convolutions_is_that_of_he():
    torch.manual_seed(0)
    convolution = [module for module in models.cifar_resnet(20).modules() if isinstance(module, nn.Conv2d)][-1]
    assert convolution.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)


def test_image_networks_take_the_sizes_they_are_built_for():
    for side, channels in ((8, (8, 16)), (28, (16, 32))):
        assert models.image_cnn(side, channels, 10, hidden=12)(torch.rand(2, 1, side, side)).shape == (2, 10)


def test_the_recurrent_classifier_reads_every_state():
    torch.manual_seed(0)
    network = models.RecurrentClassifier(40, 6, 10)
    inputs = torch.rand(2, 40, 1, requires_grad=True)
    functional.softmax(network(inputs), -1)[:, 0].sum().backward()
    assert (inputs.grad != 0).all()
