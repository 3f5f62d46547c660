"""training: the network's twin in PyTorch, its losses, and candidates that are trained once."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from glideslope.controller.network import HIDDEN, SHAPES, Network
from glideslope.studies.arc import training
from glideslope.studies.arc.dataset import Points
from glideslope.studies.arc.offline import METRICS, offline_metrics
from glideslope.studies.arc.training import Recipe, Twin, fit, train_candidate
from glideslope.trials.task import seeded_model

QUICK = Recipe(epochs=2, batch_size=16)


def train_candidates(inputs, labels, recipes, folder, held_out=None, report=lambda trained: None):
    """One candidate per recipe, told of in order."""
    trained = []
    for number, recipe in enumerate(recipes):
        trained.append(train_candidate(inputs, labels, recipe, folder, number, held_out))
        report(trained[-1])
    return tuple(trained)


def make_examples(n=24, seed=0):
    """Histories whose label shows in the course of the training loss."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    inputs = 0.3 * generator.normal(size=(n, 300, 3))
    inputs[:, :, 0] += (1.0 - labels)[:, None] * np.linspace(-1, 1, 300)
    return inputs.astype(np.float32), labels


def content(network):
    return b"".join(network.tensors[name].tobytes() for name in SHAPES)


class TestTwin:
    def test_twin_and_network_decide_alike(self):
        """Every weight random, so that no transposition, gate or bias can be mistaken for another."""
        twin = seeded_model(1, Twin)
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for weight in twin.parameters():
                weight.add_(0.2 * torch.randn(weight.shape, generator=generator))
        inputs = torch.randn(8, 300, 3, generator=generator)
        with torch.no_grad():
            expected = torch.softmax(twin(inputs), dim=1).numpy()
        assert np.ptp(expected, axis=0).max() > 0.05  # not the same answer to everything
        np.testing.assert_allclose(twin.export()(inputs.numpy()), expected, atol=1e-5)

    def test_the_size_is_the_published_one(self):
        sizes = [weight.numel() for weight in Twin().parameters() if weight.requires_grad]
        assert sum(sizes) == 79_043 == sum(math.prod(shape) for shape in SHAPES.values())

    def test_it_begins_as_a_keras_model(self):
        tensors = seeded_model(0, Twin).export().tensors
        for layer in ("lstm1", "lstm2"):
            recurrent, bias = tensors[f"{layer}.recurrent_ifco"], tensors[f"{layer}.bias_ifco"]
            np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(HIDDEN), atol=1e-5)
            assert np.array_equal(bias, np.repeat([0.0, 1.0, 0.0, 0.0], HIDDEN))
        fans = {
            "conv1.kernel": (15, 160),
            "conv2.kernel": (160, 320),
            "lstm1.kernel_ifco": (64, 256),
            "lstm2.kernel_ifco": (64, 256),
            "dense1.kernel": (64, 32),
            "dense2.kernel": (32, 3),
        }
        for name, fan in fans.items():
            limit = math.sqrt(6 / sum(fan))
            assert 0.9 * limit < np.abs(tensors[name]).max() <= limit
            assert np.std(tensors[name]) == pytest.approx(limit / math.sqrt(3), rel=0.1)
        for layer in ("conv1", "conv2", "dense1", "dense2"):
            assert not tensors[f"{layer}.bias"].any()


class TestLosses:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.1, 0.3], [-1.0, 0.0, 1.0], [0.0, 3.0, 0.0]])
    labels = torch.tensor([0, 1, 2, 0])

    @property
    def chances(self):
        return torch.softmax(self.logits.double(), dim=1).numpy()

    def test_paper_by_hand(self):
        p = self.chances
        cross = -np.log([p[0, 0], p[1, 1], p[2, 2], p[3, 0]]).mean()
        binary = -np.log([p[0, 0], 1 - p[1, 0], 1 - p[2, 0], p[3, 0]]).mean()
        assert training.paper_loss(self.logits, self.labels).item() == pytest.approx(cross + binary, rel=1e-5)

    def test_v2_by_hand(self):
        """What is to be kept is left out of the second mean."""
        p = self.chances
        cross = -np.log([p[0, 0], p[1, 1], p[2, 2], p[3, 0]]).mean()
        binary = -np.log([p[0, 0], 1 - p[2, 0], p[3, 0]]).mean()
        assert training.v2_loss(self.logits, self.labels).item() == pytest.approx((cross + binary) / 2, rel=1e-5)

    def test_v2_of_nothing_but_keep_is_half_the_cross_entropy(self):
        keep = torch.ones(4, dtype=torch.long)
        expected = torch.nn.functional.cross_entropy(self.logits, keep).item() / 2
        assert training.v2_loss(self.logits, keep).item() == pytest.approx(expected, rel=1e-6)

    @pytest.mark.parametrize("loss", training.LOSSES.values())
    def test_sure_and_wrong_is_finite_with_a_gradient(self, loss):
        logits = torch.tensor([[200.0, 0.0, 0.0], [-200.0, 0.0, 0.0]], requires_grad=True)
        found = loss(logits, torch.tensor([2, 0]))
        found.backward()
        assert math.isfinite(found.item())
        assert torch.isfinite(logits.grad).all()
        assert (logits.grad[:, 0] * torch.tensor([1, -1]) > 0).all()

    def test_v2_clips_what_is_as_sure_as_that(self):
        wrong = torch.tensor([[200.0, 0.0, 0.0]])
        cross = torch.nn.functional.cross_entropy(wrong, torch.tensor([2])).item()
        found = training.v2_loss(wrong, torch.tensor([2])).item()
        assert found == pytest.approx((cross - math.log(1e-4)) / 2, rel=1e-3)


class TestFit:
    def test_same_seed_same_bytes(self):
        examples = make_examples()
        first, again, other = (fit(*examples, replace(QUICK, seed=seed)) for seed in (3, 3, 4))
        assert content(first.network) == content(again.network) != content(other.network)
        assert first.losses == again.losses != other.losses

    def test_no_global_randomness_in_or_out(self):
        examples = make_examples()
        torch.manual_seed(0)
        first = fit(*examples, QUICK)
        here = torch.rand(1)
        torch.manual_seed(0)
        assert torch.equal(torch.rand(1), here)
        assert content(fit(*examples, QUICK).network) == content(first.network)

    def test_a_longer_training_begins_as_the_shorter_one(self):
        examples = make_examples()
        told = []
        longer = fit(*examples, replace(QUICK, epochs=3), report=lambda epoch, loss: told.append((epoch, loss)))
        assert longer.losses[:2] == fit(*examples, QUICK).losses
        assert told == list(enumerate(longer.losses, start=1))

    def test_losses_are_means_over_examples(self):
        """At a rate that moves nothing, whatever the sizes of the batches (16 and 8), an epoch's is the first one's."""
        inputs, labels = make_examples()
        fitted = fit(inputs, labels, Recipe("paper", drop_validation=0, epochs=1, batch_size=16, rate=1e-12))
        with torch.no_grad():
            expected = training.paper_loss(seeded_model(0, Twin)(torch.from_numpy(inputs)), torch.from_numpy(labels))
        assert fitted.losses == (pytest.approx(expected.item(), rel=1e-5),)

    def test_what_is_dropped_is_the_validation_channel(self):
        inputs, labels = make_examples()
        without = inputs.copy()
        without[:, :, 1] = 0
        always = replace(QUICK, drop_validation=1.0)
        never = replace(QUICK, drop_validation=0.0)
        blind = content(fit(without, labels, never).network)
        assert content(fit(inputs, labels, always).network) == blind
        assert content(fit(inputs, labels, never).network) != blind
        assert content(fit(inputs, labels, QUICK).network) != blind
        assert content(fit(without, labels, QUICK).network) == blind  # weights and order do not depend on what is drawn

    def test_inputs_are_left_as_they_were(self):
        inputs, labels = make_examples()
        before = inputs.copy()
        fit(inputs, labels, QUICK)
        assert np.array_equal(inputs, before)

    def test_the_second_bias_of_an_lstm_is_not_trained(self):
        with pytest.MonkeyPatch.context() as patch:
            exported = []
            patch.setattr(Twin, "export", lambda twin: exported.append(twin))
            fit(*make_examples(), QUICK)
        weights = exported[0].state_dict()
        assert not any(weights[f"lstm.bias_hh_l{layer}"].any() for layer in (0, 1))
        assert all((weights[f"lstm.bias_ih_l{layer}"] % 1).any() for layer in (0, 1))

    @pytest.mark.parametrize("loss", training.LOSSES)
    def test_it_learns_what_carries_over(self, loss):
        recipe = Recipe(loss, epochs=8, batch_size=16, rate=1e-3)
        fitted = fit(*make_examples(96), recipe)
        assert fitted.losses[-1] < 0.5 * fitted.losses[0]
        inputs, labels = make_examples(60, seed=1)
        assert offline_metrics(fitted.network(inputs), labels).accuracy > 0.9

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"inputs": np.zeros((4, 100, 3))}, r"a shape \(n, 300, 3\)"),
            ({"inputs": np.full((4, 300, 3), math.nan)}, "finite numbers"),
            ({"labels": [0, 1]}, "one per example"),
            ({"labels": [0, 1, 2, 3]}, r"integers 0 \(raise\)"),
            ({"labels": [0.0, 1.0, 2.0, 1.0]}, r"integers 0 \(raise\)"),
        ],
    )
    def test_mistakes(self, change, message):
        arguments = {"inputs": np.zeros((4, 300, 3)), "labels": [0, 1, 2, 1], **change}
        with pytest.raises(ValueError, match=message):
            fit(**arguments, recipe=QUICK)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "papers"}, "unknown loss 'papers'. Did you mean 'paper'"),
        ({"drop_validation": 1.5}, "`drop_validation` is 1.5"),
        ({"drop_validation": math.nan}, "`drop_validation` is nan"),
        ({"epochs": 0}, "`epochs` is 0"),
        ({"batch_size": 0}, "`batch_size` is 0"),
        ({"rate": 0.0}, "`rate` is 0.0"),
        ({"seed": -1}, "`seed` is -1"),
    ],
)
def test_mistakes_in_a_recipe(change, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**change)


class TestCandidates:
    RECIPES = (replace(QUICK, epochs=1, seed=1), replace(QUICK, epochs=1, seed=2, loss="paper"))

    @pytest.fixture
    def fits(self, monkeypatch):
        """The recipes that were trained."""
        seen = []

        def counted(inputs, labels, recipe):
            seen.append(recipe)
            return fit(inputs, labels, recipe)

        monkeypatch.setattr(training, "fit", counted)
        return seen

    def test_the_folder_holds_what_was_trained(self, tmp_path, fits):
        told = []
        trained = train_candidates(*make_examples(), self.RECIPES, tmp_path / "new", report=told.append)
        assert tuple(told) == trained
        assert fits == [candidate.recipe for candidate in trained] == list(self.RECIPES)
        for candidate, recipe in zip(trained, self.RECIPES, strict=True):
            expected = content(fit(*make_examples(), recipe).network)
            assert content(Network.from_file(candidate.weights)) == expected
        names = {path.name for path in (tmp_path / "new").iterdir()}
        assert names == {f"candidate-{k}.{kind}" for k in (0, 1) for kind in ("safetensors", "json")}

    def test_what_is_there_is_not_trained_again_wherever_it_lies(self, tmp_path, fits):
        first = train_candidates(*make_examples(), self.RECIPES, tmp_path / "a")
        (tmp_path / "a").rename(tmp_path / "b")
        again = train_candidates(*make_examples(), self.RECIPES, tmp_path / "b")
        assert len(fits) == 2
        assert [candidate.sha256 for candidate in again] == [candidate.sha256 for candidate in first]

    def test_only_what_does_not_match_is_trained_again(self, tmp_path, fits):
        train_candidates(*make_examples(), self.RECIPES, tmp_path)
        changed = (self.RECIPES[0], replace(self.RECIPES[1], seed=7))
        train_candidates(*make_examples(), changed, tmp_path)
        assert fits[2:] == [changed[1]]

    @pytest.mark.parametrize("harm", ["no card", "no weights", "other weights"])
    def test_a_candidate_that_is_not_whole_is_trained_again(self, tmp_path, fits, harm):
        first = train_candidate(*make_examples(), self.RECIPES[0], tmp_path, 0)
        if harm == "no card":
            first.weights.with_suffix(".json").unlink()
        elif harm == "no weights":
            first.weights.unlink()
        else:
            first.weights.write_bytes(first.weights.read_bytes()[:-4] + b"\0\0\0\0")
        assert train_candidate(*make_examples(), self.RECIPES[0], tmp_path, 0) == first
        assert len(fits) == 2

    def test_other_data_other_candidate(self, tmp_path, fits):
        first = train_candidate(*make_examples(), self.RECIPES[0], tmp_path, 0)
        other = train_candidate(*make_examples(seed=5), self.RECIPES[0], tmp_path, 0)
        assert first.sha256 != other.sha256
        assert len(fits) == 2

    def test_metrics_are_of_what_is_held_out_and_measured_anew(self, tmp_path, fits):
        inputs, labels = make_examples(30, seed=8)
        for families in (["text", "images"] * 15, ["text"] * 30):
            held_out = Points(inputs, labels, np.array(families))
            trained = train_candidate(*make_examples(), self.RECIPES[0], tmp_path, 0, held_out)
            assert set(trained.metrics) == {"all", *families}
        expected = offline_metrics(Network.from_file(trained.weights)(inputs), labels)
        assert dict(trained.offline) == pytest.approx(expected.to_json(), rel=1e-5)
        assert [name for name, _ in trained.offline] == list(METRICS)
        assert len(fits) == 1

    def test_the_card_is_json_that_anyone_can_read(self, tmp_path):
        """A family whose labels are all one class has no weighted accuracy."""
        inputs, _ = make_examples(3)
        held_out = Points(inputs, np.ones(3, int), np.array(["text"] * 3))
        trained = train_candidate(*make_examples(), self.RECIPES[0], tmp_path, 0, held_out)
        card = json.loads((tmp_path / "candidate-0.json").read_text(), parse_constant=pytest.fail)
        assert card["metrics"]["text"]["weighted_accuracy"] is None
        assert card["num_examples"] == 24
        assert card["weights_sha256"] == trained.sha256
        assert Recipe(**card["recipe"]) == self.RECIPES[0]
