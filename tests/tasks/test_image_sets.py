"""The papers' image data sets: read exactly, split without overlap, and errors that name the file and what is wrong."""

import os
import shutil
import sys

import numpy as np
import pytest
import torch
from image_folders import (
    write_cifar100,
    write_imagenet,
    write_jpeg,
    write_stl10,
    write_svhn,
    write_tiny_imagenet,
)
from PIL import Image
from scipy.io import savemat

from glideslope.tasks.columns import ImageFiles, Pixels
from glideslope.tasks.data import DataFormatError, MissingDataError
from glideslope.tasks.image_sets import CIFAR100, IMAGENET, STL10, SVHN, TINY_IMAGENET, image_splits


@pytest.fixture(scope="module")
def whole_imagenet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("imagenet")
    write_imagenet(folder, np.random.default_rng(0))
    return folder


@pytest.fixture
def imagenet(whole_imagenet, folder):
    """Its own copy, of links where the file system has them."""
    shutil.copytree(whole_imagenet, folder, dirs_exist_ok=True, copy_function=os.link)
    return folder / "imagenet"


@pytest.fixture
def generator():
    return np.random.default_rng(0)


class TestContents:
    def test_cifar100_gives_the_fine_label_and_rows_of_planes(self, folder, generator):
        images = generator.integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)
        (folder / CIFAR100.name).mkdir()
        for split in ("train", "test"):
            with (folder / CIFAR100.name / f"{split}.bin").open("wb") as file:
                for coarse, fine, image in zip((1, 2, 3), (99, 0, 50), images, strict=True):
                    file.write(bytes([coarse, fine]) + image.tobytes())
        arrays = CIFAR100.arrays()
        np.testing.assert_array_equal(arrays["test_inputs"], images)
        np.testing.assert_array_equal(arrays["train_labels"], [99, 0, 50])
        assert arrays["train_labels"].dtype == np.int64

    def test_stl10_is_stored_column_by_column(self, folder, generator):
        write_stl10(folder, generator)
        image = np.zeros((3, 96, 96), np.uint8)
        image[0, 10] = 200  # a red line across
        image.transpose(0, 2, 1).tofile(folder / STL10.name / "test_X.bin")
        np.array([10], np.uint8).tofile(folder / STL10.name / "test_y.bin")
        arrays = STL10.arrays()
        np.testing.assert_array_equal(arrays["test_inputs"][0], image)
        assert arrays["test_labels"].tolist() == [9]

    def test_svhn_counts_the_images_last_and_calls_nought_ten(self, folder, generator):
        write_svhn(folder, generator)
        images = generator.integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
        digits = np.array([[10], [7]], np.uint8)
        savemat(folder / SVHN.name / "train_32x32.mat", {"X": images.transpose(2, 3, 1, 0), "y": digits})
        arrays = SVHN.arrays()
        np.testing.assert_array_equal(arrays["train_inputs"], images)
        assert arrays["train_labels"].tolist() == [0, 7]

    def test_tiny_imagenet_gives_every_image_the_label_of_its_class(self, folder, generator):
        write_tiny_imagenet(folder, generator)
        root = folder / TINY_IMAGENET.name
        for label, name in enumerate(sorted((root / "wnids.txt").read_text().split())):
            grey = np.full((64, 64, 3), label, np.uint8)
            write_jpeg(root / "train" / name / "images" / f"{name}_0.JPEG", grey)
        for line in (root / "val" / "val_annotations.txt").read_text().splitlines():
            name, kind, *_ = line.split("\t")
            grey = np.full((64, 64, 3), int(kind[1:]) - 1000, np.uint8)
            write_jpeg(root / "val" / "images" / name, grey)
        arrays = TINY_IMAGENET.arrays()
        for split, count in (("train", 200), ("test", 20)):
            images, labels = arrays[f"{split}_inputs"], arrays[f"{split}_labels"]
            assert images.shape == (count, 3, 64, 64)
            np.testing.assert_allclose(images.mean((1, 2, 3)), labels, atol=2)  # a JPEG rounds
        assert np.abs(np.diff(arrays["train_labels"])).mean() > 20, "the classes are still in order"

    def test_grey_images_become_three_equal_planes(self, folder, generator):
        write_tiny_imagenet(folder, generator)
        Image.new("L", (64, 64), 77).save(folder / TINY_IMAGENET.name / "val" / "images" / "val_0.JPEG", "JPEG")
        assert set(np.unique(TINY_IMAGENET.arrays()["test_inputs"][0])) == {77}

    def test_imagenet_is_listed_with_labels_and_proportions(self, imagenet):
        arrays = IMAGENET.arrays()
        classes = sorted(entry.name for entry in (imagenet / "train").iterdir())
        for split in ("train", "test"):
            names, labels = arrays[f"{split}_names"], arrays[f"{split}_labels"]
            assert sorted(labels.tolist()) == list(range(1000))
            assert all(name.split("/")[1] == classes[label] for name, label in zip(names, labels, strict=True))
            with Image.open(imagenet / str(names[7])) as image:
                assert arrays[f"{split}_proportions"][7] == pytest.approx(image.width / image.height, rel=1e-6)
        assert np.abs(np.diff(arrays["train_labels"])).mean() > 200, "the classes are still in order"


class TestSplits:
    def test_a_tenth_of_few_images_is_held_out_and_bytes_stay_bytes(self, folder, generator):
        write_cifar100(folder, generator)
        arrays, splits = CIFAR100.arrays(), image_splits(CIFAR100)
        assert [len(labels) for _, labels in (splits.train, splits.validation, splits.test)] == [54, 6, 20]
        assert all(isinstance(images, Pixels) for images, _ in (splits.train, splits.validation, splits.test))
        np.testing.assert_array_equal(splits.validation[1], arrays["train_labels"][54:])
        expected = torch.from_numpy(arrays["train_inputs"][54:] / np.float32(255))
        assert torch.equal(splits.validation[0][:], expected)

    def test_five_thousand_of_many(self, folder):
        (folder / CIFAR100.name).mkdir()
        for split, count in (("train", 50_200), ("test", 10)):
            np.zeros((count, 3074), np.uint8).tofile(folder / CIFAR100.name / f"{split}.bin")
        splits = image_splits(CIFAR100)
        assert [len(splits.train[0]), len(splits.validation[0]), len(splits.test[0])] == [45_200, 5_000, 10]


class TestBad:
    @pytest.mark.parametrize(
        ("file", "hint"),
        [
            (CIFAR100, "CIFAR-100 binary version"),
            (STL10, "Stanford"),
            (SVHN, "Cropped Digits"),
            (TINY_IMAGENET, "CS231n"),
            (IMAGENET, r"image-net\.org"),
        ],
        ids=lambda value: getattr(value, "name", ""),
    )
    def test_missing(self, file, hint, folder):
        with pytest.raises(MissingDataError, match=rf"{file.name} is not in the data folder.*{hint}.*--data DIR"):
            file.arrays()

    def test_a_part_is_missing(self, folder, generator):
        write_stl10(folder, generator)
        (folder / STL10.name / "test_y.bin").unlink()
        with pytest.raises(MissingDataError, match=r"stl10_binary lacks test_y\.bin\. It is the folder"):
            STL10.arrays()

    @pytest.mark.parametrize("kept", [0, 5000])
    def test_cifar100_is_cut_short(self, kept, folder, generator):
        write_cifar100(folder, generator)
        os.truncate(folder / CIFAR100.name / "train.bin", kept)
        with pytest.raises(DataFormatError, match=rf"train\.bin has {kept:,} bytes, and not a multiple of 3,074.*cut"):
            CIFAR100.arrays()

    def test_a_label_of_no_class(self, folder, generator):
        write_cifar100(folder, generator)
        with (folder / CIFAR100.name / "test.bin").open("r+b") as file:
            file.seek(3074 + 1)
            file.write(bytes([100]))
        with pytest.raises(
            DataFormatError, match=r"test\.bin holds the label 100, but labels of 100 classes are 0 … 99"
        ):
            CIFAR100.arrays()

    def test_stl10_labels_count_from_one(self, folder, generator):
        write_stl10(folder, generator)
        np.zeros(60, np.uint8).tofile(folder / STL10.name / "train_y.bin")
        with pytest.raises(
            DataFormatError, match=r"train_y\.bin holds the label 0, but labels of 10 classes are 1 … 10"
        ):
            STL10.arrays()

    def test_stl10_images_and_labels_do_not_match(self, folder, generator):
        write_stl10(folder, generator)
        os.truncate(folder / STL10.name / "train_y.bin", 59)
        with pytest.raises(DataFormatError, match=r"train_X\.bin has 60 images, but train_y\.bin 59 labels"):
            STL10.arrays()

    @pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.99])
    def test_svhn_is_cut_short(self, share, folder, generator):
        write_svhn(folder, generator)
        path = folder / SVHN.name / "test_32x32.mat"
        os.truncate(path, int(share * path.stat().st_size))
        with pytest.raises(DataFormatError, match=r"svhn cannot be read.*test_32x32\.mat .*It is a folder with"):
            SVHN.arrays()

    def test_svhn_is_another_file_of_matlab(self, folder, generator):
        write_svhn(folder, generator)
        savemat(folder / SVHN.name / "test_32x32.mat", {"digitStruct": np.zeros(3)})
        with pytest.raises(DataFormatError, match=r"test_32x32\.mat has no variable X and no y"):
            SVHN.arrays()

    def test_svhn_of_the_wrong_size(self, folder, generator):
        write_svhn(folder, generator)
        savemat(folder / SVHN.name / "test_32x32.mat", {"X": np.zeros((28, 28, 3, 2), np.uint8), "y": np.ones((2, 1))})
        with pytest.raises(DataFormatError, match=r"X of shape \(28, 28, 3, 2\).*must be \(32, 32, 3, labels\)"):
            SVHN.arrays()

    def test_scipy_is_missing(self, folder, generator, monkeypatch):
        write_svhn(folder, generator)
        monkeypatch.setitem(sys.modules, "scipy.io", None)
        with pytest.raises(ImportError, match=r'train_32x32\.mat .*SciPy reads: pip install "glideslope\[studies\]"'):
            SVHN.arrays()

    def test_tiny_imagenet_of_other_classes(self, folder, generator):
        write_tiny_imagenet(folder, generator)
        file = folder / TINY_IMAGENET.name / "wnids.txt"
        file.write_text("\n".join(file.read_text().split()[:199]))
        with pytest.raises(DataFormatError, match=r"wnids\.txt lists 199 classes, and not 200"):
            TINY_IMAGENET.arrays()

    def test_tiny_imagenet_lacks_the_images_of_a_class(self, folder, generator):
        write_tiny_imagenet(folder, generator)
        shutil.rmtree(folder / TINY_IMAGENET.name / "train" / "n00001007")
        with pytest.raises(DataFormatError, match=r"n00001007/images holds no image \(\.JPEG\)"):
            TINY_IMAGENET.arrays()

    def test_tiny_imagenet_of_the_wrong_size(self, folder, generator):
        write_tiny_imagenet(folder, generator)
        write_jpeg(folder / TINY_IMAGENET.name / "val" / "images" / "val_3.JPEG", np.zeros((32, 64, 3), np.uint8))
        with pytest.raises(DataFormatError, match=r"val/images/val_3\.JPEG has 64 x 32 pixels, and not 64 x 64"):
            TINY_IMAGENET.arrays()

    @pytest.mark.parametrize("kept", [None, 3, 900])
    def test_an_image_is_gone_or_damaged(self, kept, folder, generator):
        write_tiny_imagenet(folder, generator)
        image = folder / TINY_IMAGENET.name / "val" / "images" / "val_5.JPEG"
        image.unlink() if kept is None else os.truncate(image, kept)
        with pytest.raises(
            DataFormatError, match=r"val/images/val_5\.JPEG cannot be read.*It is the folder of tiny-image"
        ):
            TINY_IMAGENET.arrays()

    @pytest.mark.parametrize("kept", [None, 3, 900])
    def test_so_is_one_that_is_read_when_it_is_asked_for(self, kept, tmp_path):
        image = tmp_path / "one.JPEG"
        write_jpeg(image, np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8))
        column = ImageFiles(tmp_path, [image.name], 64)
        image.unlink() if kept is None else os.truncate(image, kept)
        with pytest.raises(DataFormatError, match=r"one\.JPEG cannot be read as an image"):
            column[:]

    @pytest.mark.parametrize("line", ["val_1.JPEG\tn99999999\t0\t0\t1\t1", "val_1.JPEG"])
    def test_an_annotation_names_no_class(self, line, folder, generator):
        write_tiny_imagenet(folder, generator)
        (folder / TINY_IMAGENET.name / "val" / "val_annotations.txt").write_text(line)
        with pytest.raises(DataFormatError, match=r"val_annotations\.txt says 'val_1\.JPEG.* is not in wnids\.txt"):
            TINY_IMAGENET.arrays()

    def test_pillow_is_missing(self, folder, generator, monkeypatch):
        write_tiny_imagenet(folder, generator)
        monkeypatch.setitem(sys.modules, "PIL", None)
        with pytest.raises(ImportError, match=r'\.JPEG is an image file.*Pillow.*pip install "glideslope\[images\]"'):
            TINY_IMAGENET.arrays()

    def test_imagenet_of_other_classes(self, imagenet):
        shutil.rmtree(imagenet / "train" / "n00002005")
        with pytest.raises(
            DataFormatError, match=r"train holds 999 folders, one for each class, and not 1,000.*image-net\.org"
        ):
            IMAGENET.arrays()

    def test_imagenets_images_for_validation_are_not_sorted_into_folders(self, imagenet):
        shutil.rmtree(imagenet / "val")
        (imagenet / "val").mkdir()
        write_jpeg(imagenet / "val" / "ILSVRC2012_val_00000001.JPEG", np.zeros((20, 20, 3), np.uint8))
        with pytest.raises(DataFormatError, match=r"val holds 0 folders, one for each class.*valprep\.sh"):
            IMAGENET.arrays()

    def test_imagenets_classes_are_others_for_validation(self, imagenet):
        (imagenet / "val" / "n00002005").rename(imagenet / "val" / "n99999999")
        with pytest.raises(DataFormatError, match="val has a folder n99999999, and train has none"):
            IMAGENET.arrays()

    def test_an_image_of_imagenet_is_none(self, imagenet):
        image = next((imagenet / "val" / "n00002005").iterdir())
        image.unlink()
        image.write_text("<html>not found</html>")
        with pytest.raises(DataFormatError, match=rf"val/n00002005/{image.name} cannot be read as an image"):
            IMAGENET.arrays()
