"""Sentences: what somebody thought of a film, whether two say the same, which character comes next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from glideslope.tasks.classification import Classification
from glideslope.tasks.data import DataFile
from glideslope.tasks.models import CharacterModel
from glideslope.tasks.parts import cut, labelled
from glideslope.tasks.text_files import (
    CHARACTERS_PER_SENTENCE,
    COLA,
    MRPC,
    NUM_CHARACTERS,
    PADDING,
    SST2,
    VOCABULARY_SIZE,
)
from glideslope.trials.task import Batch, Default, Labelled, Metric, Noise, Part, Splits, seeded_model


class SentenceLSTM(nn.Module):
    """Embedding, LSTM, mean of its states over the words, dense layer."""

    def __init__(self, embedding_size: int, hidden_size: int, num_classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY_SIZE, embedding_size, padding_idx=PADDING)
        self.recurrent = nn.LSTM(embedding_size, hidden_size, batch_first=True)
        self.readout = nn.Linear(hidden_size, num_classes)

    def forward(self, words: Tensor) -> Tensor:
        """Logits, (batch, num_classes), of words, (batch, length)."""
        states, _ = self.recurrent(self.embedding(words))
        return cast(Tensor, self.readout(mean_over_words(states, words)))


class PairModel(nn.Module):
    """Mean embeddings of two sentences, compared by a dense network."""

    def __init__(self, embedding_size: int, hidden_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY_SIZE, embedding_size, padding_idx=PADDING)
        self.compare = nn.Sequential(nn.Linear(2 * embedding_size, hidden_size), nn.ReLU(), nn.Linear(hidden_size, 2))

    def forward(self, pairs: Tensor) -> Tensor:
        """Logits, (batch, 2), of pairs, (batch, 2, length)."""
        first, second = (mean_over_words(self.embedding(pairs[:, side]), pairs[:, side]) for side in (0, 1))
        return cast(Tensor, self.compare(torch.cat([(first - second).abs(), first * second], dim=-1)))


def mean_over_words(values: Tensor, words: Tensor) -> Tensor:
    """Values, (batch, length, size), where there are words, (batch, length): (batch, size)."""
    present = (words != PADDING).to(values.dtype)[..., None]
    return (values * present).sum(-2) / present.sum(-2).clamp(min=1.0)


class SentenceClassification(Classification):
    """What is said, in two classes."""

    maximum_epochs: ClassVar[int] = 60
    batch_size: ClassVar[int] = 50
    defaults: ClassVar[Mapping[str, Default]] = {
        "sgdm": Default(0.1),
        "adam": Default(0.003),
        "adamw": Default(0.003),
    }


@final
@dataclass(frozen=True)
class SST2LSTM(SentenceClassification):
    """Is a review kind? An LSTM of 32 units on 1,200 phrases of SST-2; the published development set is the test.

    Source: Socher et al., "Recursive Deep Models for Semantic Compositionality Over a Sentiment Treebank", EMNLP 2013.
    """

    name: ClassVar[str] = "sst2-lstm"
    version: ClassVar[int] = 1
    source: ClassVar[str] = "SST-2 (Socher et al., 2013), as in GLUE"
    needs: ClassVar[str | None] = SST2.name

    def splits(self) -> Splits:
        return _cut(SST2, num_train=1200)

    def model(self, seed: int) -> nn.Module:
        return seeded_model(seed, lambda: SentenceLSTM(32, 32, 2))


@final
@dataclass(frozen=True)
class MRPCPairs(SentenceClassification):
    """Do two sentences say the same? Mean embeddings of 2,000 pairs of MRPC, compared by a dense network.

    Source: Dolan and Brockett, "Automatically Constructing a Corpus of Sentential Paraphrases", 2005.
    """

    name: ClassVar[str] = "mrpc-pairs"
    version: ClassVar[int] = 1
    source: ClassVar[str] = "MRPC (Dolan and Brockett, 2005), as in GLUE"
    needs: ClassVar[str | None] = MRPC.name

    def splits(self) -> Splits:
        return _cut(MRPC, num_train=2000)

    def model(self, seed: int) -> nn.Module:
        return seeded_model(seed, lambda: PairModel(32, 32))


@final
@dataclass(frozen=True)
class COLAGRU(Labelled):
    """Which character comes next? A GRU of 32 units on 600 sentences of CoLA, in nats per character.

    Source: the sentences are those of Warstadt, Singh, Bowman, "Neural Network Acceptability Judgments", 2018.
    """

    name: ClassVar[str] = "cola-gru"
    version: ClassVar[int] = 1
    source: ClassVar[str] = "CoLA (Warstadt et al., 2018), as in GLUE; its labels are not used"
    needs: ClassVar[str | None] = COLA.name
    maximum_epochs: ClassVar[int] = 60
    batch_size: ClassVar[int] = 50
    metric: ClassVar[Metric] = Metric("loss")
    defaults: ClassVar[Mapping[str, Default]] = {
        "sgdm": Default(0.3),
        "adam": Default(0.01),
        "adamw": Default(0.01),
    }

    def splits(self) -> Splits:
        def shifted(part: Part) -> Batch:
            characters = part[0][:]
            return characters[:, :CHARACTERS_PER_SENTENCE], characters[:, 1:]

        whole = _cut(COLA, num_train=600)
        return Splits(shifted(whole.train), shifted(whole.validation), shifted(whole.test))

    def model(self, seed: int) -> nn.Module:
        return seeded_model(seed, lambda: CharacterModel(NUM_CHARACTERS, 16, 32, kind=nn.GRU))

    def criterion(self, logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """See `Labelled.criterion`; logits are (batch, length, characters) and labels (batch, length)."""
        return functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=PADDING, label_smoothing=label_smoothing
        )

    def evaluate(self, model: nn.Module, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """ "loss": mean over the characters of each sentence, nats per character."""
        inputs, targets = batch
        losses = functional.cross_entropy(
            model(inputs).transpose(1, 2), targets, reduction="none", ignore_index=PADDING
        )
        return {"loss": losses.sum(-1) / (targets != PADDING).sum(-1).clamp(min=1)}


def _cut(file: DataFile, num_train: int) -> Splits:
    arrays = file.arrays()
    return cut(labelled(arrays, "train"), labelled(arrays, "test"), num_train)
