"""Score matching: the loss by hand, normalisation by the book, and the network at its full size."""

import numpy as np
import pytest
import torch
from smoke import smoke

from glideslope.tasks.data import DataFormatError
from glideslope.tasks.score_matching import (
    CIFAR10ScoreNetwork,
    LevelNorm,
    NoiseConditionalScoreNetwork,
    deviations,
    score_matching_losses,
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """CIFAR-10's archive with a few images."""
    monkeypatch.setenv("GLIDESLOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GLIDESLOPE_DATA", str(tmp_path))
    generator = np.random.default_rng(0)
    arrays = {"test_index": np.arange(10, dtype=np.uint16)}
    for split, count in (("train", 40), ("test", 10)):
        arrays[f"{split}_delta"] = generator.integers(0, 256, (3, count, 32, 32), dtype=np.uint8)
        arrays[f"{split}_labels"] = generator.integers(0, 10, count, dtype=np.uint8)
    np.savez(tmp_path / "cifar10.npz", **arrays)
    return tmp_path


class Perfect(torch.nn.Module):
    """Knows the one image there is, and so the score of it under Gaussian noise."""

    def __init__(self, image):
        super().__init__()
        self.image = image

    def forward(self, noisy, level):
        return (self.image - noisy) / deviations()[level][:, None, None, None] ** 2


def draws(task, count, seed=0):
    generator = np.random.default_rng(seed)
    drawn = task.noise(generator, count) | task.augmentation(generator, count)
    return {name: torch.from_numpy(values) for name, values in drawn.items()}


def test_levels_are_a_geometric_sequence():
    ratios = deviations()[1:] / deviations()[:-1]
    assert deviations()[[0, -1]].tolist() == pytest.approx([1.0, 0.01])
    torch.testing.assert_close(ratios, torch.full((9,), 0.01 ** (1 / 9)))


def test_the_loss_by_hand():
    scores, epsilon = torch.tensor([[[1.0, -2.0]], [[0.0, 0.0]]]), torch.tensor([[[0.5, 0.0]], [[3.0, 4.0]]])
    found = score_matching_losses(scores, epsilon, torch.tensor([0.5, 0.1]))
    assert found.tolist() == pytest.approx([0.5 * (1.0**2 + 1.0**2), 12.5])


def test_the_true_score_has_no_loss():
    task = CIFAR10ScoreNetwork()
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = task.evaluate(Perfect(image), (image.expand(6, -1, -1, -1),), draws(task, 6))
    # Of 3,072 numbers: what is left is rounding, 1e-7 of the image over a noise of 0.01.
    assert found["loss"].shape == (6,)
    assert found["loss"].max() < 1e-5


def test_images_are_mirrored_in_training_alone():
    task = CIFAR10ScoreNetwork()
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    noise = draws(task, 8)
    assert noise["flip"].any()
    assert not noise["flip"].all()
    shown = torch.stack([image.flip(-1) if flip else image for image, flip in zip(images, noise["flip"], strict=True)])
    seen = []

    def model(noisy, level):
        seen.append(noisy - deviations()[level][:, None, None, None] * noise["epsilon"])
        return torch.zeros_like(noisy)

    task.loss(model, (images,), noise)
    task.evaluate(model, (images,), noise)
    torch.testing.assert_close(seen[0], shown)
    torch.testing.assert_close(seen[1], images)


def test_draws_cover_all_levels():
    assert set(draws(CIFAR10ScoreNetwork(), 200)["level"].tolist()) == set(range(10))


def test_normalisation_gives_the_means_of_channels_back():
    norm = LevelNorm(3)
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(2, 3, 4, 5, generator=generator) * 3 + torch.tensor([0.0, 5.0, -2.0])[:, None, None]
    with torch.no_grad():
        norm.shift.normal_(generator=generator)
        found = norm(values, torch.tensor([7, 2]))
    for example, level in ((0, 7), (1, 2)):
        means = values[example].mean((1, 2))
        standard = (means - means.mean()) / (means.var() + 1e-5).sqrt()
        for channel in range(3):
            mine = values[example, channel]
            inner = (mine - mine.mean()) / (mine.var(correction=0) + 1e-5).sqrt()
            outer = inner + norm.mean_scale[level, channel] * standard[channel]
            expected = norm.scale[level, channel] * outer + norm.shift[level, channel]
            torch.testing.assert_close(found[example, channel], expected.detach())


def test_levels_are_told_apart():
    model = NoiseConditionalScoreNetwork(channels=8)
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)).expand(2, -1, -1, -1)
    with torch.no_grad():
        same, apart = (model(images, torch.tensor(levels)) for levels in ([4, 4], [4, 5]))
    assert same.shape == images.shape
    torch.testing.assert_close(same[0], same[1])
    assert not torch.allclose(apart[0], apart[1])


def test_trains_and_goes_on(folder):
    task = CIFAR10ScoreNetwork()
    assert sum(weight.numel() for weight in task.model(0).parameters()) == 30_117_635
    found = smoke(task, examples=2)
    # A network that knows nothing is off by 3,072 / 2 and what it makes up.
    assert 1_000 < found["loss_before"] < 10_000


def test_a_file_that_is_cut_short(folder):
    path = folder / "cifar10.npz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataFormatError, match=r"cifar10\.npz cannot be read"):
        CIFAR10ScoreNetwork().splits()
