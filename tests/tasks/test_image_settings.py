"""The papers' settings of image classification: sizes as published, recipes, crops, and every task in use."""

import importlib
import inspect
import math

import numpy as np
import pytest
import torch
from image_folders import write_all
from PIL import Image
from smoke import smoke
from torch import nn
from torch.nn import functional

from glideslope.core.estimators import warmup_updates
from glideslope.tasks import crops, residual
from glideslope.tasks.cifar import (
    CIFAR100VGG16,
    CIFAR10ResNet9,
    CIFAR10ResNet18,
    CIFAR10ResNet20,
    CIFAR10ResNet38,
    CIFAR100ResNet38,
)
from glideslope.tasks.columns import ImageFiles
from glideslope.tasks.imagenet import CENTRE, SIDE, ImageNetResNet18, ImageNetResNet50, ImageNetResNet101
from glideslope.tasks.models import cifar_resnet
from glideslope.tasks.stl10 import STL10WRN
from glideslope.tasks.svhn import SVHNWRN28
from glideslope.tasks.tinyimagenet import TinyImageNetResNet56
from glideslope.tasks.vgg import vgg16
from glideslope.trials.lookup import data_sha256
from glideslope.trials.task import Column

# Task → shape of what it sees, classes, most epochs, batch size, parameters.
SETTINGS = {
    CIFAR10ResNet38: ((3, 32, 32), 10, 300, 128, 561_370),
    CIFAR10ResNet18: ((3, 32, 32), 10, 200, 128, 11_173_962),
    CIFAR10ResNet9: ((3, 32, 32), 10, 30, 128, 6_573_130),
    CIFAR100VGG16: ((3, 32, 32), 100, 300, 128, 14_774_436),
    CIFAR100ResNet38: ((3, 32, 32), 100, 300, 128, 567_220),
    STL10WRN: ((3, 96, 96), 10, 200, 64, 10_961_370),
    SVHNWRN28: ((3, 32, 32), 10, 30, 128, 1_467_610),
    TinyImageNetResNet56: ((3, 64, 64), 200, 300, 128, 865_368),
    ImageNetResNet18: ((3, 224, 224), 1000, 90, 256, 11_689_512),
    ImageNetResNet50: ((3, 224, 224), 1000, 90, 256, 25_557_032),
    ImageNetResNet101: ((3, 224, 224), 1000, 90, 2048, 44_549_160),
}
TASKS = [kind() for kind in SETTINGS]
every_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
EXAMPLES = {"stl10-wrn16-8": 2, "imagenet-resnet50": 2, "imagenet-resnet101": 2}
"""Of an update in the smoke test, where four would take long."""


@pytest.fixture(scope="module", autouse=True)
def data_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_all(folder)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("GLIDESLOPE_DATA", str(folder))
        patched.setenv("GLIDESLOPE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def torchvision_module(name):
    """A part of torchvision, where it is installed and loads: one for GPUs does not beside a PyTorch without."""
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"{name}: {error}")


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def draws(task, count, seed=0):
    return {
        name: torch.from_numpy(values) for name, values in task.augmentation(np.random.default_rng(seed), count).items()
    }


class TestTasks:
    @every_task
    def test_recipe_and_size_are_the_published_ones_and_told_in_the_docstring(self, task):
        _, _, epochs, batch, parameters = SETTINGS[type(task)]
        assert (task.maximum_epochs, task.batch_size, size(task.model(0))) == (epochs, batch, parameters)
        assert f"{parameters:,} parameters" in inspect.getdoc(type(task))
        assert task.whole_epochs

    @every_task
    def test_inputs_and_labels_are_those_of_the_setting(self, task):
        shape, classes, *_ = SETTINGS[type(task)]
        splits = task.splits()
        for images, labels in (splits.validation, splits.test):
            assert images[:2].shape == (2, *shape)
            assert images[:2].min() >= 0
            assert images[:2].max() <= 1
            assert labels.min() >= 0
            assert labels.max() < classes
        model = task.model(0).eval()
        with torch.no_grad():
            assert model(splits.test[0][:1]).shape == (1, classes)

    @every_task
    def test_the_images_shown_in_training_have_the_shape_of_those_evaluated(self, task):
        inputs = task.splits().train[0][:5]
        noise = draws(task, 5)
        once, again, other = task.shown(inputs, noise), task.shown(inputs, noise), task.shown(inputs, draws(task, 5, 1))
        assert once.shape == (5, *SETTINGS[type(task)][0])
        assert torch.equal(once, again)
        assert not torch.equal(once, other)

    @every_task
    def test_smoke(self, task):
        numbers = smoke(task, EXAMPLES.get(task.name, 4))
        # A head that is drawn at random guesses: a loss of the order of ln(classes). ResNet-9 reads maxima, and says
        # its guesses twice as loudly.
        assert 0.5 < numbers["loss_before"] / math.log(SETTINGS[type(task)][1]) < 3
        assert 0 <= numbers["error"] <= 100

    def test_all_settings_of_cifar10_share_their_split(self):
        assert len({data_sha256(task) for task in (CIFAR10ResNet20(), CIFAR10ResNet38(), CIFAR10ResNet9())}) == 1

    def test_the_recipe_of_the_tradeoff_curves(self):
        assert ImageNetResNet101.defaults["sgdw"].rate == 2.048
        per_epoch = 623  # of 1,276,167 images, 2,048 at a time
        budgets = [
            round(1.42222 * share * ImageNetResNet101.maximum_epochs * per_epoch) for share in (1 / 8, 1 / 4, 1 / 2, 1)
        ]
        assert budgets == [16 * per_epoch, 32 * per_epoch, 64 * per_epoch, 128 * per_epoch]
        assert warmup_updates(budgets) == 8 * per_epoch

    @pytest.mark.parametrize("width", [0, 21])
    def test_a_width_that_no_network_has(self, width):
        with pytest.raises(ValueError, match=f"`width` is {width}, but must satisfy 1 <= width <= 20"):
            SVHNWRN28(width)

    def test_the_fingerprint_of_imagenet_knows_what_is_cut_out(self):
        splits = ImageNetResNet18().splits()
        assert all(isinstance(images, Column) for images, _ in (splits.train, splits.validation, splits.test))
        assert len({images.sha256 for images, _ in (splits.train, splits.validation, splits.test)}) == 3
        assert splits.test[0].sha256 == ImageNetResNet50().splits().test[0].sha256
        assert len(data_sha256(ImageNetResNet18())) == 64


class TestNetworks:
    @pytest.mark.parametrize(
        ("network", "millions", "places"),
        [
            (lambda: cifar_resnet(20), 0.27, 2),
            (lambda: cifar_resnet(56), 0.85, 2),  # He et al. count 0.85 M
            (lambda: residual.wide_resnet(16, 8), 11.0, 1),
            (lambda: residual.wide_resnet(28, 10), 36.5, 1),
            (lambda: residual.wide_resnet(40, 4), 8.9, 1),
            (lambda: vgg16(10), 14.73, 2),
        ],
        ids=["resnet20", "resnet56", "wrn16-8", "wrn28-10", "wrn40-4", "vgg16"],
    )
    def test_sizes_are_the_published_ones(self, network, millions, places):
        assert round(size(network()) / 1e6, places) == millions

    def test_depths_that_no_network_has(self):
        with pytest.raises(ValueError, match=r"`depth` is 34, but must be one of 18, 50, 101"):
            residual.imagenet_resnet(34)
        with pytest.raises(ValueError, match=r"`depth` is 27, but must be 6 n \+ 4"):
            residual.wide_resnet(27, 2)
        with pytest.raises(ValueError, match=r"`width` is 0, but must satisfy width >= 1"):
            residual.wide_resnet(28, 0)

    def test_where_a_branch_adds_nothing_only_the_shortcut_is_left(self):
        block = residual.basic_block(8, 8, 1)
        nn.init.zeros_(block.branch[-1].weight)
        inputs = torch.randn(2, 8, 6, 6)
        torch.testing.assert_close(block(inputs), functional.relu(inputs))

    def test_a_wide_block_is_linear_in_what_its_shortcut_passes_on(self):
        block = residual.WideBlock(8, 8, 1)
        nn.init.zeros_(block.convolution2.weight)
        inputs = torch.randn(2, 8, 6, 6)
        assert torch.equal(block(inputs), inputs)

    def test_bottlenecks_stride_in_their_middle(self):
        strides = [layer.stride[0] for layer in residual.bottleneck_block(64, 32, 2).branch if hasattr(layer, "stride")]
        assert strides == [1, 2, 1]

    @pytest.mark.parametrize(("depth", "side"), [(18, 224), (50, 96), (101, 64)])
    def test_logits_are_those_of_torchvision(self, depth, side):
        models = torchvision_module("torchvision.models")
        theirs = getattr(models, f"resnet{depth}")()
        self.check_same(residual.imagenet_resnet(depth), theirs, side)

    def test_convolutions_of_vgg_are_those_of_torchvision(self):
        models = torchvision_module("torchvision.models")
        self.check_same(vgg16()[:-2], models.vgg16_bn().features, 32)

    @staticmethod
    def check_same(ours, theirs, side):
        """Weights copied in order; the statistics of the norms are made unlike each other first."""
        torch.manual_seed(0)
        for layer in theirs.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.uniform_(-0.1, 0.1)
                layer.running_var.uniform_(0.5, 1.5)
        names = list(ours.state_dict())
        values = list(theirs.state_dict().values())
        ours.load_state_dict(dict(zip(names, values, strict=True)))
        images = torch.randn(2, 3, side, side)
        with torch.no_grad():
            expected = theirs.eval()(images)
            assert expected.std() > 0
            # Sums over thousands of products in another order: relative to the largest of them.
            torch.testing.assert_close(ours.eval()(images), expected, rtol=1e-5, atol=1e-5 * expected.abs().max())

    def test_convolutions_are_initialised_as_those_of_torchvision(self):
        torch.manual_seed(0)
        convolution = [module for module in residual.imagenet_resnet(18).modules() if isinstance(module, nn.Conv2d)][-1]
        outgoing = convolution.out_channels * convolution.kernel_size[0] ** 2
        assert convolution.weight.std().item() == pytest.approx((2 / outgoing) ** 0.5, rel=0.01)


class TestCrops:
    def test_a_part_that_is_as_large_as_what_is_asked_for_comes_back_pixel_by_pixel(self):
        images = torch.rand(2, 3, 8, 12)
        boxes = torch.tensor([[3 / 12, 2 / 8, 4 / 12, 4 / 8], [0, 0, 4 / 12, 4 / 8]])
        found = crops.cut_out(images, boxes, 4)
        torch.testing.assert_close(found[0], images[0, :, 2:6, 3:7], rtol=0, atol=1e-5)
        torch.testing.assert_close(found[1], images[1, :, :4, :4], rtol=0, atol=1e-5)

    def test_by_hand(self):
        """Two pixels, 0 and 1, as four: the outer ones are those pixels, and the inner ones a quarter of the way."""
        image = torch.tensor([[0.0, 1.0], [0.0, 1.0]])[None, None]
        found = crops.cut_out(image, torch.tensor([[0.0, 0.0, 1.0, 1.0]]), 4)
        torch.testing.assert_close(found[0, 0], torch.tensor([0.0, 0.25, 0.75, 1.0]).expand(4, 4))

    def test_what_lies_beside_a_part_does_not_shine_in(self):
        image = torch.zeros(1, 1, 6, 6)
        image[:, :, 2:4, 2:4] = 1
        found = crops.cut_out(image, torch.tensor([[2 / 6, 2 / 6, 2 / 6, 2 / 6]]), 9)
        torch.testing.assert_close(found, torch.ones(1, 1, 9, 9))

    @pytest.mark.parametrize(("top", "left", "height", "width"), [(0, 0, 40, 60), (7, 11, 20, 33), (30, 0, 10, 60)])
    def test_parts_are_those_of_torchvision(self, top, left, height, width):
        transforms = torchvision_module("torchvision.transforms.functional")
        images = torch.rand(2, 3, 40, 60)
        expected = transforms.resized_crop(images, top, left, height, width, [24, 24], antialias=False)
        box = torch.tensor([[left / 60, top / 40, width / 60, height / 40]]).expand(2, 4)
        torch.testing.assert_close(crops.cut_out(images, box, 24), expected, rtol=0, atol=2e-5)

    @pytest.mark.parametrize("proportion", [0.4, 0.75, 1.0, 1.5, 3.0])
    def test_random_parts_keep_to_their_bounds(self, proportion):
        proportions = np.full(20_000, proportion, np.float32)
        boxes = crops.random_boxes(np.random.default_rng(0), proportions)
        left, top, width, height = boxes.T.astype(np.float64)
        assert boxes.dtype == np.float32
        assert min(left.min(), top.min()) >= 0
        assert max((left + width).max(), (top + height).max()) <= 1 + 1e-6
        area, shape = width * height, width / height * proportion
        assert area.min() >= 0.08 * (1 - 1e-5)
        assert shape.min() >= 3 / 4 * (1 - 1e-5)
        assert shape.max() <= 4 / 3 * (1 + 1e-5)
        # Where there is room, parts lie anywhere.
        roomy = (width < 0.9) & (height < 0.9)
        places = np.stack([left[roomy] / (1 - width[roomy]), top[roomy] / (1 - height[roomy])])
        np.testing.assert_allclose(np.quantile(places, (0.1, 0.5, 0.9), 1).T, [(0.1, 0.5, 0.9)] * 2, atol=0.03)
        assert np.corrcoef(places)[0, 1] == pytest.approx(0, abs=0.05)

    def test_areas_of_a_square_picture_are_even_as_far_as_they_fit(self):
        """At proportions of 1, an area below 3/4 always fits, so areas up to there are as likely as each other."""
        boxes = crops.random_boxes(np.random.default_rng(0), np.ones(50_000, np.float32))
        areas = boxes[:, 2] * boxes[:, 3]
        below = areas[areas < 0.75]
        counts, _ = np.histogram(below, bins=8, range=(0.08, 0.75))
        np.testing.assert_allclose(counts / counts.mean(), 1, atol=0.05)

    def test_what_never_fits_becomes_the_largest_part_in_the_middle(self):
        boxes = crops.random_boxes(np.random.default_rng(0), np.array([1000, 0.001], np.float32))
        wide, high = 4 / 3 / 1000, 1.0
        np.testing.assert_allclose(boxes[0], [(1 - wide) / 2, 0, wide, high], rtol=1e-5)
        np.testing.assert_allclose(boxes[1], [0, (1 - wide) / 2, high, wide], rtol=1e-5)

    def test_random_parts_are_as_large_as_torchvisions(self):
        transforms = torchvision_module("torchvision.transforms")
        torch.manual_seed(0)
        picture = torch.empty(3, 600, 900)
        theirs = np.array(
            [transforms.RandomResizedCrop.get_params(picture, (0.08, 1), (3 / 4, 4 / 3)) for _ in range(20_000)]
        )
        ours = crops.random_boxes(np.random.default_rng(0), np.full(20_000, 1.5, np.float32))
        in_shares = theirs[:, [1, 0, 3, 2]] / np.array([900, 600, 900, 600])
        for share in (0.1, 0.5, 0.9):
            np.testing.assert_allclose(np.quantile(ours, share, 0), np.quantile(in_shares, share, 0), atol=0.015)

    def test_the_middle_of_a_picture_is_square(self):
        boxes = crops.centre_boxes(np.array([1, 2, 0.5], np.float32), 0.875)
        expected = [[0.0625, 0.0625, 0.875, 0.875], [0.28125, 0.0625, 0.4375, 0.875], [0.0625, 0.28125, 0.875, 0.4375]]
        np.testing.assert_allclose(boxes, expected)

    def test_the_middle_is_that_of_a_picture_scaled_to_256_and_cut_to_224(self, tmp_path):
        """A smooth picture, as it comes out of Pillow's own scaling and cutting."""
        across, down = np.meshgrid(np.linspace(0, 3, 500), np.linspace(0, 2, 375))
        picture = np.stack([np.sin(across + down), np.cos(2 * across), np.sin(3 * down)], -1)
        image = Image.fromarray(np.uint8(127.5 + 127 * picture))
        image.save(tmp_path / "smooth.png")
        column = crops.Crops(
            ImageFiles(tmp_path, ["smooth.png"], 320), crops.centre_boxes(np.array([4 / 3], np.float32), CENTRE), SIDE
        )
        scaled = image.resize((341, 256), Image.Resampling.BILINEAR).crop((58, 16, 58 + 224, 16 + 224))
        expected = torch.from_numpy(np.asarray(scaled).copy()).permute(2, 0, 1) / 255
        assert (column[:1][0] - expected).abs().max() < 3 / 255

    def test_rows_of_crops_are_the_same_however_they_are_asked_for(self):
        column = ImageNetResNet18().splits().validation[0]
        assert torch.equal(column[2:5], column[torch.tensor([2, 3, 4])])
        assert torch.equal(column[torch.tensor([4, 2])], torch.cat([column[4:5], column[2:3]]))

    def test_mirrored_images_are_read_from_right_to_left(self):
        images = torch.rand(2, 3, 4, 5)
        found = crops.mirrored(images, torch.tensor([True, False]))
        assert torch.equal(found, torch.stack([images[0].flip(-1), images[1]]))

    def test_one_square_is_covered(self):
        images = torch.ones(2, 3, 9, 9)
        colour = torch.tensor([0.1, 0.2, 0.3])
        found = crops.covered(images, torch.tensor([[0, 1], [5, 5]]), 4, colour)
        expected = images.clone()
        expected[0, :, :4, 1:5] = colour[:, None, None]
        expected[1, :, 5:, 5:] = colour[:, None, None]
        assert torch.equal(found, expected)

    @pytest.mark.parametrize("task", [CIFAR10ResNet9(), SVHNWRN28()], ids=lambda task: task.name)
    def test_the_covered_square_lies_within_the_image(self, task):
        drawn = task.augmentation(np.random.default_rng(0), 2000)["covered"]
        assert drawn.shape == (2000, 2)
        assert (drawn.min(), drawn.max()) == (0, 24)
