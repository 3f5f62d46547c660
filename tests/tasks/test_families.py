"""What single families promise beyond the contract of every task."""

import gzip
import importlib.metadata
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from glideslope.tasks import mnist1d
from glideslope.tasks.augmentation import PADDING, cropped_and_flipped
from glideslope.tasks.classification import with_label_noise
from glideslope.tasks.data import DataFormatError
from glideslope.tasks.digits import DigitsAutoencoder, DigitsMLP, DigitsVAE
from glideslope.tasks.language import CHARACTERS, ShakespeareLSTM
from glideslope.tasks.reconstruction import reconstruction_loss


class TestLabelNoise:
    LABELS = np.arange(20_000) % 10

    def test_none_is_none(self):
        np.testing.assert_array_equal(with_label_noise(self.LABELS, 0.0, seed=0), self.LABELS)

    def test_the_share_is_met_and_every_other_class_is_equally_likely(self):
        noisy = with_label_noise(self.LABELS, 0.3, seed=0)
        wrong = noisy != self.LABELS
        # Four standard deviations of a binomial share at n = 20,000.
        assert wrong.mean() == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / 20_000) ** 0.5)
        shifts = np.bincount((noisy - self.LABELS)[wrong] % 10, minlength=10)
        assert shifts[0] == 0
        assert shifts[1:].min() > 0.85 * shifts[1:].max()

    def test_it_is_a_function_of_share_and_seed_and_nested_in_the_share(self):
        less, more = with_label_noise(self.LABELS, 0.1, seed=0), with_label_noise(self.LABELS, 0.2, seed=0)
        hit = less != self.LABELS
        np.testing.assert_array_equal(less[hit], more[hit])
        assert not np.array_equal(less, with_label_noise(self.LABELS, 0.1, seed=1))

    @pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
    def test_a_share_out_of_bounds(self, share):
        with pytest.raises(ValueError, match="0 <= label_noise < 1"):
            DigitsMLP(label_noise=share)

    def test_it_hits_training_labels_only(self):
        clean, noisy = DigitsMLP(label_noise=0.0).splits(), DigitsMLP(label_noise=0.5).splits()
        assert (clean.train[1] != noisy.train[1]).float().mean().item() == pytest.approx(0.5, abs=0.06)
        assert torch.equal(clean.train[0], noisy.train[0])
        assert torch.equal(clean.validation[1], noisy.validation[1])
        assert torch.equal(clean.test[1], noisy.test[1])


class TestMNIST1D:
    @pytest.fixture
    def few(self, monkeypatch, tmp_path):
        """A recipe of 100 examples, so that it takes milliseconds."""
        monkeypatch.setenv("GLIDESLOPE_CACHE", str(tmp_path))
        for name, count in (("NUM_TRAIN", 60), ("NUM_VALIDATION", 20), ("NUM_TEST", 20)):
            monkeypatch.setattr(mnist1d, name, count)

    def test_the_generator_leaves_the_global_generators_as_they_were(self, few):
        kind, keys, *rest = np.random.get_state()
        before = random.getstate()
        made = mnist1d._generate()
        kind_after, keys_after, *rest_after = np.random.get_state()
        assert (kind, keys.tolist(), rest) == (kind_after, keys_after.tolist(), rest_after)
        assert random.getstate() == before
        assert made["inputs"].shape == (100, 40)
        assert made["inputs"].dtype == np.float32
        assert sorted(set(made["labels"].tolist())) == list(range(10))

    def test_the_examples_do_not_depend_on_the_global_generators(self, few):
        np.random.seed(1)
        first = mnist1d._generate()
        np.random.seed(2)
        second = mnist1d._generate()
        np.testing.assert_array_equal(first["inputs"], second["inputs"])

    def test_they_are_the_packages_own(self, few):
        from mnist1d.data import get_dataset_args, make_dataset

        arguments = get_dataset_args()
        arguments.num_samples = 100
        state = np.random.get_state(), random.getstate()
        published = make_dataset(arguments)
        np.random.set_state(state[0])
        random.setstate(state[1])
        made = mnist1d._generate()
        np.testing.assert_array_equal(made["labels"], np.concatenate([published["y"], published["y_test"]]))
        np.testing.assert_array_equal(made["inputs"][:80], published["x"].astype(np.float32))

    def test_they_are_made_once_and_kept_under_the_packages_version(self, few, monkeypatch, tmp_path):
        uncached = mnist1d._examples.__wrapped__
        first = uncached()
        monkeypatch.setattr(mnist1d, "_generate", lambda: pytest.fail("made a second time"))
        np.testing.assert_array_equal(first["inputs"], uncached()["inputs"])
        assert [path.name for path in tmp_path.iterdir()] == [f"mnist1d-{importlib.metadata.version('mnist1d')}-100"]


class TestReconstruction:
    def test_the_loss_is_summed_over_pixels_and_kept_apart_by_example(self):
        logits, inputs = torch.randn(3, 64), torch.rand(3, 64)
        expected = [
            functional.binary_cross_entropy(torch.sigmoid(a), b, reduction="sum")
            for a, b in zip(logits, inputs, strict=True)
        ]
        torch.testing.assert_close(reconstruction_loss(logits, inputs), torch.stack(expected))

    def test_an_untrained_autoencoder_pays_about_log_2_per_pixel(self):
        task = DigitsAutoencoder()
        loss = task.evaluate(task.model(0), task.splits().test, {})["loss"].mean().item()
        assert loss == pytest.approx(64 * np.log(2), rel=0.1)

    def test_the_variational_loss_is_reconstruction_plus_the_divergence_torch_computes(self):
        task = DigitsVAE()
        model, batch = task.model(0), task.splits().test
        noise = {"epsilon": torch.randn(len(batch[0]), 2)}
        logits, mean, log_variance = model(batch[0], noise["epsilon"])
        code = torch.distributions.Normal(mean, (log_variance / 2).exp())
        divergence = torch.distributions.kl_divergence(code, torch.distributions.Normal(0.0, 1.0)).sum(-1)
        expected = reconstruction_loss(logits, batch[0]) + divergence
        torch.testing.assert_close(task.evaluate(model, batch, noise)["loss"], expected)


class TestCropAndFlip:
    IMAGES = torch.rand(3, 2, 8, 8)
    CENTRE = torch.full((3, 2), PADDING)

    def test_the_middle_crop_unflipped_is_the_image(self):
        assert torch.equal(cropped_and_flipped(self.IMAGES, self.CENTRE, torch.zeros(3, dtype=torch.bool)), self.IMAGES)

    def test_a_flip_mirrors_left_and_right_of_its_own_image_only(self):
        flipped = cropped_and_flipped(self.IMAGES, self.CENTRE, torch.tensor([True, False, True]))
        assert torch.equal(flipped[0], self.IMAGES[0].flip(-1))
        assert torch.equal(flipped[1], self.IMAGES[1])

    def test_it_equals_the_loop_over_images(self):
        shift, flip = torch.tensor([[0, 3], [8, 1], [5, 8]]), torch.tensor([False, True, True])
        padded = functional.pad(self.IMAGES, (PADDING,) * 4)
        for index, image in enumerate(cropped_and_flipped(self.IMAGES, shift, flip)):
            row, column = shift[index].tolist()
            crop = padded[index, :, row : row + 8, column : column + 8]
            assert torch.equal(image, crop.flip(-1) if flip[index] else crop)


class TestShakespeare:
    @pytest.fixture
    def write(self, tmp_path, monkeypatch):
        monkeypatch.setenv("GLIDESLOPE_DATA", str(tmp_path))
        monkeypatch.setenv("GLIDESLOPE_CACHE", str(tmp_path / "cache"))

        def write(text: str) -> None:
            with gzip.open(tmp_path / "tinyshakespeare.txt.gz", "wt", encoding="utf-8", newline="") as file:
                file.write(text)

        return write

    def test_targets_are_the_next_characters_and_sequences_follow_each_other(self, write):
        write(CHARACTERS * 40)
        inputs, targets = ShakespeareLSTM(length=10).splits().train
        assert torch.equal(inputs.flatten()[1:], targets.flatten()[:-1])
        assert [CHARACTERS[index] for index in inputs[0].tolist()] == list(CHARACTERS[:10])

    def test_the_parts_have_their_shares(self, write):
        write(CHARACTERS * 400)
        splits = ShakespeareLSTM(length=10).splits()
        sizes = [len(part[0]) for part in (splits.train, splits.validation, splits.test)]
        assert np.divide(sizes, sum(sizes)) == pytest.approx([0.9, 0.05, 0.05], abs=0.002)

    def test_an_unknown_character_is_named(self, write):
        write("To be, or not to be" + "#" + CHARACTERS * 20)
        with pytest.raises(DataFormatError, match="byte 35 at position 19"):
            ShakespeareLSTM().splits()

    def test_a_model_that_knows_nothing_pays_log_65_per_character(self, write):
        write(CHARACTERS * 40)

        class Uniform(nn.Module):
            def forward(self, characters):
                return torch.zeros(*characters.shape, len(CHARACTERS))

        task = ShakespeareLSTM()
        losses = task.evaluate(Uniform(), task.splits().train, {})["loss"]
        torch.testing.assert_close(losses, torch.full_like(losses, np.log(65)))

    def test_a_length_out_of_bounds(self):
        with pytest.raises(ValueError, match="`length` is 0"):
            ShakespeareLSTM(length=0)
