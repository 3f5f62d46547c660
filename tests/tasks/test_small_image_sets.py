"""MNIST, Fashion-MNIST and CIFAR in every form they are given out in: the same arrays, and nothing is run."""

import gzip
import os
import pickle

import numpy as np
import pytest
from image_folders import idx_bytes, pickled_by_python_2

from glideslope.tasks.data import DataFormatError, MissingDataError, OtherDataWarning
from glideslope.tasks.data_sets import look_for_all
from glideslope.tasks.image_sets import CIFAR100
from glideslope.tasks.small_image_sets import CIFAR10, FASHION_MNIST, MNIST

SIZES = {"train": 10, "test": 4}
TRAIN_BATCHES = [f"data_batch_{number}" for number in range(1, 6)]


@pytest.fixture
def colour():
    """By split: images (n, 3, 32, 32) and labels (n,), bytes."""
    generator = np.random.default_rng(0)
    return {
        split: (generator.integers(0, 256, (n, 3, 32, 32), np.uint8), generator.integers(0, 10, n, np.uint8))
        for split, n in SIZES.items()
    }


@pytest.fixture
def grey():
    generator = np.random.default_rng(0)
    return {
        split: (generator.integers(0, 256, (n, 28, 28), np.uint8), generator.integers(0, 10, n, np.uint8))
        for split, n in SIZES.items()
    }


def batches(colour):
    """Name → images and labels: the training set in five batches."""
    images, labels = colour["train"]
    return dict(
        zip(
            [*TRAIN_BATCHES, "test_batch"],
            [*zip(np.split(images, 5), np.split(labels, 5), strict=True), colour["test"]],
            strict=True,
        )
    )


def write_python_version(folder, colour):
    into = folder / "cifar-10-batches-py"
    into.mkdir()
    for name, (images, labels) in batches(colour).items():
        (into / name).write_bytes(pickled_by_python_2({"data": images.reshape(-1, 3072), "labels": labels.tolist()}))
    return into


def write_binary_version(folder, colour):
    into = folder / "cifar-10-batches-bin"
    into.mkdir()
    for name, (images, labels) in batches(colour).items():
        np.column_stack([labels, images.reshape(-1, 3072)]).tofile(into / f"{name}.bin")
    return into


def write_idx(into, grey, ending):
    into.mkdir(parents=True)
    for split, name in (("train", "train"), ("test", "t10k")):
        for values, kind in zip(grey[split], ("images-idx3", "labels-idx1"), strict=True):
            contents = idx_bytes(values)
            (into / f"{name}-{kind}-ubyte{ending}").write_bytes(gzip.compress(contents) if ending else contents)


def assert_holds(arrays, expected):
    for split, (images, labels) in expected.items():
        found = arrays[f"{split}_inputs"]
        assert (found.dtype, arrays[f"{split}_labels"].dtype) == (np.float32, np.int64)
        np.testing.assert_array_equal(np.round(found * 255), images.reshape(found.shape))
        np.testing.assert_array_equal(arrays[f"{split}_labels"], labels)


class TestForms:
    @pytest.mark.parametrize("write", [write_python_version, write_binary_version])
    def test_cifar10_as_its_author_gives_it_out(self, write, folder, colour):
        write(folder, colour)
        arrays = CIFAR10.arrays()
        assert arrays["train_inputs"].shape == (10, 3, 32, 32)
        assert_holds(arrays, colour)

    @pytest.mark.parametrize("ending", ["", ".gz"])
    @pytest.mark.parametrize(
        ("file", "name"), [(MNIST, "MNIST"), (FASHION_MNIST, "FashionMNIST")], ids=["MNIST", "Fashion-MNIST"]
    )
    def test_idx_files_where_torchvision_puts_them(self, file, name, ending, folder, grey):
        write_idx(folder / name / "raw", grey, ending)
        arrays = file.arrays()
        assert arrays["test_inputs"].shape == (4, 1, 28, 28)
        assert_holds(arrays, grey)

    def test_cifar100_of_python_gives_the_fine_labels(self, folder, colour):
        into = folder / "cifar-100-python"
        into.mkdir()
        for split, (images, labels) in colour.items():
            entries = {
                "data": images.reshape(-1, 3072),
                "coarse_labels": [1] * len(labels),
                "fine_labels": [99 - int(label) for label in labels],
            }
            (into / split).write_bytes(pickled_by_python_2(entries))
        arrays = CIFAR100.arrays()
        for split, (images, labels) in colour.items():
            np.testing.assert_array_equal(arrays[f"{split}_inputs"], images)
            np.testing.assert_array_equal(arrays[f"{split}_labels"], 99 - labels.astype(int))

    def test_what_python_3_pickled_is_read_too(self, folder, colour):
        into = write_python_version(folder, colour)
        for name, (images, labels) in batches(colour).items():
            entries = {b"data": images.reshape(-1, 3072), b"labels": labels.tolist()}
            (into / name).write_bytes(pickle.dumps(entries, protocol=3))
        assert_holds(CIFAR10.arrays(), colour)

    def test_a_whole_layout_comes_before_one_that_lacks_a_part(self, folder, colour):
        (write_python_version(folder, colour) / "data_batch_3").unlink()
        with pytest.raises(MissingDataError, match=r"cifar-10-batches-py lacks data_batch_3\. .*python version"):
            CIFAR10.arrays()
        write_binary_version(folder, colour)
        assert_holds(CIFAR10.arrays(), colour)

    def test_what_is_missing_is_told_with_every_form_of_it(self, folder):
        with pytest.raises(
            MissingDataError, match=r"cifar10\.npz is not in.*cifar-10-batches-py or cifar-10-batches-bin"
        ):
            CIFAR10.arrays()
        with pytest.raises(MissingDataError, match=r"mnist\.npz is not in.*MNIST/raw"):
            MNIST.arrays()


class TestBad:
    @pytest.mark.parametrize("kept", [0, 1, 50, 120, 3000, -2])
    def test_a_batch_that_is_cut_short(self, kept, folder, colour):
        file = write_python_version(folder, colour) / "data_batch_4"
        file.write_bytes(file.read_bytes()[:kept])
        with pytest.raises(
            DataFormatError, match=r"data_batch_4 is cut short.*md5 of data_batch_1 is [0-9a-f]{32}, and c99c"
        ):
            CIFAR10.arrays()

    def test_a_pickle_runs_nothing(self, folder, colour, tmp_path):
        file = write_python_version(folder, colour) / "test_batch"
        file.write_bytes(pickle.dumps({b"data": _Touches(tmp_path / "touched"), b"labels": []}))
        with pytest.raises(DataFormatError, match=r"test_batch .*it asks for \S+\.mkdir"):
            CIFAR10.arrays()
        assert not (tmp_path / "touched").exists()

    def test_other_pickles(self, folder, colour):
        file = write_python_version(folder, colour) / "data_batch_1"
        for entries, said in (
            ({"labels": [1]}, "KeyError: b'data'"),
            ({"data": np.zeros((1, 100), np.uint8), "labels": [1]}, "cannot reshape"),
            ({"data": np.zeros((1, 3072), np.uint8), "labels": [1, 2]}, "1 images, but 2 labels"),
            ({"data": np.zeros((2, 3072), np.uint8), "labels": [1]}, "2 images, but 1 labels"),
        ):
            file.write_bytes(pickled_by_python_2(entries))
            with pytest.raises(DataFormatError, match=said):
                CIFAR10.arrays()

    @pytest.mark.parametrize(
        "data",
        [np.full((1, 3072), 300), np.zeros((1, 3072), [("a", object)]), np.zeros((3072, 2), np.uint8).T, b"0" * 3072],
    )
    def test_only_bytes_row_by_row_are_taken_for_images(self, data, folder, colour):
        file = write_python_version(folder, colour) / "data_batch_1"
        file.write_bytes(pickle.dumps({b"data": data, b"labels": [1]}, protocol=3))
        with pytest.raises(DataFormatError, match="data_batch_1 is cut short, or no pickled images"):
            CIFAR10.arrays()

    def test_binary_records_cut_within_an_image(self, folder, colour):
        file = write_binary_version(folder, colour) / "data_batch_2.bin"
        file.write_bytes(file.read_bytes()[:-7])
        with pytest.raises(DataFormatError, match=r"data_batch_2\.bin has 6,139 bytes, and not a multiple of 3,073"):
            CIFAR10.arrays()

    def test_a_class_that_is_none(self, folder, colour):
        write_binary_version(folder, {**colour, "test": (colour["test"][0], colour["test"][1] + 7)})
        with pytest.raises(DataFormatError, match=r"test labels go from .* but there are 10 classes"):
            CIFAR10.arrays()

    @pytest.mark.parametrize(
        ("contents", "said"),
        [
            (b"", "begins with nothing"),
            (b"PK\x03\x04", "begins with 50 4b 03 04"),
            (bytes((0, 0, 13, 1, 0, 0, 0, 0)), "no IDX file of bytes"),
            (bytes((0, 0, 8, 1, 0, 0, 0, 9, 1, 2)), r"has 2 bytes behind its head, which promises an array of \[9\]"),
            (bytes((0, 0, 8, 3, 0, 0)), "cannot be read"),
            (bytes((0, 0, 8, 0, 1)), "no IDX file of bytes"),
            (idx_bytes(np.zeros((10, 30, 30), np.uint8)), r"train images are of shape \(1, 30, 30\)"),
        ],
    )
    def test_idx_files_that_are_none(self, contents, said, folder, grey):
        write_idx(folder / "MNIST" / "raw", grey, "")
        (folder / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(contents)
        with pytest.raises(DataFormatError, match=said):
            MNIST.arrays()

    def test_gzip_that_is_cut_short(self, folder, grey):
        write_idx(folder / "MNIST" / "raw", grey, ".gz")
        file = folder / "MNIST" / "raw" / "train-labels-idx1-ubyte.gz"
        file.write_bytes(file.read_bytes()[:-9])
        with pytest.raises(DataFormatError, match=r"cannot be read as MNIST/raw.*md5 of train-images-idx3-ubyte\.gz"):
            MNIST.arrays()


class TestChecksums:
    def test_a_known_checksum_is_compared_when_a_set_is_first_read(self, folder, colour):
        write_python_version(folder, colour)
        with pytest.warns(
            OtherDataWarning, match=r"another cifar-10-batches-py than is known: the md5 of data_batch_1"
        ):
            CIFAR10.arrays()

    def test_and_whenever_somebody_asks(self, folder, colour, grey):
        write_python_version(folder, colour)
        write_idx(folder / "MNIST" / "raw", grey, ".gz")
        write_idx(folder / "FashionMNIST" / "raw", grey, "")
        found = {each.name: each for each in look_for_all()}
        assert "c99cafc152244af753f735de768cd75f that of the published one" in found["cifar10.npz"].doubt
        assert (found["mnist.npz"].is_there, found["mnist.npz"].layout) == (True, "MNIST/raw")
        assert found["mnist.npz"].doubt.startswith("the md5 of train-images-idx3-ubyte.gz is ")
        assert (found["fashion_mnist.npz"].known, found["fashion_mnist.npz"].doubt) == ("", "")


class _Touches:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)
