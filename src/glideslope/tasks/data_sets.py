"""Every data set that a task of the house needs, and what is there of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from glideslope.tasks.data import TINY_SHAKESPEARE, DataFile, data_folder
from glideslope.tasks.detection.sets import COCO, VOC
from glideslope.tasks.glue_files import CORPORA, Corpus
from glideslope.tasks.image_sets import CIFAR100, IMAGENET, STL10, SVHN, TINY_IMAGENET
from glideslope.tasks.omniglot import OMNIGLOT
from glideslope.tasks.small_image_sets import CIFAR10, FASHION_MNIST, MNIST
from glideslope.tasks.text_files import COLA, MOVIE, MRPC, SST2
from glideslope.tasks.treebank import PTB

DATA_SETS = (
    CIFAR10,
    CIFAR100,
    COCO,
    COLA,
    FASHION_MNIST,
    IMAGENET,
    MNIST,
    MOVIE,
    MRPC,
    OMNIGLOT,
    PTB,
    SST2,
    STL10,
    SVHN,
    TINY_IMAGENET,
    TINY_SHAKESPEARE,
    VOC,
)


@dataclass(frozen=True)
class Found:
    """What is there of a data set.

    Args:
        name: of the data set: that of its first form.
        path: where it was looked for; None where no data folder is set.
        is_there: whether that is there, whole.
        obtain: how to get it.
        known: what its checksum, if it has one that is known, says of it where there is no doubt: "as used here" or
            "as published"; empty where there is none.
        layout: the name of the form that is there, where it is another than the first.
        doubt: what is wrong with it, as far as can be seen from outside: parts that are missing, another checksum.
    """

    name: str
    path: Path | None
    is_there: bool
    obtain: str
    known: str = ""
    layout: str = ""
    doubt: str = ""


def look_for_all() -> list[Found]:
    """Look for every data set in the data folder; files with a known checksum are read, about 0.3 s for 100 MB."""
    folder = data_folder()
    corpora = [(_look_for_corpus(corpus, folder), corpus.table) for corpus in CORPORA.values()]
    # Three of them may be there as tables, which stand among the data sets.
    folders = [found for found, table in corpora if found.is_there or not table]
    return sorted([*map(_look_for, DATA_SETS), *folders], key=lambda found: found.name.lower())


def _look_for(file: DataFile) -> Found:
    form = file.present
    path = form.path
    is_there = path is not None and path.exists()
    way = (
        " Or `pip install datasets`, and it is downloaded when a task needs it."
        if file.download and not is_there
        else ""
    )
    known = "as used here" if form.sha256 else "as published" if form.md5 else ""
    layout = "" if form is file else form.name
    found = Found(file.name, path, is_there, form.obtain + way, known, layout)
    if path is None or not found.is_there:
        return found
    if missing := form.missing_parts(path):
        return replace(found, is_there=False, doubt=f"lacks {', '.join(missing)}")
    return replace(found, doubt=form.difference(path))


def _look_for_corpus(corpus: Corpus, folder: Path | None) -> Found:
    path = folder / corpus.folder if folder else None
    found = Found(corpus.folder, path, path is not None and path.exists(), corpus.obtain)
    missing = [name for name in corpus.files if path is None or not (path / name).exists()]
    if found.is_there and missing:
        return replace(found, is_there=False, doubt=f"lacks {', '.join(missing)}")
    return found
