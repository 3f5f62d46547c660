"""Scores of a whole split: by hand, and as the libraries everybody takes them from have them."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics

from glideslope.tasks.scores import accuracy, f1, matthews, pearson, perplexity, spearman

# 3 hits, 1 false alarm, 2 misses, 4 rightly left alone.
PREDICTIONS = torch.tensor([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
LABELS = torch.tensor([1, 1, 1, 0, 1, 1, 0, 0, 0, 0])


def test_of_classes_by_hand():
    assert accuracy(PREDICTIONS, LABELS) == pytest.approx(70)
    assert f1(PREDICTIONS, LABELS) == pytest.approx(100 * 2 * 3 / (2 * 3 + 1 + 2))
    by_hand = (3 * 4 - 1 * 2) / math.sqrt((3 + 1) * (3 + 2) * (4 + 1) * (4 + 2))
    assert matthews(PREDICTIONS, LABELS) == pytest.approx(100 * by_hand)


def test_of_numbers_by_hand():
    predictions, labels = torch.tensor([1.0, 2.0, 3.0, 10.0]), torch.tensor([1.0, 3.0, 2.0, 4.0])
    # Ranks differ by 0, 1, 1, 0: 1 - 6 * 2 / (4 * 15).
    assert spearman(predictions, labels) == pytest.approx(80)
    # Deviations -3, -2, -1, 6 and -1.5, 0.5, -0.5, 1.5.
    assert pearson(predictions, labels) == pytest.approx(100 * 13 / math.sqrt(50 * 5))


def test_perplexity_by_hand():
    assert perplexity(torch.tensor([[math.log(10.0), math.log(1000.0)]])) == pytest.approx(100, rel=1e-6)
    assert perplexity(torch.full((3,), 1e4)) == math.inf


@pytest.mark.parametrize("seed", range(5))
def test_of_classes_as_scikit_learn(seed):
    labels, predictions = np.random.default_rng(seed).random((2, 400)) < [[0.3], [0.6]]
    labels[:100] = predictions[:100]
    for mine, theirs in (
        (accuracy, metrics.accuracy_score),
        (f1, metrics.f1_score),
        (matthews, metrics.matthews_corrcoef),
    ):
        found = mine(torch.from_numpy(predictions).long(), torch.from_numpy(labels).long())
        assert found == pytest.approx(100 * theirs(labels, predictions), rel=1e-12), mine.__name__


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("steps", [1, 5, 10**6], ids=["many ties", "ties", "no ties"])
def test_of_numbers_as_scipy(seed, steps):
    generator = np.random.default_rng(seed)
    labels = generator.normal(size=200)
    predictions, labels = (np.round(steps * side) / steps for side in (labels + generator.normal(size=200), labels))
    sides = torch.from_numpy(predictions), torch.from_numpy(labels)
    assert pearson(*sides) == pytest.approx(100 * stats.pearsonr(predictions, labels).statistic, rel=1e-11)
    assert spearman(*sides) == pytest.approx(100 * stats.spearmanr(predictions, labels).statistic, rel=1e-11)


@pytest.mark.parametrize("score", [matthews, pearson, spearman])
def test_predictions_that_are_all_the_same_say_nothing(score):
    assert score(torch.full((7,), 0.1), torch.tensor([0.0, 1, 1, 0, 1, 1, 0])) == 0


def test_a_class_that_is_neither_there_nor_predicted():
    assert f1(torch.zeros(4, dtype=torch.long), torch.zeros(4, dtype=torch.long)) == 0


@pytest.mark.parametrize("score", [pearson, spearman])
def test_a_prediction_that_is_no_number_makes_no_score(score):
    assert math.isnan(score(torch.tensor([0.1, math.nan, 0.2]), torch.tensor([1.0, 2.0, 3.0])))
