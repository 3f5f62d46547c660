"""Sentences of the data folder as numbers: positions of words or characters in a vocabulary, padded to one length."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glideslope.tasks.cache import Arrays
from glideslope.tasks.data import DataFile

PADDING, UNKNOWN = 0, 1
"""The first two entries of every vocabulary."""
VOCABULARY_SIZE = 2000
"""The most frequent words of the training split, with `PADDING` and `UNKNOWN`."""
NUM_CHARACTERS = 98
"""Printable ASCII from the space on, with `PADDING` and `UNKNOWN` in front."""
WORDS_PER_SENTENCE = 24
CHARACTERS_PER_SENTENCE = 32

NOT_ENTITY = 0
"""The tag of words outside of every entity: the most frequent one."""


def _rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    missing = set(columns) - set(rows[0] if rows else ())
    if missing:
        raise ValueError(f"it lacks the columns {sorted(missing)}")
    return rows


def vocabulary(sentences: Iterable[Sequence[str]]) -> dict[str, int]:
    """The most frequent words → their positions; ties in alphabetical order.

    >>> vocabulary([("a", "film"), ("a", "bore")])
    {'a': 2, 'bore': 3, 'film': 4}
    """
    counts = Counter(word for sentence in sentences for word in sentence)
    ordered = sorted(counts, key=lambda word: (-counts[word], word))[: VOCABULARY_SIZE - 2]
    return {word: position for position, word in enumerate(ordered, start=2)}


def padded(rows: Sequence[Sequence[int]], length: int) -> NDArray[np.int64]:
    """Rows cut or filled up with `PADDING`: (num_rows, length).

    >>> padded([[5, 6, 7], [8]], 2).tolist()
    [[5, 6], [8, 0]]
    """
    found = np.full((len(rows), length), PADDING, dtype=np.int64)
    for index, row in enumerate(rows):
        found[index, : min(len(row), length)] = row[:length]
    return found


def characters(text: str) -> list[int]:
    """Positions of a text's characters.

    >>> characters(" a\\u20ac")
    [2, 67, 1]
    """
    return [ord(one) - 30 if 32 <= ord(one) < 128 else UNKNOWN for one in text]


def _encode(words: Sequence[str], known: dict[str, int]) -> list[int]:
    return [known.get(word, UNKNOWN) for word in words]


def _decode_sst2(path: Path) -> Arrays:
    """ "train_inputs" (n, 24), "train_labels" (n,); the published development set is the test."""
    rows = _rows(path, ("split", "label", "sentence"))
    known = vocabulary(row["sentence"].split() for row in rows if row["split"] == "train")
    return _classified(rows, lambda row: padded([_encode(row["sentence"].split(), known)], WORDS_PER_SENTENCE)[0])


def _decode_mrpc(path: Path) -> Arrays:
    """ "train_inputs" (n, 2, 24): two sentences; the published test set is the test."""
    rows = _rows(path, ("split", "label", "sentence1", "sentence2"))
    train = [row for row in rows if row["split"] == "train"]
    known = vocabulary(row[side].lower().split() for row in train for side in ("sentence1", "sentence2"))

    def pair(row: dict[str, str]) -> NDArray[np.int64]:
        sides = [_encode(row[side].lower().split(), known) for side in ("sentence1", "sentence2")]
        return padded(sides, WORDS_PER_SENTENCE)

    return _classified(rows, pair, test="test")


def _decode_cola(path: Path) -> Arrays:
    """ "train_inputs" (n, 33) characters, and labels; the published development set is the test."""
    rows = _rows(path, ("split", "label", "sentence"))
    return _classified(rows, lambda row: padded([characters(row["sentence"])], CHARACTERS_PER_SENTENCE + 1)[0])


def _classified(
    rows: list[dict[str, str]], encode: Callable[[dict[str, str]], NDArray[np.int64]], test: str = "dev"
) -> Arrays:
    arrays: dict[str, NDArray[np.int64]] = {}
    for name, split in (("train", "train"), ("test", test)):
        mine = [row for row in rows if row["split"] == split]
        if not mine:
            raise ValueError(f"it has no rows of the split {split!r}")
        arrays[f"{name}_inputs"] = np.stack([encode(row) for row in mine])
        arrays[f"{name}_labels"] = np.array([int(row["label"]) for row in mine])
    return arrays


def _decode_tagged(path: Path) -> Arrays:
    """ "words" and "tags", both (n, 24) int64, and "num_tags"; a padded place has the tag -100."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        blocks = [block.split("\n") for block in file.read().split("\n\n") if block.strip()]
    sentences = [[tuple(line.split("\t")) for line in block if line] for block in blocks]
    if any(len(pair) != 2 for sentence in sentences for pair in sentence):
        raise ValueError("it has lines other than tag, tab, word")
    known = vocabulary([word for _, word in sentence] for sentence in sentences)
    tags = sorted({tag for sentence in sentences for tag, _ in sentence if tag != "O"})
    position = {"O": NOT_ENTITY} | {tag: index for index, tag in enumerate(tags, start=1)}
    words = padded([_encode([word for _, word in sentence], known) for sentence in sentences], WORDS_PER_SENTENCE)
    # One higher, so that padding can be told from the tag 0.
    labels = padded([[position[tag] + 1 for tag, _ in sentence] for sentence in sentences], WORDS_PER_SENTENCE)
    return {"words": words, "tags": np.where(labels == 0, -100, labels - 1), "num_tags": np.array(len(position))}


def _table(columns: str) -> str:
    return f"It is a table of tab-separated columns {columns}, with a header and without quoting, compressed with gzip."


SST2 = DataFile(
    "glue_sst2.tsv.gz",
    _decode_sst2,
    None,
    _table("split, label, sentence"),
    sha256="33203dd329571e92d39b833d0613798152ed8eb78608f4ae666da329417222cc",
)
COLA = DataFile(
    "glue_cola.tsv.gz",
    _decode_cola,
    None,
    _table("split, label, sentence"),
    sha256="c3f02823f171adbbb68cbcb74847993aaa600b386522a0d4d45347a11e4a8062",
)
MRPC = DataFile(
    "glue_mrpc.tsv.gz",
    _decode_mrpc,
    None,
    _table("split, label, sentence1, sentence2"),
    sha256="fa7f4cd897ce3b3ef86e96aa21cac33c1673b8cb886a8778ac7608c2537d6373",
)
MOVIE = DataFile(
    "mit_movie_trivia10k13.train.bio.gz",
    _decode_tagged,
    None,
    "It is the file trivia10k13train.bio of the MIT Movie corpus, compressed with gzip.",
    sha256="714a26393d4b3788a6f7f4d3b4213b8d4f554440b69420faa07f455d2c8ac8f9",
)
