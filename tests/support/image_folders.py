"""Image data sets in the formats they are given out in, with few images of random contents."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

SIZES = {"train": 60, "test": 20}
CIFAR10 = "cifar10.npz"


def write_cifar10(folder: Path, generator: np.random.Generator) -> None:
    deltas = {f"{split}_delta": _bytes(generator, 3, n, 32, 32) for split, n in SIZES.items()}
    labels = {f"{split}_labels": _labels(generator, 10, n) for split, n in SIZES.items()}
    np.savez(folder / CIFAR10, **deltas, **labels)


def write_cifar100(folder: Path, generator: np.random.Generator) -> None:
    into = folder / "cifar-100-binary"
    into.mkdir()
    for split, n in SIZES.items():
        coarse, fine = _labels(generator, 20, n), _labels(generator, 100, n)
        np.column_stack([coarse, fine, _bytes(generator, n, 3072)]).tofile(into / f"{split}.bin")


def write_stl10(folder: Path, generator: np.random.Generator) -> None:
    into = folder / "stl10_binary"
    into.mkdir()
    for split, n in SIZES.items():
        _bytes(generator, n, 3, 96, 96).tofile(into / f"{split}_X.bin")
        (1 + _labels(generator, 10, n)).tofile(into / f"{split}_y.bin")


def write_svhn(folder: Path, generator: np.random.Generator) -> None:
    into = folder / "svhn"
    into.mkdir()
    for split, n in SIZES.items():
        digits = {"X": _bytes(generator, 32, 32, 3, n), "y": 1 + _labels(generator, 10, n)[:, None]}
        savemat(into / f"{split}_32x32.mat", digits, do_compression=True)


def write_tiny_imagenet(folder: Path, generator: np.random.Generator) -> None:
    into = folder / "tiny-imagenet-200"
    classes = [f"n{1000 + index:08}" for index in range(200)]
    images = into / "val" / "images"
    images.mkdir(parents=True)
    (into / "wnids.txt").write_text("\n".join(generator.permutation(classes)) + "\n")
    for name in classes:
        of_class = into / "train" / name / "images"
        of_class.mkdir(parents=True)
        write_jpeg(of_class / f"{name}_0.JPEG", _bytes(generator, 64, 64, 3))
    with (into / "val" / "val_annotations.txt").open("w") as file:
        for index in range(SIZES["test"]):
            write_jpeg(images / f"val_{index}.JPEG", _bytes(generator, 64, 64, 3))
            file.write(f"val_{index}.JPEG\t{generator.choice(classes)}\t0\t0\t62\t62\n")


def write_imagenet(folder: Path, generator: np.random.Generator) -> None:
    """An image for every class, for training and for validation, of many proportions."""
    for index in range(1000):
        for split, end in (("train", f"_{index}"), ("val", "")):
            of_class = folder / "imagenet" / split / f"n{2000 + index:08}"
            of_class.mkdir(parents=True)
            height, width = generator.integers(12, 40, 2)
            name = f"{of_class.name}{end}.JPEG" if end else f"ILSVRC2012_val_{index:08}.JPEG"
            write_jpeg(of_class / name, _bytes(generator, height, width, 3))


def pickled_by_python_2(entries: dict[str, np.ndarray | list[int]]) -> bytes:
    """A dictionary as Python 2 pickled it (protocol 2), bytes for text and NumPy where it then was."""

    def text(value: str) -> bytes:
        return b"U" + bytes([len(value)]) + value.encode()

    def number(value: int) -> bytes:
        return b"J" + value.to_bytes(4, "little", signed=True)

    def array(values: np.ndarray) -> bytes:
        head = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        kind = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN" + 2 * number(-1) + b"K\x00tb"
        shape = b"".join(map(number, values.shape)) + b"\x86"
        contents = values.tobytes()
        return head + b"(K\x01" + shape + kind + b"\x89T" + len(contents).to_bytes(4, "little") + contents + b"tb"

    def value(entry: np.ndarray | list[int]) -> bytes:
        return b"](" + b"".join(map(number, entry)) + b"e" if isinstance(entry, list) else array(entry)

    return b"\x80\x02}(" + b"".join(text(name) + value(entry) for name, entry in entries.items()) + b"u."


def idx_bytes(values: np.ndarray) -> bytes:
    """Bytes of any shape in the format of MNIST's authors."""
    return bytes((0, 0, 8, values.ndim)) + np.array(values.shape, ">u4").tobytes() + values.tobytes()


def write_jpeg(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(path, "JPEG", quality=95)


WRITERS: tuple[Callable[[Path, np.random.Generator], None], ...] = (
    write_cifar10,
    write_cifar100,
    write_stl10,
    write_svhn,
    write_tiny_imagenet,
    write_imagenet,
)


def write_all(folder: Path) -> None:
    """Everything that the tasks of image classification ask for."""
    for write in WRITERS:
        write(folder, np.random.default_rng(0))


def _bytes(generator: np.random.Generator, *shape: int) -> np.ndarray:
    return generator.integers(0, 256, shape, dtype=np.uint8)


def _labels(generator: np.random.Generator, num_classes: int, count: int) -> np.ndarray:
    return generator.integers(0, num_classes, count, dtype=np.uint8)
