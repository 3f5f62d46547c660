"""Training ARC's network: decisions whose label is known → a `Network` that decides."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional

from glideslope.controller.arc import KEEP, LOWER, RAISE, fingerprint
from glideslope.controller.features import LENGTH
from glideslope.controller.network import HIDDEN, Network
from glideslope.core.budget import Steps
from glideslope.core.spec import parse_schedule
from glideslope.core.value import require, unknown
from glideslope.studies.arc.dataset import Points
from glideslope.studies.arc.offline import ALL, METRICS, by_family
from glideslope.torch.scheduler import BudgetScheduler
from glideslope.trials.randomness import Stream, generator
from glideslope.trials.run import library_versions, one_thread
from glideslope.trials.task import seeded_model

VALIDATION = 1
"""The channel of the validation loss."""
CLIP = 1e-4
"""Probabilities nearer than this to 0 or 1 count as that near in the loss "v2"."""
AT_ONCE = 512
"""So many examples are judged at a time: 50 MB."""


class Twin(nn.Module):
    """The network in PyTorch: features (n, 300, 3) in, logits of raise, keep and lower (n, 3) out.

    It begins as a Keras model does: Glorot-uniform kernels, an LSTM's four gates as one; orthogonal recurrent kernels;
    biases 0, of forget gates 1. Of the two biases that PyTorch gives an LSTM, the second stays 0: trained, the sum of
    both would move twice as fast as the one bias of the published network. The rest of the arithmetic is
    `Network`'s, so an exported twin decides as it does itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv1d(3, 32, 5), nn.Conv1d(32, 64, 5)
        self.lstm = nn.LSTM(64, HIDDEN, num_layers=2, batch_first=True)
        self.dense1, self.dense2 = nn.Linear(HIDDEN, 32), nn.Linear(32, 3)
        for name, weight in self.named_parameters():
            if "bias_hh" in name:
                weight.requires_grad_(False)
            if "bias" in name:
                nn.init.zeros_(weight)
            elif "weight_hh" in name:
                nn.init.orthogonal_(weight)
            else:
                nn.init.xavier_uniform_(weight)
            if "bias_ih" in name:
                nn.init.ones_(weight.detach()[HIDDEN : 2 * HIDDEN])

    def forward(self, inputs: Tensor) -> Tensor:
        sequence = inputs.transpose(1, 2)
        for convolution in (self.conv1, self.conv2):
            # ReLU and the maximum commute, and after pooling there is half as much to do.
            sequence = torch.relu(functional.max_pool1d(convolution(sequence), 2))
        states, _ = self.lstm(sequence.transpose(1, 2))
        logits: Tensor = self.dense2(torch.relu(self.dense1(states[:, -1])))
        return logits

    def export(self) -> Network:
        """The same network in NumPy. An LSTM has one bias there: the sum of PyTorch's two."""
        weights = {name: weight.detach().numpy() for name, weight in self.state_dict().items()}
        tensors: dict[str, NDArray[np.float32]] = {}
        for layer in ("conv1", "conv2", "dense1", "dense2"):
            tensors[f"{layer}.kernel"] = weights[f"{layer}.weight"].T  # (out, in, width) → (width, in, out)
            tensors[f"{layer}.bias"] = weights[f"{layer}.bias"]
        for index, layer in enumerate(("lstm1", "lstm2")):
            tensors[f"{layer}.kernel_ifco"] = weights[f"lstm.weight_ih_l{index}"].T
            tensors[f"{layer}.recurrent_ifco"] = weights[f"lstm.weight_hh_l{index}"].T
            tensors[f"{layer}.bias_ifco"] = weights[f"lstm.bias_ih_l{index}"] + weights[f"lstm.bias_hh_l{index}"]
        return Network(tensors)


def paper_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, plus the binary cross-entropy of "raise" against the rest, each a mean over all examples.

    Args:
        logits: (n, 3).
        labels: (n,), 0 raise, 1 keep, 2 lower.

    Source: Dong et al., "To Raise or Not To Raise: The Autonomous Learning Rate Question", 2021.
    """
    log_chances = functional.log_softmax(logits, dim=1)
    against = torch.where(labels == RAISE, log_chances[:, RAISE], log_chances[:, KEEP:].logsumexp(dim=1))
    return functional.nll_loss(log_chances, labels) - against.mean()


def v2_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Half the cross-entropy, plus half the binary cross-entropy of "raise" among examples to be raised or lowered.

    The second mean is over those examples only, and 0 where a batch has none; probabilities in it are kept within
    [1e-4, 1 - 1e-4], so what is as sure as that is pushed no further.

    Args:
        logits: (n, 3).
        labels: (n,), 0 raise, 1 keep, 2 lower.

    Source: the training script published with the paper, repository fastestimator/ARC.
    """
    chances = functional.softmax(logits, dim=1)[:, RAISE].clamp(CLIP, 1 - CLIP)
    moved = labels != KEEP
    against = torch.where(labels == RAISE, chances, 1 - chances).log()
    return 0.5 * functional.cross_entropy(logits, labels) - 0.5 * (against * moved).sum() / moved.sum().clamp(min=1)


LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"paper": paper_loss, "v2": v2_loss}


@dataclass(frozen=True)
class Recipe:
    """How a candidate is trained, with Adam.

    Args:
        loss: a name in `LOSSES`.
        drop_validation: probability with which an example's validation channel is zeroed, drawn anew in every epoch; 0
            switches it off. With it the network also works where there is no validation loss. 0..1.
        epochs: passes over the data, >= 1.
        batch_size: examples per update, >= 1; the last batch of an epoch has what is left.
        rate: of Adam, > 0.
        schedule: text of the schedule of the rate over all updates; the source's is constant.
        seed: decides initial weights, order and what is dropped; each of them independently of the others.
    """

    loss: str = "v2"
    drop_validation: float = 0.5
    epochs: int = 300
    batch_size: int = 128
    rate: float = 1e-4
    schedule: str = "constant"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise unknown("loss", self.loss, LOSSES)
        require(0 <= self.drop_validation <= 1, "drop_validation", self.drop_validation, "0 <= drop_validation <= 1")
        require(self.epochs >= 1, "epochs", self.epochs, "epochs >= 1")
        require(self.batch_size >= 1, "batch_size", self.batch_size, "batch_size >= 1")
        require(0 < self.rate < math.inf, "rate", self.rate, "0 < rate < inf")
        require(self.seed >= 0, "seed", self.seed, "seed >= 0")
        parse_schedule(self.schedule)


@dataclass(frozen=True)
class Fitted:
    """A trained network.

    Args:
        network: after the last epoch; none is chosen among epochs.
        losses: (epochs,) mean training loss of each.
    """

    network: Network
    losses: tuple[float, ...]


def fit(
    inputs: ArrayLike,
    labels: ArrayLike,
    recipe: Recipe,
    report: Callable[[int, float], None] = lambda epoch, loss: None,
) -> Fitted:
    """Train a network from scratch, on one core. Same arguments, same bytes.

    Args:
        inputs: (n, 300, 3), float32, finite: what `features` makes of histories.
        labels: (n,), integers 0 raise, 1 keep, 2 lower.
        recipe: how.
        report: is told every epoch, counted from 1, and its mean loss.

    Raises:
        ValueError: shapes differ, or a value is none of these.
    """
    seen, truths = _checked(inputs, labels)
    examples, targets = torch.from_numpy(seen), torch.from_numpy(truths)
    criterion = LOSSES[recipe.loss]
    losses: list[float] = []
    with one_thread():
        twin = cast(Twin, seeded_model(recipe.seed, Twin))
        optimizer = torch.optim.Adam([weight for weight in twin.parameters() if weight.requires_grad], lr=recipe.rate)
        per_epoch = math.ceil(len(targets) / recipe.batch_size)
        scheduler = BudgetScheduler(optimizer, recipe.schedule, Steps(recipe.epochs * per_epoch))
        for epoch in range(recipe.epochs):
            order = torch.from_numpy(generator(recipe.seed, Stream.ORDER, epoch).permutation(len(targets)))
            draws = generator(recipe.seed, Stream.AUGMENTATION, epoch).random(len(targets))
            dropped = torch.from_numpy(draws < recipe.drop_validation)
            total = 0.0
            for start in range(0, len(targets), recipe.batch_size):
                rows = order[start : start + recipe.batch_size]
                batch = examples[rows]
                batch[:, :, VALIDATION].masked_fill_(dropped[rows][:, None], 0.0)
                loss = criterion(twin(batch), targets[rows])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                scheduler.step()
                total += loss.item() * len(rows)
            losses.append(total / len(targets))
            report(epoch + 1, losses[-1])
    return Fitted(twin.export(), tuple(losses))


def judge(network: Network, points: Points) -> dict[str, dict[str, float]]:
    """The offline metrics of a network: family → metric → value; "all" stands for all families together."""
    seen, truths = _checked(points.inputs, points.labels)
    parts = [network(seen[start : start + AT_ONCE]) for start in range(0, len(seen), AT_ONCE)]
    found = by_family(np.concatenate(parts), truths, points.families)
    return {family: metrics.to_json() for family, metrics in found.items()}


@dataclass(frozen=True)
class Trained:
    """A candidate in its folder.

    Args:
        number: its k: the files are candidate-k.safetensors and candidate-k.json.
        weights: path of the first.
        sha256: of that file: what identifies the candidate wherever it lies.
        recipe: how it was trained.
        num_examples: on how many decisions.
        metrics: family → metric → value on what was held out, with "all"; empty without.
    """

    number: int
    weights: Path
    sha256: str
    recipe: Recipe
    num_examples: int
    metrics: Mapping[str, Mapping[str, float]]

    @property
    def offline(self) -> tuple[tuple[str, float], ...]:
        """The metrics over all families that were held out, as `selection.Candidate` takes them."""
        whole = self.metrics.get(ALL, {})
        return tuple((name, whole[name]) for name in METRICS if name in whole and math.isfinite(whole[name]))


def train_candidate(
    inputs: ArrayLike,
    labels: ArrayLike,
    recipe: Recipe,
    folder: Path | str,
    number: int,
    held_out: Points | None = None,
    facts_of_data: Mapping[str, Any] = MappingProxyType({}),
) -> Trained:
    """Candidate `number` of a folder: found there, or trained. Different ones may be trained at the same time.

    Beside the weights it leaves a JSON file with recipe, data, losses, metrics and library versions.

    A candidate that came of another recipe or of other data is replaced.

    Args:
        inputs, labels, recipe: as in `fit`.
        folder: created if it is not there.
        number: the files are candidate-<number>.safetensors and .json.
        held_out: points of families that it is not trained on: what it is judged by, each time anew.
        facts_of_data: JSON types that the file is to say too; a candidate with other ones is another.
    """
    seen, truths = _checked(inputs, labels)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights, card = (folder / f"candidate-{number}.{kind}" for kind in ("safetensors", "json"))
    origin = {"recipe": asdict(recipe), "num_examples": len(truths), "data_sha256": _sha256(seen, truths)}
    origin |= facts_of_data
    facts = _found(weights, card, origin)
    if facts is None:
        fitted = fit(seen, truths, recipe)
        fitted.network.save(weights)
        facts = {
            **origin,
            "weights_sha256": fingerprint(weights),
            "losses": fitted.losses,
            "versions": library_versions(),
        }
    metrics = judge(Network.from_file(weights), held_out) if held_out is not None else {}
    # Last, and at once: a candidate with this file is complete.
    partial = card.with_suffix(".partial")
    readable = {family: _without_nan(measured) for family, measured in metrics.items()}
    partial.write_text(json.dumps({**facts, "metrics": readable}, indent=1, sort_keys=True) + "\n")
    os.replace(partial, card)
    return Trained(number, weights, facts["weights_sha256"], recipe, len(truths), metrics)


def _found(weights: Path, card: Path, origin: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the card says, if it belongs to these weights and they came of this origin."""
    if not (weights.exists() and card.exists()):
        return None
    facts: dict[str, Any] = json.loads(card.read_text())
    same = all(facts.get(name) == value for name, value in origin.items())
    return facts if same and facts.get("weights_sha256") == fingerprint(weights) else None


def _without_nan(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """For JSON, which has no NaN: null where a metric is not defined."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def _sha256(*arrays: NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape} ".encode() + array.tobytes())
    return digest.hexdigest()


def _checked(inputs: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    seen, truths = np.ascontiguousarray(inputs, dtype=np.float32), np.asarray(labels)
    shaped = seen.ndim == 3 and seen.shape[1:] == (LENGTH, 3) and len(seen) > 0
    require(shaped, "inputs", seen.shape, f"a shape (n, {LENGTH}, 3), n >= 1")
    require(bool(np.isfinite(seen).all()), "inputs", "an array with NaN or inf", "finite numbers")
    require(truths.shape == seen.shape[:1], "labels", truths.shape, f"one per example: {seen.shape[:1]}")
    among = np.issubdtype(truths.dtype, np.integer) and bool(np.isin(truths, (RAISE, KEEP, LOWER)).all())
    require(among, "labels", np.unique(truths).tolist(), "integers 0 (raise), 1 (keep) or 2 (lower)")
    return seen, truths.astype(np.int64)
