"""Text from the data folder: which character comes next?"""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from glideslope.tasks.data import TINY_SHAKESPEARE, DataFormatError
from glideslope.tasks.models import CharacterModel
from glideslope.trials.task import Batch, Default, Labelled, Metric, Noise, Part, Splits, seeded_model

CHARACTERS = "\n !$&',-.3:;?" + string.ascii_uppercase + string.ascii_lowercase
"""The 65 distinct characters of the text. Fixed here, so that the model does not depend on the file."""


class NextCharacter(Labelled):
    """Logits for the next character at every place of a sequence, (batch, length, characters)."""

    metric: ClassVar[Metric] = Metric("loss")
    source: ClassVar[str] = "tinyshakespeare (Karpathy, char-rnn, 2015), public domain"
    needs: ClassVar[str | None] = TINY_SHAKESPEARE.name

    @final
    def criterion(self, logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """See `Labelled.criterion`; logits are (batch, length, characters) and labels (batch, length)."""
        return functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=label_smoothing)

    @final
    def evaluate(self, model: nn.Module, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """ "loss": mean over the characters of each sequence, nats per character."""
        inputs, targets = batch
        losses = functional.cross_entropy(model(inputs).transpose(1, 2), targets, reduction="none")
        return {"loss": losses.mean(dim=-1)}


@final
@dataclass(frozen=True)
class ShakespeareLSTM(NextCharacter):
    """One LSTM between an embedding of 32 and a dense layer (93,409 parameters), character by character.

    The text is cut into sequences that do not overlap, each read from a zero state: the first 90 % to train on, the
    next 5 % to choose rates by, the last 5 % to report on. The loss is in nats per character; its exponential is the
    perplexity.

    Args:
        length: characters per sequence, at least 1.
        hidden_size: units of the LSTM, at least 1.

    Source: text and customary 90 % split from Karpathy, "char-rnn", 2015.
    """

    name: ClassVar[str] = "shakespeare-lstm"
    version: ClassVar[int] = 1
    maximum_epochs: ClassVar[int] = 20
    batch_size: ClassVar[int] = 50
    defaults: ClassVar[Mapping[str, Default]] = {
        "sgdm": Default(1.0),
        "adam": Default(0.01),
        "adamw": Default(0.01),
    }

    length: int = 64
    hidden_size: int = 128

    def __post_init__(self) -> None:
        for name in ("length", "hidden_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}, but must satisfy {name} >= 1.")

    def splits(self) -> Splits:
        return _sequences(self.length)

    def model(self, seed: int) -> nn.Module:
        return seeded_model(seed, lambda: CharacterModel(len(CHARACTERS), 32, self.hidden_size))


@final
@dataclass(frozen=True)
class ShakespeareGRU(NextCharacter):
    """A GRU of 48 units on the first 600 sequences of 32 characters: language modelling in a few seconds.

    Validation and test are the first 300 sequences of those of `ShakespeareLSTM`.

    Source: text from Karpathy, "char-rnn", 2015.
    """

    name: ClassVar[str] = "shakespeare-gru"
    version: ClassVar[int] = 1
    maximum_epochs: ClassVar[int] = 60
    batch_size: ClassVar[int] = 30
    defaults: ClassVar[Mapping[str, Default]] = {
        "sgdm": Default(0.3),
        "adam": Default(0.01),
        "adamw": Default(0.01),
    }

    def splits(self) -> Splits:
        whole = _sequences(length=32)

        def first(part: Part, count: int) -> Batch:
            return tuple(tensor[:count] for tensor in part)

        return Splits(first(whole.train, 600), first(whole.validation, 300), first(whole.test, 300))

    def model(self, seed: int) -> nn.Module:
        return seeded_model(seed, lambda: CharacterModel(len(CHARACTERS), 24, 48, kind=nn.GRU))


def _sequences(length: int) -> Splits:
    """The text in order, cut into sequences: inputs and targets, both (num_sequences, length).

    The target of a character is the next one.
    """
    characters = _encoded(TINY_SHAKESPEARE.arrays()["bytes"])
    ends = [0, len(characters) * 90 // 100, len(characters) * 95 // 100, len(characters)]

    def cut(part: Tensor) -> Batch:
        used = (len(part) - 1) // length * length
        return part[:used].view(-1, length), part[1 : used + 1].view(-1, length)

    train, validation, test = (cut(characters[start:stop]) for start, stop in pairwise(ends))
    return Splits(train=train, validation=validation, test=test)


def _encoded(text: np.ndarray) -> Tensor:
    """Bytes of the text → positions in `CHARACTERS`, (num_characters,) int64."""
    unknown = len(CHARACTERS)
    table = np.full(256, unknown, dtype=np.int64)
    table[np.frombuffer(CHARACTERS.encode(), dtype=np.uint8)] = np.arange(len(CHARACTERS))
    encoded = table[text]
    if (encoded == unknown).any():
        position = int((encoded == unknown).argmax())
        raise DataFormatError(
            f"{TINY_SHAKESPEARE.name} holds byte {int(text[position])} at position {position}, which is none of the "
            f"{len(CHARACTERS)} characters of the text. {TINY_SHAKESPEARE.obtain}"
        )
    return torch.from_numpy(encoded)
