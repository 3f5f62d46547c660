"""Laws of statistics: intervals cover at their stated rate, tests err at theirs, and nothing is tested without data."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from glideslope.report.results import Cell
from glideslope.report.statistics import (
    Friedman,
    TooFewTasks,
    Variation,
    cell_variation,
    friedman_nemenyi,
    holm,
    homogeneous,
    paired_interval,
    pooled_interval,
    probability_of_improvement,
    residual_variation,
    smallest_detectable_difference,
    tied_with_best,
)

NUM_SCHEDULES, NUM_SEEDS = 8, 3


def layout(generator: np.random.Generator, effects: np.ndarray, seed_std: float = 3.0) -> np.ndarray:
    """Scores of one cell: schedule + seed (shared by all schedules) + noise of standard deviation 1."""
    num_schedules = effects.size
    seeds = seed_std * generator.standard_normal(NUM_SEEDS)
    return effects[:, None] + seeds + generator.standard_normal((num_schedules, NUM_SEEDS))


def test_t_intervals_cover_at_their_stated_rate_and_a_bootstrap_of_three_seeds_does_not():
    generator = np.random.default_rng(0)
    effects = np.linspace(0.0, 2.0, NUM_SCHEDULES)
    truth = effects[0] - effects[5]
    resamples = np.array(list(itertools.product(range(NUM_SEEDS), repeat=NUM_SEEDS)))  # all 27: the exact bootstrap
    covered = {"paired": 0, "pooled": 0, "bootstrap": 0}
    rounds = 4000
    for _ in range(rounds):
        scores = layout(generator, effects)
        for name, interval in (
            ("paired", paired_interval(scores[0], scores[5])),
            ("pooled", pooled_interval(scores, 0, 5)),
        ):
            covered[name] += interval.low <= truth <= interval.high
        means = (scores[0] - scores[5])[resamples].mean(axis=1)
        low, high = np.quantile(means, (0.025, 0.975))
        covered["bootstrap"] += low <= truth <= high
    assert 0.93 <= covered["paired"] / rounds <= 0.97
    assert 0.93 <= covered["pooled"] / rounds <= 0.97
    assert 0.65 <= covered["bootstrap"] / rounds <= 0.82


def test_pooling_shortens_the_interval():
    generator = np.random.default_rng(0)
    widths = np.array(
        [
            (paired.high - paired.low, pooled.high - pooled.low)
            for scores in (layout(generator, np.zeros(NUM_SCHEDULES)) for _ in range(200))
            for paired, pooled in [(paired_interval(scores[0], scores[1]), pooled_interval(scores, 0, 1))]
        ]
    ).mean(axis=0)
    assert widths[1] < 0.6 * widths[0]


def test_the_paired_interval_equals_scipys():
    first, second = np.array([41.2, 40.1, 43.0, 42.2]), np.array([40.0, 39.9, 41.5, 42.0])
    ours = paired_interval(first, second, confidence=0.9)
    theirs = stats.ttest_rel(first, second).confidence_interval(0.9)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-12)
    assert ours.degrees_of_freedom == 3


def test_intervals_refuse_one_seed_and_diverged_runs():
    with pytest.raises(ValueError, match="needs 2 seeds or more"):
        paired_interval(np.array([1.0]), np.array([2.0]))
    with pytest.raises(ValueError, match="a run diverged"):
        pooled_interval(np.array([[1.0, math.nan], [1.0, 2.0]]), 0, 1)


def test_residual_variation_equals_least_squares():
    generator = np.random.default_rng(0)
    scores = generator.standard_normal((4, 5))
    rows, columns = np.indices(scores.shape)
    design = np.hstack([np.eye(4)[rows.ravel()], np.eye(5)[columns.ravel()]])
    fitted = design @ np.linalg.lstsq(design, scores.ravel(), rcond=None)[0]
    variation = residual_variation(scores)
    assert variation.degrees_of_freedom == 12
    assert variation.std == pytest.approx(math.sqrt(((scores.ravel() - fitted) ** 2).sum() / 12), rel=1e-12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values):
    adjusted = holm(np.array(p_values))
    for level in (0.01, 0.05, 0.2):
        rejected = set()
        for step, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
            if p_values[index] * (len(p_values) - step) > level:
                break
            rejected.add(index)
        assert {i for i, value in enumerate(adjusted) if value <= level} == rejected


def test_holm_keeps_the_family_wise_error_below_the_level():
    generator = np.random.default_rng(0)
    # Six true hypotheses, dependent because they share a control, and one false.
    errors = 0
    for _ in range(3000):
        z = generator.standard_normal(7) - generator.standard_normal()
        p_values = 2 * stats.norm.sf(np.abs(z / math.sqrt(2)))
        p_values[6] = 1e-6
        errors += bool((holm(p_values)[:6] <= 0.05).any())
    assert errors / 3000 <= 0.055


def test_ties_worked_by_hand():
    # Residuals are 0 in row sums and column sums; s² = 0.1² · 4 / 2, so the difference 1 is t = 1 / (0.1414 · √(2/2)).
    scores = np.array([[1.1, 0.9], [1.9, 2.1], [1.0, 1.0]])
    result = tied_with_best(scores)
    s = residual_variation(scores).std
    assert s == pytest.approx(math.sqrt(0.04 / 2), rel=1e-12)
    p = 2 * stats.t.sf(1 / s, 2)
    assert result.best in (0, 2)
    assert result.p_values[1] == pytest.approx(2 * p, rel=1e-9)
    assert result.tied == (True, 2 * p > 0.05, True)
    assert result.tested
    assert result.reason == ""


def test_the_truly_best_is_marked_at_its_rate_and_the_clearly_worse_is_not():
    generator = np.random.default_rng(1)
    effects = np.array([0.0, 0.0, 0.3, 0.6, 1.0, 8.0, 8.0, 8.0])
    results = [tied_with_best(layout(generator, effects)) for _ in range(1000)]
    assert np.mean([result.tied[0] for result in results]) >= 0.95
    assert np.mean([result.tied[5] for result in results]) < 0.02


def test_some_equal_schedule_goes_unmarked_as_often_as_the_docstring_says():
    generator = np.random.default_rng(2)
    missed = [not all(tied_with_best(layout(generator, np.zeros(NUM_SCHEDULES))).tied) for _ in range(1500)]
    assert 0.07 <= np.mean(missed) <= 0.13


def test_direction_flips_the_answer():
    scores = np.array([[1.0, 1.1, 0.9], [5.0, 5.1, 5.0]])
    assert tied_with_best(scores).tied == (True, False)
    assert tied_with_best(scores, higher_is_better=True).tied == (False, True)


@given(st.floats(-50, 50), st.floats(0.1, 100))
def test_the_tied_set_does_not_depend_on_the_unit_or_on_how_easy_a_seed_is(shift, scale):
    scores = np.array([[1.0, 1.3, 0.9], [1.1, 1.2, 1.0], [2.0, 2.6, 2.1], [1.4, 1.5, 1.2]])
    moved = scale * scores + shift * np.array([1.0, -2.0, 0.5])
    assert tied_with_best(moved).tied == tied_with_best(scores).tied


def test_diverged_schedules_are_not_pooled_and_never_tied():
    scores = np.array([[1.0, 1.1, 0.9], [1.1, 1.0, 1.0], [0.1, math.nan, 0.1], [0.1, math.inf, 0.1]])
    result = tied_with_best(scores)
    assert result.best == 0
    assert result.tied == (True, True, False, False)
    assert math.isnan(result.p_values[2])
    assert result.variation == tied_with_best(scores[:2]).variation


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        ([[1.0], [2.0]], "1 seed"),
        ([[math.nan, 1.0], [math.inf, 1.0]], "every schedule diverged"),
        ([[math.nan, 1.0], [1.0, 1.0]], "fewer than two schedules"),
    ],
)
def test_what_cannot_be_tested_says_so_and_marks_nothing(scores, reason):
    result = tied_with_best(np.array(scores))
    assert not result.tested
    assert reason in result.reason
    assert not any(result.tied)


def test_scores_without_any_noise_are_compared_exactly():
    result = tied_with_best(np.array([[0.1, 0.2, 0.3], [0.1, 0.2, 0.3], [0.2, 0.3, 0.4]]))
    assert result.tied == (True, True, False)


def test_a_grossly_noisy_schedule_leaves_the_pool_and_the_others_can_still_be_told_apart():
    generator = np.random.default_rng(3)
    scores = layout(generator, np.array([0.0, 0.1, 6.0, 6.0, 6.0, 0.2]))
    scores[5] += 300 * np.array([0.3, -1.0, 0.7]) + 300
    result = tied_with_best(scores)
    assert result.pooled == (True, True, True, True, True, False)
    assert result.tied[2:5] == (False, False, False)
    # Without leaving it out, its noise would hide a difference of six standard deviations.
    assert residual_variation(scores).std > 20 * result.variation.std


def test_the_same_runs_under_two_names_are_no_further_evidence():
    scores = layout(np.random.default_rng(6), np.array([0.0, 0.5, 1.0, 3.0]))
    once, twice = tied_with_best(scores), tied_with_best(scores[[0, 1, 2, 3, 3, 3]])
    assert twice.variation == once.variation
    assert twice.p_values[3] == twice.p_values[5]
    same = tied_with_best(scores[[1, 1]])
    assert same.tied == (True, True)


def test_equal_variances_are_rarely_taken_apart():
    generator = np.random.default_rng(4)
    split = [not homogeneous(layout(generator, np.zeros(NUM_SCHEDULES))).all() for _ in range(1000)]
    assert np.mean(split) < 0.03


def test_the_smallest_detectable_difference_is_detected_at_its_power():
    generator = np.random.default_rng(5)
    difference = smallest_detectable_difference(Variation(1.0, 14), NUM_SEEDS)
    effects = np.zeros(NUM_SCHEDULES)
    effects[1] = difference
    found = 0
    for _ in range(2000):
        interval = pooled_interval(layout(generator, effects), 0, 1)
        found += not interval.low <= 0 <= interval.high
    assert found / 2000 == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize(("freedom", "num_seeds"), [(4, 3), (14, 3), (28, 5), (200, 10)])
def test_the_smallest_detectable_difference_solves_scipys_noncentral_t(freedom, num_seeds):
    shift = smallest_detectable_difference(Variation(1.0, freedom), num_seeds) / math.sqrt(2 / num_seeds)
    assert stats.nct.sf(stats.t.ppf(0.975, freedom), freedom, shift) == pytest.approx(0.8, abs=1e-3)


def test_unknown_noise_has_no_smallest_detectable_difference():
    assert math.isnan(smallest_detectable_difference(residual_variation(np.array([[1.0], [2.0]])), 1))


def cells_of(*scores: dict[str, list[float]], tasks: int = 1) -> list[Cell]:
    return [
        Cell(f"t{i % tasks}", "sgdm", f"{i}%", 0.01 * (i + 1), "low", {k: dict(enumerate(v)) for k, v in s.items()})
        for i, s in enumerate(scores)
    ]


def test_probability_of_improvement_worked_by_hand():
    cells = cells_of(
        {"linear": [1.0, 2.0], "rex": [0.5, 2.0], "none": [math.nan, 3.0]},  # rex: 1 and a tie → 0.75; none: 0
        {"linear": [math.nan, 2.0], "rex": [1.0, 3.0], "none": [math.nan, 1.0]},  # rex: 1/2; none: a tie and 1 → 0.75
    )
    answers = probability_of_improvement(
        cells, "linear", np.random.default_rng(0), schedules=["linear", "rex", "none"], num_resamples=200
    )
    assert [(answer.schedule, answer.probability.value) for answer in answers] == [("rex", 0.625), ("none", 0.375)]
    for answer in answers:
        assert 0 <= answer.probability.low <= answer.probability.value <= answer.probability.high <= 1


def test_improvement_is_complementary_and_follows_the_direction():
    generator = np.random.default_rng(0)
    cells = cells_of(*({"a": list(generator.random(3)), "b": list(generator.random(3))} for _ in range(10)), tasks=3)

    def probability(baseline: str, higher: bool) -> float:
        answers = probability_of_improvement(
            cells, baseline, generator, schedules=["a", "b"], higher_is_better=higher, num_resamples=10
        )
        return answers[0].probability.value

    assert probability("a", False) + probability("b", False) == pytest.approx(1)
    assert probability("a", False) == pytest.approx(probability("b", True))


def test_friedman_equals_demsars_worked_example():
    # Demšar 2006, Table 6 and Section 3.2.3: 14 data sets, 4 classifiers, mean ranks 3.143, 2.000, 2.893, 1.964;
    # chi-square 9.28, before the correction for ties (three pairs and a quadruple); Nemenyi's CD at 0.05 is
    # 2.569 · √(4·5 / (6·14)) = 1.25. The last pair but one is tied as printed, but was ranked from more digits.
    accuracies = np.array(
        [
            [0.763, 0.768, 0.771, 0.798],
            [0.599, 0.591, 0.590, 0.569],
            [0.954, 0.971, 0.968, 0.967],
            [0.628, 0.661, 0.654, 0.657],
            [0.882, 0.888, 0.886, 0.898],
            [0.936, 0.931, 0.916, 0.931],
            [0.661, 0.668, 0.609, 0.685],
            [0.583, 0.583, 0.563, 0.625],
            [0.775, 0.838, 0.866, 0.875],
            [1.000, 1.000, 1.000, 1.000],
            [0.940, 0.962, 0.965, 0.962],
            [0.619, 0.666, 0.614, 0.669],
            [0.972, 0.981, 0.9751, 0.975],
            [0.957, 0.978, 0.946, 0.970],
        ]
    )
    ranks = stats.rankdata(-accuracies, axis=1)
    assert ranks.mean(axis=0) == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    result = friedman_nemenyi(ranks)
    assert isinstance(result, Friedman)
    assert result.critical_difference == pytest.approx(1.25, abs=0.005)
    assert result.statistic == pytest.approx(9.28 / (1 - (3 * 6 + 60) / (14 * 60)), abs=0.01)
    assert result.num_tasks == 14


@pytest.mark.parametrize(("count", "quantile"), [(3, 2.343), (5, 2.728), (10, 3.164)])
def test_nemenyis_quantiles_are_those_of_demsars_table_5(count, quantile):
    ranks = np.array([np.roll(np.arange(1.0, count + 1), shift) for shift in range(6)])
    result = friedman_nemenyi(ranks)
    assert isinstance(result, Friedman)
    assert result.critical_difference / math.sqrt(count * (count + 1) / 36) == pytest.approx(quantile, abs=1e-3)


def test_few_tasks_are_not_tested():
    assert friedman_nemenyi(np.ones((2, 4))) == TooFewTasks(2)
    assert str(TooFewTasks(4)) == "too few tasks (4 < 5)"
    with pytest.raises(ValueError, match="compares 3 schedules or more"):
        friedman_nemenyi(np.ones((6, 2)))


def test_schedules_alike_on_every_task_differ_nowhere():
    result = friedman_nemenyi(np.full((6, 3), 2.0))
    assert isinstance(result, Friedman)
    assert result.p_value == 1.0


def test_a_cells_variation_leaves_out_what_diverged():
    scores = {"a": [1.0, 1.1, 0.9], "b": [1.1, 1.0, 1.0], "c": [1.0, math.nan, 1.0]}
    assert cell_variation(cells_of(scores)[0], ["a", "b", "c"]).degrees_of_freedom == 2
