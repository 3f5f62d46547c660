"""GLUE from the data folder: eight corpora of sentences and what somebody said of them, as positions of word pieces."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glideslope.tasks.cache import Arrays, cached
from glideslope.tasks.data import FOLDER_VARIABLE, UNREADABLE, DataFormatError, MissingDataError, data_folder
from glideslope.tasks.pretrained import Pretrained

MOST_AT_ONCE = 4096
"""Examples that are cut into word pieces together."""


@dataclass(frozen=True)
class Corpus:
    """One corpus of GLUE, and how its files look.

    Args:
        name: in small letters, "cola".
        title: as GLUE writes it, also the name of its folder.
        sentences: columns of the one or two sentences of an example.
        label: column of what is said of them.
        classes: the labels, in the order of their numbers; none where labels are numbers from 0 to 5.
        header: columns of files that do not name them in a first line; () where they do.
        development: the file whose examples are the test here.
        gaps: True where the published file is known to have rows that end too early; they are left out.
        table: name of one compressed table that may be there in the folder's place; "" where there is none.
    """

    name: str
    title: str
    sentences: tuple[str, ...]
    label: str
    classes: tuple[str, ...]
    header: tuple[str, ...] = ()
    development: str = "dev.tsv"
    gaps: bool = False
    table: str = ""

    @property
    def folder(self) -> str:
        """In the data folder."""
        return f"glue/{self.title}"

    @property
    def files(self) -> tuple[str, str]:
        """In the folder: those of the training and of the development set."""
        return "train.tsv", self.development

    @property
    def obtain(self) -> str:
        """How a user gets it, for error messages."""
        files = f"the folder {self.folder} with train.tsv and {self.development} as GLUE publishes them"
        sentences = ", ".join(["sentence1", "sentence2"][: len(self.sentences)] if self.pairs else ["sentence"])
        table = f", or {self.table}: a gzipped table of tab-separated columns split, label, {sentences}, with a header"
        return f"{self.title} is {files} (gluebenchmark.com){table if self.table else ''}."

    @property
    def pairs(self) -> bool:
        return len(self.sentences) == 2

    def encoded(self, pretrained: Pretrained, length: int) -> dict[str, NDArray[Any]]:
        """All examples, memory-mapped from the cache; cut into word pieces the first time.

        Args:
            pretrained: whose vocabulary.
            length: word pieces per example, those that mark beginning and ends included; the rest is cut off, of the
                longer sentence first.

        Returns:
            "train_inputs" (n, length) int64, padded; "train_labels" (n,): classes int64, or numbers float32; and
            "test_…" of the published development set, as labels of the test set are not public.

        Raises:
            MissingDataError: neither the folder nor the table is there.
            DataFormatError: they are something else.
        """
        files = self._files()
        stats = [(path.resolve(), path.stat()) for path in files.values()]
        facts = [f"{path} {status.st_size} {status.st_mtime_ns}" for path, status in stats]
        identity = sha256("\n".join([*facts, pretrained.vocabulary_sha256, str(length)]).encode()).hexdigest()
        return cached(f"glue-{self.name}-{identity[:16]}", lambda: self._encode(files, pretrained, length))

    def _files(self) -> dict[str, Path]:
        """By part; "" the table of all."""
        root = data_folder()
        way_out = f"{self.obtain} Name the data folder with --data DIR or the environment variable {FOLDER_VARIABLE}."
        if root is None:
            raise MissingDataError(f"GLUE needs a data folder, and none is set. {way_out}")
        if self.table and (root / self.table).exists():
            return {"": root / self.table}
        folder = root / self.folder
        parts = {part: folder / name for part, name in zip(("train", "test"), self.files, strict=True)}
        missing = [path.name for path in parts.values() if not path.exists()]
        if missing:
            lacks = f"{folder} lacks {' and '.join(missing)}" if folder.exists() else f"there is no folder {folder}"
            raise MissingDataError(f"{lacks}. {way_out}")
        return parts

    def _encode(self, files: Mapping[str, Path], pretrained: Pretrained, length: int) -> Arrays:
        arrays: dict[str, NDArray[Any]] = {}
        for part, (sentences, labels) in self._parts(files).items():
            pieces = [
                pretrained.word_pieces([side[start : start + MOST_AT_ONCE] for side in sentences], length)
                for start in range(0, len(labels), MOST_AT_ONCE)
            ]
            arrays[f"{part}_inputs"] = np.concatenate(pieces)
            arrays[f"{part}_labels"] = np.array(labels, dtype=np.int64 if self.classes else np.float32)
        return arrays

    def _parts(self, files: Mapping[str, Path]) -> dict[str, tuple[list[list[str]], list[float]]]:
        """Part → first (and second) sentences, and labels, each with one entry per example."""
        if "" in files:
            path = files[""]
            columns = ("sentence1", "sentence2") if self.pairs else ("sentence",)
            rows = self._cells(path, ("split", *columns, "label"), ())
            named = {"train": "train", "test": "dev"}
            by_part = {part: [row[1:] for row in rows if row[0] == split] for part, split in named.items()}
            places = dict.fromkeys(by_part, path)
        else:
            by_part = {
                part: self._cells(path, (*self.sentences, self.label), self.header) for part, path in files.items()
            }
            places = dict(files)
        empty = [part for part, rows in by_part.items() if not rows]
        if empty:
            raise DataFormatError(f"{places[empty[0]]} has no examples. {self.obtain}")
        return {
            part: (
                [[row[side] for row in rows] for side in range(len(self.sentences))],
                [self._number(row[-1], places[part]) for row in rows],
            )
            for part, rows in by_part.items()
        }

    def _cells(self, path: Path, columns: Sequence[str], header: Sequence[str]) -> list[list[str]]:
        """The columns of every row. Quotation marks are words like others, as GLUE has it."""
        # Not `splitlines`: sentences hold characters that Unicode counts among the ends of lines.
        lines = [line.rstrip("\r") for line in self._text(path).split("\n")]
        first = 1 if header else 2
        header = header or lines.pop(0).split("\t")
        while lines and not lines[-1]:
            lines.pop()
        missing = [column for column in columns if column not in header]
        if missing:
            found = ", ".join(header)[:200]
            raise DataFormatError(f"{path} lacks the columns {', '.join(missing)}; it has {found!r}. {self.obtain}")
        places = [header.index(column) for column in columns]
        rows = []
        for number, line in enumerate(lines, first):
            cells = line.split("\t")
            if len(cells) > max(places):
                rows.append([cells[place] for place in places])
            elif not self.gaps:
                short = f"it has {len(cells)} of {len(header)} columns"
                raise DataFormatError(f"{path}, line {number}: {short}, so the file may be cut short. {self.obtain}")
        return rows

    def _text(self, path: Path) -> str:
        try:
            data = path.read_bytes()
            # With its mark of byte order: MRPC's files begin with one.
            return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
        except UNREADABLE as error:
            raise DataFormatError(f"{path} cannot be read as {self.title}: {error}. {self.obtain}") from error

    def _number(self, label: str, path: Path) -> float:
        if self.classes:
            # The tables have classes by their numbers.
            known = [str(index) for index in range(len(self.classes))] if path.suffix == ".gz" else self.classes
            if label not in known:
                raise DataFormatError(f"{path} has the label {label!r}, which is none of {', '.join(known)}.")
            return known.index(label)
        try:
            score = float(label)
        except ValueError:
            score = -1.0
        if not 0 <= score <= 5:
            raise DataFormatError(f"{path} has the label {label!r}, which is no number from 0 to 5.")
        return score


_NO_YES = ("0", "1")
_ENTAILMENT = ("entailment", "not_entailment")

CORPORA: Mapping[str, Corpus] = {
    corpus.name: corpus
    for corpus in (
        Corpus(
            "cola",
            "CoLA",
            ("sentence",),
            "label",
            _NO_YES,
            header=("source", "label", "author", "sentence"),
            table="glue_cola.tsv.gz",
        ),
        Corpus(
            "mnli",
            "MNLI",
            ("sentence1", "sentence2"),
            "gold_label",
            ("contradiction", "entailment", "neutral"),
            development="dev_matched.tsv",
        ),
        Corpus("mrpc", "MRPC", ("#1 String", "#2 String"), "Quality", _NO_YES, table="glue_mrpc.tsv.gz"),
        Corpus("qnli", "QNLI", ("question", "sentence"), "label", _ENTAILMENT),
        Corpus("qqp", "QQP", ("question1", "question2"), "is_duplicate", _NO_YES, gaps=True),
        Corpus("rte", "RTE", ("sentence1", "sentence2"), "label", _ENTAILMENT),
        Corpus("sst2", "SST-2", ("sentence",), "label", _NO_YES, table="glue_sst2.tsv.gz"),
        Corpus("stsb", "STS-B", ("sentence1", "sentence2"), "score", ()),
    )
}
"""By name. CoLA's files have no first line of names; the columns' names are ours."""
