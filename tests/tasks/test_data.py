"""The data folder: the real formats, the cache, the way to the network, and errors that say what to do."""

import gzip
import io
import os
import sys
import textwrap

import numpy as np
import pytest

from glideslope.tasks import small_image_sets
from glideslope.tasks.data import (
    TINY_SHAKESPEARE,
    DataFile,
    DataFormatError,
    MissingDataError,
)
from glideslope.tasks.image_sets import CIFAR100
from glideslope.tasks.small_image_sets import CIFAR10, FASHION_MNIST, MNIST


@pytest.fixture
def folder(folder, monkeypatch):
    """An empty data folder, an empty cache, and no `datasets` package."""
    monkeypatch.setattr("glideslope.tasks.data._hugging_face_is_installed", lambda: False)
    return folder


def grey(seed: int, num_train: int = 6, num_test: int = 4) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        "train_images": generator.integers(0, 256, (num_train, 28, 28), dtype=np.uint8),
        "train_labels": generator.integers(0, 10, num_train, dtype=np.uint8),
        "test_images": generator.integers(0, 256, (num_test, 28, 28), dtype=np.uint8),
        "test_labels": generator.integers(0, 10, num_test, dtype=np.uint8),
    }


def packed(images: np.ndarray) -> np.ndarray:
    """(n, 32, 32, 3) → (3, n, 32, 32): differences along columns and rows of red - green, green, blue - green."""
    red, green, blue = np.moveaxis(images, -1, 0)
    planes = np.stack([red - green, green, blue - green])
    rows = np.diff(planes, axis=2, prepend=np.uint8(0))
    return np.diff(rows, axis=3, prepend=np.uint8(0))


@pytest.mark.parametrize("file", [MNIST, FASHION_MNIST], ids=lambda file: file.name)
def test_grey_images_become_floats_in_the_unit_interval(file, folder):
    raw = grey(0)
    np.savez(folder / file.name, **raw)
    arrays = file.arrays()
    assert arrays["train_inputs"].dtype == np.float32
    assert arrays["train_labels"].dtype == np.int64
    for split in ("train", "test"):
        np.testing.assert_array_equal(np.round(arrays[f"{split}_inputs"][:, 0] * 255), raw[f"{split}_images"])
        np.testing.assert_array_equal(arrays[f"{split}_labels"], raw[f"{split}_labels"])
    assert arrays["train_inputs"].max() <= 1


def test_cifar10_is_unpacked_exactly(folder):
    generator = np.random.default_rng(0)
    images = {
        split: generator.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8) for split, n in (("train", 5), ("test", 3))
    }
    labels = {split: generator.integers(0, 10, len(images[split]), dtype=np.uint8) for split in images}
    np.savez(
        folder / CIFAR10.name,
        **{f"{split}_delta": packed(images[split]) for split in images},
        **{f"{split}_labels": labels[split] for split in images},
        test_index=np.arange(3, dtype=np.uint16),
    )
    arrays = CIFAR10.arrays()
    for split, expected in images.items():
        assert arrays[f"{split}_inputs"].shape == (len(expected), 3, 32, 32)
        unpacked = np.round(arrays[f"{split}_inputs"].transpose(0, 2, 3, 1) * 255)
        np.testing.assert_array_equal(unpacked, expected)
        np.testing.assert_array_equal(arrays[f"{split}_labels"], labels[split])


def test_text_is_read_byte_for_byte(folder):
    with gzip.open(folder / TINY_SHAKESPEARE.name, "wb") as file:
        file.write(b"First Citizen:\n")
    assert TINY_SHAKESPEARE.arrays()["bytes"].tobytes() == b"First Citizen:\n"


def test_a_file_is_decoded_once_and_again_when_it_changes(folder, monkeypatch):
    decoded = []
    read = small_image_sets.archived
    monkeypatch.setattr(small_image_sets, "archived", lambda path: decoded.append(path) or read(path))
    source = folder / MNIST.name
    np.savez(source, **grey(0))
    first, again = MNIST.arrays(), MNIST.arrays()
    assert decoded == [source]
    np.testing.assert_array_equal(first["train_inputs"], again["train_inputs"])
    np.savez(source, **grey(1))
    os.utime(source, ns=(1, 1))
    assert not np.array_equal(first["train_inputs"], MNIST.arrays()["train_inputs"])
    assert decoded == [source, source]


def test_two_files_of_the_same_layout_have_entries_of_their_own(folder):
    for seed, file in enumerate((MNIST, FASHION_MNIST)):
        np.savez(folder / file.name, **grey(seed))
        os.utime(folder / file.name, ns=(1, 1))
    assert not np.array_equal(MNIST.arrays()["test_inputs"], FASHION_MNIST.arrays()["test_inputs"])


class TestMissing:
    def test_no_folder_at_all(self, folder, monkeypatch):
        monkeypatch.delenv("GLIDESLOPE_DATA")
        with pytest.raises(
            MissingDataError, match=r"mnist\.npz needs a data folder, and none is set.*train_images.*--data DIR"
        ):
            MNIST.arrays()

    def test_not_in_the_folder(self, folder):
        with pytest.raises(MissingDataError) as raised:
            CIFAR10.arrays()
        for part in (f"cifar10.npz is not in the data folder {folder}", "GLIDESLOPE_DATA", "pip install datasets"):
            assert part in str(raised.value)

    def test_text_says_where_it_is_from(self, folder):
        with pytest.raises(FileNotFoundError, match=r"github\.com/karpathy/char-rnn"):
            TINY_SHAKESPEARE.arrays()

    def test_nothing_is_left_in_the_cache(self, folder, tmp_path):
        with pytest.raises(MissingDataError):
            MNIST.arrays()
        assert not (tmp_path / "cache").exists()


class TestBad:
    def test_an_array_is_missing(self, folder):
        arrays = grey(0)
        del arrays["test_labels"]
        np.savez(folder / MNIST.name, **arrays)
        with pytest.raises(DataFormatError, match=r"mnist\.npz cannot be read.*test_labels"):
            MNIST.arrays()

    def test_images_and_labels_do_not_match(self, folder):
        np.savez(folder / MNIST.name, **grey(0) | {"train_labels": np.zeros(5, dtype=np.uint8)})
        with pytest.raises(DataFormatError, match="6 train images, but 5 labels"):
            MNIST.arrays()

    def test_a_pickle_is_not_opened(self, folder):
        np.savez(folder / MNIST.name, **grey(0) | {"train_images": np.array([{}], dtype=object)})
        with pytest.raises(DataFormatError, match="allow_pickle=False"):
            MNIST.arrays()

    @pytest.mark.parametrize(
        "contents", [b"", b"not an archive", b"PK\x03\x04 cut short"], ids=["empty", "text", "zip"]
    )
    def test_not_an_archive(self, folder, contents):
        (folder / MNIST.name).write_bytes(contents)
        with pytest.raises(DataFormatError, match=r"mnist\.npz cannot be read"):
            MNIST.arrays()

    def test_one_array_alone(self, folder):
        buffer = io.BytesIO()
        np.save(buffer, np.zeros(3))
        (folder / MNIST.name).write_bytes(buffer.getvalue())
        with pytest.raises(DataFormatError, match="one array"):
            MNIST.arrays()

    @pytest.mark.parametrize("cut", [0.1, 0.5, 0.99])
    def test_cut_short(self, folder, cut):
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **grey(0))
        (folder / MNIST.name).write_bytes(buffer.getvalue()[: int(len(buffer.getvalue()) * cut)])
        with pytest.raises(DataFormatError, match=r"mnist\.npz cannot be read"):
            MNIST.arrays()

    @pytest.mark.parametrize(
        "contents", [b"plain text", gzip.compress(b"To be, or not" * 100)[:-9]], ids=["text", "cut"]
    )
    def test_text_that_is_not_gzip_or_cut_short(self, folder, contents):
        (folder / TINY_SHAKESPEARE.name).write_bytes(contents)
        with pytest.raises(DataFormatError, match=r"tinyshakespeare\.txt\.gz cannot be read.*char-rnn"):
            TINY_SHAKESPEARE.arrays()


class TestDownload:
    """With a stand-in for Hugging Face's `datasets`: rows are dictionaries, images anything NumPy can read."""

    @pytest.fixture
    def hugging_face(self, folder, tmp_path, monkeypatch):
        package = tmp_path / "packages" / "datasets"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(
            textwrap.dedent(
                """
                import numpy as np

                asked = []
                SHAPES = {
                    "ylecun/mnist": ("image", (28, 28)),
                    "zalando-datasets/fashion_mnist": ("image", (28, 28)),
                    "uoft-cs/cifar10": ("img", (32, 32, 3)),
                }

                def load_dataset(repository):
                    asked.append(repository)
                    column, shape = SHAPES[repository]
                    return {
                        split: [{column: np.full(shape, 50 * i, dtype=np.uint8), "label": i} for i in range(count)]
                        for split, count in (("train", 5), ("test", 3))
                    }
                """
            )
        )
        monkeypatch.undo()
        monkeypatch.setenv("GLIDESLOPE_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("GLIDESLOPE_DATA", str(folder))
        monkeypatch.syspath_prepend(str(package.parent))
        monkeypatch.delitem(sys.modules, "datasets", raising=False)
        import datasets

        yield datasets
        sys.modules.pop("datasets", None)

    @pytest.mark.parametrize(
        ("file", "repository", "shape"),
        [
            (MNIST, "ylecun/mnist", (1, 28, 28)),
            (FASHION_MNIST, "zalando-datasets/fashion_mnist", (1, 28, 28)),
            (CIFAR10, "uoft-cs/cifar10", (3, 32, 32)),
        ],
        ids=lambda value: getattr(value, "name", None),
    )
    def test_a_missing_file_is_downloaded_once(self, hugging_face, file, repository, shape):
        for _ in range(2):
            arrays = file.arrays()
            assert arrays["train_inputs"].shape == (5, *shape)
            assert arrays["test_inputs"].shape == (3, *shape)
            np.testing.assert_array_equal(arrays["train_labels"], range(5))
            np.testing.assert_array_equal(arrays["test_inputs"][2], np.full(shape, np.float32(100 / 255)))
        assert hugging_face.asked == [repository]

    def test_a_file_in_the_folder_comes_first(self, hugging_face, folder):
        np.savez(folder / MNIST.name, **grey(0))
        assert len(MNIST.arrays()["train_inputs"]) == 6
        assert hugging_face.asked == []

    def test_without_a_network_the_error_names_the_reason_and_the_way_out(self, hugging_face, monkeypatch):
        def offline(repository):
            raise ConnectionError("no route to host")

        monkeypatch.setattr(hugging_face, "load_dataset", offline)
        with pytest.raises(MissingDataError, match=r"ConnectionError: no route to host.*--data DIR"):
            MNIST.arrays()

    def test_there_is_no_download_for_the_text(self, hugging_face):
        with pytest.raises(MissingDataError, match="char-rnn"):
            TINY_SHAKESPEARE.arrays()
        assert hugging_face.asked == []


class TestWrongContents:
    def test_labels_of_a_class_that_is_none(self, folder):
        raw = grey(0)
        raw["train_labels"][2] = 11
        np.savez(folder / MNIST.name, **raw)
        with pytest.raises(DataFormatError, match=r"train labels go from \d to 11, but there are 10 classes"):
            MNIST.arrays()

    def test_images_of_another_size(self, folder):
        raw = grey(0)
        raw["test_images"] = np.zeros((4, 32, 32), np.uint8)
        np.savez(folder / MNIST.name, **raw)
        with pytest.raises(DataFormatError, match=r"test images are of shape \(1, 32, 32\), and not \(1, 28, 28\)"):
            MNIST.arrays()

    def test_a_truncated_file_is_named_with_both_checksums(self, folder):
        np.savez(folder / MNIST.name, **grey(0))
        whole = (folder / MNIST.name).read_bytes()
        (folder / MNIST.name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(
            DataFormatError, match=f"its sha256 is [0-9a-f]{{64}}, and {MNIST.sha256} that of the one used here"
        ):
            MNIST.arrays()

    def test_a_folder_that_lacks_a_part(self, folder):
        (folder / "cifar-100-binary").mkdir()
        with pytest.raises(MissingDataError, match=r"cifar-100-binary lacks train.bin, test.bin"):
            CIFAR100.arrays()

    def test_a_part_that_changes_is_read_anew(self, folder):
        set_of_two = DataFile(
            "two",
            lambda path: {"sizes": np.array([len((path / name).read_bytes()) for name in "ab"])},
            None,
            "",
            ("a", "b"),
        )
        (folder / "two").mkdir()
        for name in "ab":
            (folder / "two" / name).write_bytes(b"12")
        assert set_of_two.arrays()["sizes"].tolist() == [2, 2]
        (folder / "two" / "b").write_bytes(b"123")
        assert set_of_two.arrays()["sizes"].tolist() == [2, 3]
