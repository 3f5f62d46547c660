"""Candidates: several networks, trained on the same experience in different ways, of which a proxy task takes one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from glideslope.core.value import require
from glideslope.studies.arc.dataset import Points, points, read
from glideslope.studies.arc.experience import HELD_OUT
from glideslope.studies.arc.jobs import share_out
from glideslope.studies.arc.selection import Candidate
from glideslope.studies.arc.training import Recipe, train_candidate

WAYS = tuple(product(("v2", "paper"), ("code", "paper"), (True, False)))
"""Loss, variant of the features, and whether labels are corrected: taken in turn."""


@dataclass(frozen=True)
class Brief:
    """One candidate to be trained.

    Args:
        number: its k.
        recipe: how.
        variant: of the features.
        corrected: whether labels are corrected.
    """

    number: int
    recipe: Recipe
    variant: str
    corrected: bool


def briefs(count: int, recipe: Recipe) -> tuple[Brief, ...]:
    """So many: the `WAYS` in turn, each with a seed of its own; else as `recipe` says."""
    require(count >= 1, "count", count, "count >= 1")
    found = []
    for number in range(count):
        loss, variant, corrected = WAYS[number % len(WAYS)]
        found.append(Brief(number, replace(recipe, loss=loss, seed=number), variant, corrected))
    return tuple(found)


def train_all(
    data: Path,
    wanted: Sequence[Brief],
    folder: Path,
    held_out: Sequence[str] = HELD_OUT,
    workers: int | None = None,
    tell: Callable[[Brief], None] = lambda brief: None,
) -> None:
    """Train the candidates that the folder lacks, one per process.

    Args:
        data: file of a table that `dataset.gather` made.
        wanted: see `briefs`.
        folder: of the candidates.
        held_out: families to be judged on.
        workers, tell: see `share_out`.

    Raises:
        ValueError: there are no points but those of the families held out, or none of these.
    """
    families = set(read(data)["family"].to_list())
    unknown = set(held_out) - families
    require(not unknown, "held_out", sorted(unknown), f"families of the data: {', '.join(sorted(families))}")
    require(families > set(held_out), "held_out", sorted(held_out), "not all families")
    share_out(partial(_train, data, folder, tuple(held_out)), wanted, workers, tell=tell)


def _train(data: Path, folder: Path, held_out: tuple[str, ...], brief: Brief) -> None:
    learned, judged = split(points(read(data), brief.variant, brief.corrected), held_out)
    # Judged by corrected labels, whatever it was trained on: else no two candidates' metrics could be compared.
    if not brief.corrected:
        judged = split(points(read(data), brief.variant), held_out)[1]
    facts = {"variant": brief.variant, "corrected": brief.corrected, "held_out": list(held_out)}
    train_candidate(learned.inputs, learned.labels, brief.recipe, folder, brief.number, judged, facts)


def split(whole: Points, held_out: Sequence[str]) -> tuple[Points, Points]:
    """Those to learn from, and those of the families that are held out."""
    apart = np.isin(whole.families, list(held_out))
    return whole.of(~apart), whole.of(apart)


def candidates(folder: Path) -> tuple[Candidate, ...]:
    """All candidates of a folder, by number.

    Raises:
        FileNotFoundError: there are none.
    """
    cards = sorted(folder.glob("candidate-*.json"), key=lambda path: int(path.stem.partition("-")[2]))
    if not cards:
        raise FileNotFoundError(f"{folder} holds no candidates yet: run `glideslope arc train` first.")
    found = []
    for card in cards:
        facts = json.loads(card.read_text())
        whole = facts["metrics"].get("all", {})
        offline = tuple((name, value) for name, value in whole.items() if value is not None and name != "num_examples")
        weights = card.with_suffix(".safetensors")
        found.append(Candidate(str(weights), facts["weights_sha256"], facts["variant"], offline))
    return tuple(found)
