"""Capsules: routing and margins as the textbook has them, and the network at its published size."""

import numpy as np
import pytest
import torch
from smoke import smoke

from glideslope.tasks.capsules import CapsuleNetwork, FashionCapsules, margin_loss, routed, squash
from glideslope.tasks.data import DataFormatError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Fashion-MNIST's archive with a few images."""
    monkeypatch.setenv("GLIDESLOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GLIDESLOPE_DATA", str(tmp_path))
    generator = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 40), ("test", 10)):
        arrays[f"{split}_images"] = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = generator.integers(0, 10, count, dtype=np.uint8)
    np.savez(tmp_path / "fashion_mnist.npz", **arrays)
    return tmp_path


def slowly_squashed(vector):
    length = np.linalg.norm(vector)
    return length**2 / (1 + length**2) * vector / length


def slowly_routed(votes, routings):
    """Procedure 1 of the paper, for one example: (lower, upper, units) → (upper, units)."""
    lower, upper, _ = votes.shape
    agreement = np.zeros((lower, upper))
    for _ in range(routings):
        coupling = np.exp(agreement) / np.exp(agreement).sum(axis=1, keepdims=True)
        capsules = [slowly_squashed(sum(coupling[i, j] * votes[i, j] for i in range(lower))) for j in range(upper)]
        for i in range(lower):
            for j in range(upper):
                agreement[i, j] += votes[i, j] @ capsules[j]
    return np.stack(capsules)


@pytest.mark.parametrize("routings", [1, 2, 3])
def test_routing_is_that_of_the_paper(routings):
    votes = np.random.default_rng(0).normal(size=(2, 5, 3, 4))
    expected = np.stack([slowly_routed(example, routings) for example in votes])
    np.testing.assert_allclose(routed(torch.from_numpy(votes), routings), expected, rtol=1e-9)


def test_lower_capsules_turn_to_where_they_agree():
    """Four votes of one upper capsule are the same, those for the other point everywhere."""
    votes = torch.zeros(1, 4, 2, 2)
    votes[0, :, 0] = torch.tensor([1.0, 0.0])
    votes[0, :, 1] = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    lengths = [routed(votes, routings).norm(dim=-1)[0] for routings in (1, 3)]
    assert lengths[1][0] > lengths[0][0] > lengths[0][1]


def test_a_capsule_of_length_zero_has_a_gradient():
    capsules = torch.zeros(2, 3, requires_grad=True)
    squash(capsules).sum().backward()
    assert capsules.grad.isfinite().all()


def test_margins_by_hand():
    lengths = torch.tensor([[0.95, 0.05, 0.3], [0.5, 0.1, 0.9]])
    # Long enough, and 0.2 too much of another; 0.8 too little, 0.4 and 0.8 too much.
    expected = torch.tensor([0.5 * 0.2**2, 0.8**2 + 0.5 * 0.4**2 + 0.5 * 0.8**2])
    torch.testing.assert_close(margin_loss(lengths, torch.tensor([0, 1])), expected)


def test_the_decoder_sees_the_capsule_of_the_label_alone():
    model = FashionCapsules().model(0)
    capsules = torch.rand(2, 10, 16, generator=torch.Generator().manual_seed(0))
    others = capsules.clone()
    others[0, :3], others[0, 4:], others[1, 1:] = 0.1, 0.1, 0.1
    labels = torch.tensor([3, 0])
    drawn = model.decoded(capsules, labels)
    assert drawn.shape == (2, 784)
    assert torch.equal(model.decoded(others, labels), drawn)
    assert not torch.equal(model.decoded(others, labels + 1), drawn)


def test_has_as_many_parameters_as_the_paper_says():
    """8.2 million, and 6.8 million without the decoder (Section 5)."""
    model = CapsuleNetwork()
    whole = sum(weight.numel() for weight in model.parameters())
    assert whole == 8_215_568
    assert whole - sum(weight.numel() for weight in model.decoder.parameters()) == 6_804_224


def test_the_error_is_that_of_the_longest_capsule(folder):
    task = FashionCapsules()
    model, (images, labels) = task.model(0).eval(), task.splits().test
    with torch.no_grad():
        longest = model(images).norm(dim=-1).argmax(dim=-1)
        found = task.evaluate(model, (images, labels), {})
    assert found["error"].tolist() == [100.0 * (one != other) for one, other in zip(longest, labels, strict=True)]


def test_trains_and_goes_on(folder):
    found = smoke(FashionCapsules())
    assert found["loss_after"] < found["loss_before"]


def test_a_file_that_is_cut_short(folder):
    path = folder / "fashion_mnist.npz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataFormatError, match=r"fashion_mnist\.npz cannot be read"):
        FashionCapsules().splits()
