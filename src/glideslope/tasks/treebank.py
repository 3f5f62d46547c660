"""Penn Treebank: which word comes next? LSTMs whose state is carried from one batch to the next."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from glideslope.tasks.cache import Arrays
from glideslope.tasks.data import DataFile, DataFormatError
from glideslope.tasks.dropout import dropout_seeds, seeded_dropout
from glideslope.tasks.scores import perplexity
from glideslope.trials.task import Batch, Default, Metric, Noise, Splits, Task, seeded_model

VOCABULARY_SIZE = 10_000
END = "<eos>"
"""Stands for the end of every line."""
PARTS = {"train": "ptb.train.txt", "validation": "ptb.valid.txt", "test": "ptb.test.txt"}

State = tuple[Tensor, Tensor]
"""Of one LSTM: hidden and cell, (batch, units) each."""


def _decode_ptb(path: Path) -> Arrays:
    """ "train", "validation", "test": positions of words in order, (num_words,) int64; frequent words come first."""
    words = {
        part: (path / file).read_text(encoding="utf-8").replace("\n", f" {END} ").split()
        for part, file in PARTS.items()
    }
    counts = Counter(words["train"])
    if len(counts) != VOCABULARY_SIZE:
        raise ValueError(
            f"{PARTS['train']} has {len(counts):,} different words with {END}, and not {VOCABULARY_SIZE:,}"
        )
    known = {word: place for place, word in enumerate(sorted(counts, key=lambda word: (-counts[word], word)))}
    for part, file in PARTS.items():
        strange = [word for word in words[part] if word not in known]
        if strange:
            raise ValueError(f"{file} has the word {strange[0]!r}, which {PARTS['train']} has not")
    return {part: np.array([known[word] for word in text], dtype=np.int64) for part, text in words.items()}


PTB = DataFile(
    "ptb",
    _decode_ptb,
    None,
    f"It is a folder with {', '.join(PARTS.values())} as Mikolov prepared them: a sentence a line, words between "
    f"blanks, {VOCABULARY_SIZE:,} different ones with the end of a line.",
    parts=tuple(PARTS.values()),
)


@final
class WordModel(nn.Module):
    """Embedding, LSTMs, dense layer, dropout before each of the last two kinds; with a state for each stream of text.

    All weights begin uniform in [-0.05, 0.05].

    Args:
        embedding_size: of a word.
        hidden_sizes: units of the LSTMs, from the first to the last.
        dropout: share of what one layer gives the next that is left out; never of what an LSTM gives itself.
        num_streams: texts that are read side by side.
    """

    def __init__(self, embedding_size: int, hidden_sizes: tuple[int, ...], dropout: float, num_streams: int) -> None:
        super().__init__()
        sizes = (embedding_size, *hidden_sizes)
        self.embedding = nn.Embedding(VOCABULARY_SIZE, embedding_size)
        # One by one: cuDNN's dropout between layers of one module draws from a generator of its own.
        self.layers = nn.ModuleList(
            nn.LSTM(size, units, batch_first=True) for size, units in zip(sizes, hidden_sizes, strict=False)
        )
        self.dropout = nn.Dropout(dropout)
        self.readout = nn.Linear(sizes[-1], VOCABULARY_SIZE)
        for weight in self.parameters():
            nn.init.uniform_(weight, -0.05, 0.05)
        # Buffers, so that a checkpoint has them: a trial that goes on knows what it has read.
        for index, units in enumerate(hidden_sizes):
            for kind in ("hidden", "cell"):
                self.register_buffer(f"{kind}_{index}", torch.zeros(num_streams, units))

    def forward(self, words: Tensor, states: list[State] | None = None) -> tuple[Tensor, list[State]]:
        """Logits of the next words, (batch, length, vocabulary), of words, (batch, length); and the states behind.

        Args:
            states: in front of the first word, one for each LSTM; None are zeros.
        """
        values, after = self.embedding(words), []
        for index, layer in enumerate(self.layers):
            before = None if states is None else tuple(state[None] for state in states[index])
            values, (hidden, cell) = layer(self.dropout(values), before)
            after.append((hidden[0], cell[0]))
        return cast(Tensor, self.readout(self.dropout(values))), after

    def carried(self, streams: Tensor) -> list[State]:
        """What has been read of the streams of these numbers, (batch,)."""
        return [(hidden[streams], cell[streams]) for hidden, cell in self._buffers_by_layer()]

    def carry(self, streams: Tensor, states: list[State]) -> None:
        """Keep the states of the streams of these numbers, (batch,), without how they came about."""
        for kept, state in zip(self._buffers_by_layer(), states, strict=True):
            for buffer, values in zip(kept, state, strict=True):
                buffer[streams] = values.detach().to(buffer.dtype)

    def _buffers_by_layer(self) -> list[State]:
        return [
            (self.get_buffer(f"hidden_{index}"), self.get_buffer(f"cell_{index}")) for index in range(len(self.layers))
        ]


def _over_windows(values: Mapping[str, Tensor]) -> float:
    return perplexity(values["loss"])  # windows are of one length, so the mean of their means is that over words


class NextWord(Task):
    """Penn Treebank in windows of words: final classes say how long they are, and give the model.

    An epoch goes through the training text in order, in as many parallel streams as a batch has examples; the state
    behind a window is the one in front of the stream's next window, and no gradient goes back through it. Seeds of the
    order of data have no effect. What is left behind the last whole window is not read.

    An example is (text, first, stream): `text`, (length + length + 1,), is the window before, then the words of this
    one, each of which is the target of the one in front of it; `first` is 1 where a stream begins, else 0. In
    evaluation, and wherever the model is not in training, nothing is carried: the window before is read from a zero
    state first. So results depend on no other example; words are foretold from one to two windows, where reading the
    text in one go would use all of it, which makes perplexities a little higher; and evaluation takes twice the time.
    """

    source: ClassVar[str] = "Penn Treebank (Marcus et al., 1993), as prepared by Mikolov et al. (2010)"
    needs: ClassVar[str | None] = PTB.name
    metric: ClassVar[Metric] = Metric("perplexity", over_split=_over_windows)
    evaluation_batch: ClassVar[int] = 64
    whole_epochs: ClassVar[bool] = True
    length: ClassVar[int]
    defaults: ClassVar[Mapping[str, Default]] = {
        "sgdm": Default(1.0),
        "adam": Default(0.001),
        "adamw": Default(0.001),
    }

    @abstractmethod
    def model(self, seed: int) -> WordModel:
        """See `Task.model`."""

    @final
    def splits(self) -> Splits:
        arrays = PTB.arrays()
        return Splits(
            train=windows(arrays["train"], self.batch_size, self.length),
            validation=windows(arrays["validation"], 1, self.length),
            test=windows(arrays["test"], 1, self.length),
        )

    @final
    def order(self, generator: np.random.Generator, num_samples: int) -> np.ndarray:
        """As `windows` has them: batch after batch, the next window of every stream."""
        return np.arange(num_samples)

    @final
    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        text, first, streams = batch
        reader = cast(WordModel, model)
        with seeded_dropout(noise["dropout"]):
            states = reader.carried(streams) if reader.training else self._behind_context(reader, text)
            logits, after = reader(text[:, self.length : -1], _begun(states, first))
        if reader.training:
            reader.carry(streams, after)
        return self._losses(logits, text).mean()

    @final
    def evaluate(self, model: nn.Module, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """ "loss": mean over the words of each window, nats per word."""
        text, first, _ = batch
        reader = cast(WordModel, model)
        logits, _ = reader(text[:, self.length : -1], _begun(self._behind_context(reader, text), first))
        return {"loss": self._losses(logits, text).mean(dim=-1)}

    @final
    def noise(self, generator: np.random.Generator, batch_size: int) -> dict[str, np.ndarray]:
        """ "dropout": see `dropout_seeds`."""
        return {"dropout": dropout_seeds(generator, batch_size)}

    def _behind_context(self, model: WordModel, text: Tensor) -> list[State]:
        _, states = model(text[:, : self.length])
        return cast(list[State], states)

    def _losses(self, logits: Tensor, text: Tensor) -> Tensor:
        """Nats, (batch, length)."""
        return functional.cross_entropy(logits.transpose(1, 2), text[:, self.length + 1 :], reduction="none")


def _begun(states: list[State], first: Tensor) -> list[State]:
    """Zeros where a stream begins."""
    begins = (first == 1)[:, None]
    return [(hidden.masked_fill(begins, 0.0), cell.masked_fill(begins, 0.0)) for hidden, cell in states]


def windows(words: NDArray[np.int64], num_streams: int, length: int) -> Batch:
    """A text cut into streams, and each of them into windows: (text, first, stream), window by window of all streams.

    Args:
        words: (num_words,).
        num_streams: parts of equal length.
        length: words of a window.

    Returns:
        (n, 2 * length + 1), (n,) and (n,), int64. In front of a stream's first window stand zeros.

    Raises:
        DataFormatError: the text is too short for one window of every stream.

    >>> text, first, stream = windows(np.arange(1, 12), num_streams=2, length=2)
    >>> text.tolist()
    [[0, 0, 1, 2, 3], [0, 0, 6, 7, 8], [1, 2, 3, 4, 5], [6, 7, 8, 9, 10]]
    >>> first.tolist(), stream.tolist()
    ([1, 1, 0, 0], [0, 1, 0, 1])
    """
    per_stream = len(words) // num_streams
    count = (per_stream - 1) // length
    if count < 1:
        least = num_streams * (length + 1)
        short = f"{PTB.name} has a text of {len(words)} words, and {num_streams} windows of {length} need {least}"
        raise DataFormatError(f"{short}: it may be cut short. {PTB.obtain}")
    streams = torch.from_numpy(words[: num_streams * per_stream]).view(num_streams, per_stream)
    cut = functional.pad(streams, (length, 0)).unfold(1, 2 * length + 1, length)[:, :count]
    numbers = torch.arange(num_streams).repeat(count)
    begins = (torch.arange(count) == 0).long().repeat_interleave(num_streams)
    return cut.transpose(0, 1).flatten(0, 1).contiguous(), begins, numbers


@final
@dataclass(frozen=True)
class PTBLSTM(NextWord):
    """The medium LSTM of Zaremba et al. (19.8 million parameters): two layers of 650 units, embedding of 650.

    Batches of 20 windows of 35 words, dropout 1/2, 39 epochs. The paper cuts gradients to a norm of 5; here nothing is
    cut, and the loss is the mean over words.

    Source: Zaremba, Sutskever, Vinyals, "Recurrent Neural Network Regularization", 2014, Section 4.1; among the
        settings of Chen, Wolfe, Kyrillidis, "REX: Revisiting Budgeted Training with an Improved Schedule", MLSys 2022,
        Appendix A. Default rates are not given there; these are ours, and so is evaluation by windows.
    """

    name: ClassVar[str] = "ptb-lstm"
    version: ClassVar[int] = 1
    maximum_epochs: ClassVar[int] = 39
    batch_size: ClassVar[int] = 20
    length: ClassVar[int] = 35

    def model(self, seed: int) -> WordModel:
        return cast(WordModel, seeded_model(seed, lambda: WordModel(650, (650, 650), 0.5, self.batch_size)))


@final
@dataclass(frozen=True)
class PTBLSTMOfARC(NextWord):
    """A smaller LSTM (11.2 million parameters): an embedding of 300, one layer of 600 units, dropout 1/2.

    Batches of 128 windows of 20 words, 98 epochs; with SGD and momentum 0.9, from rates of 1, 0.1 and 0.01.

    Source: Dong et al., "To Raise or Not To Raise: The Autonomous Learning Rate Question", 2021, in the sizes, epochs
        and rates of the authors' code. That the state is carried, where the code reads shuffled windows from zeros, and
        that the embedding has dropout as well, is ours.
    """

    name: ClassVar[str] = "ptb-lstm-arc"
    version: ClassVar[int] = 1
    maximum_epochs: ClassVar[int] = 98
    batch_size: ClassVar[int] = 128
    length: ClassVar[int] = 20
    defaults: ClassVar[Mapping[str, Default]] = {**NextWord.defaults, "sgdm": Default(0.1)}

    def model(self, seed: int) -> WordModel:
        return cast(WordModel, seeded_model(seed, lambda: WordModel(300, (600,), 0.5, self.batch_size)))
