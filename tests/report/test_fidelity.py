"""Laws of fidelity: every number is right where the truth is known, and says so where nothing can be told."""

import math

import numpy as np
import pytest
from scipy import stats

from glideslope.report.fidelity import (
    CurveResult,
    Fidelity,
    bias_in_seed_sds,
    fidelity,
    improvement_p_value,
    pooled,
    wilson_interval,
)

BUDGETS = (100, 200, 400, 800, 1600, 3200)
VARIANTS = ("sgd", "adam", "rex", "mixup")
NUM_SEEDS = 8
SEED_SDS = np.linspace(1.0, 0.2, len(BUDGETS))
"""Seed noise shrinks with the budget."""


def curves(estimator: str, values: np.ndarray, half_width: float = 0.0, task: str = "t") -> list[CurveResult]:
    """values: (num_variants, num_budgets, num_seeds); intervals of so many seed sds either way, 0 for none."""
    return [
        CurveResult(
            task,
            VARIANTS[variant],
            estimator,
            seed,
            BUDGETS[: values.shape[1]],
            tuple(column),
            tuple(column - half_width * SEED_SDS) if half_width else (),
            tuple(column + half_width * SEED_SDS) if half_width else (),
            planned_cost=1.0,
            measured_cost=1.1,
        )
        for variant in range(values.shape[0])
        for seed, column in enumerate(values[variant].T)
    ]


def draw(generator: np.random.Generator, num_variants: int = 4, num_seeds: int = NUM_SEEDS) -> np.ndarray:
    """Seed noise, (num_variants, num_budgets, num_seeds): standard deviation `SEED_SDS`."""
    return generator.standard_normal((num_variants, len(BUDGETS), num_seeds)) * SEED_SDS[:, None]


def draw_one_run(generator: np.random.Generator, num_variants: int = 4, num_seeds: int = NUM_SEEDS) -> np.ndarray:
    """The same, but half of the variance is shared by the budgets of a run, as on a trunk."""
    shared = generator.standard_normal((num_variants, 1, num_seeds)) * SEED_SDS[:, None]
    return (shared + draw(generator, num_variants, num_seeds)) / math.sqrt(2)


def one(separate: np.ndarray, cheap: np.ndarray, half_width: float = 0.0, num_resamples: int = 20) -> Fidelity:
    both = curves("separate", separate) + curves("cheap", cheap, half_width)
    (found,) = fidelity(both, num_resamples=num_resamples)
    return found


def test_the_mean_gap_is_estimate_minus_reference_and_its_interval_covers():
    generator = np.random.default_rng(0)
    covered = 0
    rounds = 300
    for _ in range(rounds):
        gap = one(draw(generator, 2), draw_one_run(generator, 2) - 0.3, num_resamples=1).mean_gap
        covered += gap.low <= -0.3 <= gap.high
    assert 0.87 <= covered / rounds <= 0.93


def test_the_mean_gap_is_a_paired_t_interval_of_the_seeds_means():
    generator = np.random.default_rng(0)
    separate, cheap = draw(generator), draw(generator)
    theirs = stats.ttest_1samp((cheap - separate).mean(axis=(0, 1)), 0.0)
    gap = one(separate, cheap).mean_gap
    assert gap.value == pytest.approx((cheap - separate).mean(), rel=1e-12)
    assert (gap.low, gap.high) == pytest.approx(tuple(theirs.confidence_interval(0.9)), rel=1e-9)


@pytest.mark.parametrize(
    ("gap_in_sds", "truth", "expected"),
    [
        ([0.0] * 6, 0.0, (0.05, 0.17)),
        ([0.5] * 6, 0.5, (0.42, 0.54)),
        ([1.0] * 6, 1.0, (0.96, 1.04)),
        ([1.0, -1.0] * 3, 1.0, (0.96, 1.04)),  # either sign
        ([1.0, 0.0] * 3, 0.5, (0.58, 0.70)),  # what the docstring says about unequal gaps
    ],
)
def test_the_bias_is_rid_of_noise_and_its_interval_covers(gap_in_sds: list[float], truth: float, expected):
    generator = np.random.default_rng(1)
    shift = (np.array(gap_in_sds) * SEED_SDS)[:, None]
    rounds = 100
    found = [one(draw(generator), draw_one_run(generator) + shift, num_resamples=150) for _ in range(rounds)]
    low, high = expected
    assert low <= np.mean([result.bias_seed_sd.value for result in found]) <= high
    covered = np.mean([result.bias_seed_sd.low <= truth <= result.bias_seed_sd.high for result in found])
    assert 0.8 <= covered <= 0.99
    assert all(result.uncorrected_bias_seed_sd >= result.bias_seed_sd.value - 1e-9 for result in found)


def test_uncorrected_noise_alone_looks_like_a_bias():
    generator = np.random.default_rng(2)
    found = [bias_in_seed_sds(draw(generator) - draw(generator), draw(generator)) for _ in range(200)]
    corrected, uncorrected = np.mean(found, axis=0)
    assert corrected < 0.17
    # E|N(0, 2/8)|, in units of a seed sd
    assert uncorrected == pytest.approx(math.sqrt(2 / 8) * math.sqrt(2 / math.pi), abs=0.02)


def test_many_seeds_need_no_correction_and_get_none():
    generator = np.random.default_rng(3)
    separate = draw(generator, num_seeds=4000)
    gaps = draw(generator, num_seeds=4000) - separate + (np.array([1.0, 0.0] * 3) * SEED_SDS)[:, None]
    corrected, uncorrected = bias_in_seed_sds(gaps, separate)
    assert corrected == pytest.approx(0.5, abs=0.02)
    assert uncorrected == pytest.approx(corrected, abs=0.02)


def test_the_unit_is_unbiased_at_few_seeds():
    generator = np.random.default_rng(4)
    shape = (4000, 1, 1, 4)  # 3 degrees of freedom: 1/s alone would be 1.38 on average
    reference = generator.standard_normal(shape)
    _, sizes = bias_in_seed_sds(np.broadcast_to([2.0, 2.0, 2.0, 2.0 + 1e-9], shape), reference)
    assert sizes.mean() == pytest.approx(2.0, abs=0.08)


def test_a_budget_at_which_all_runs_agree_has_no_unit():
    generator = np.random.default_rng(5)
    separate, cheap = draw(generator), draw(generator)
    separate[:, -1, :] = 0.7
    whole = one(separate, cheap)
    kept = bias_in_seed_sds((cheap - separate)[:, :-1], separate[:, :-1])
    assert whole.bias_seed_sd.value == pytest.approx(float(kept[0]), rel=1e-9)
    assert math.isnan(one(np.full_like(separate, 0.7), cheap).bias_seed_sd.value)


def test_right_intervals_cover_as_attainable_and_narrow_ones_do_not():
    generator = np.random.default_rng(6)
    z = stats.norm.ppf(0.95)
    found = {width: [one(draw(generator), draw(generator), width) for _ in range(60)] for width in (z, z / 3)}
    perfect, narrow = ([result.coverage.value for result in found[width]] for width in found)
    attainable = np.mean([result.attainable_coverage for result in found[z]])
    assert 0.86 <= attainable <= 0.9
    assert np.mean(perfect) == pytest.approx(attainable, abs=0.015)
    assert np.mean(narrow) < 0.5
    first = found[z][0]
    assert (first.num_intervals, first.num_interval_runs) == (4 * 6 * 8, 4 * 8)
    assert (first.coverage.low, first.coverage.high) == wilson_interval(first.coverage.value, 32)


def test_without_noise_in_the_truth_right_intervals_cover_nine_in_ten():
    generator = np.random.default_rng(7)
    found = one(draw(generator, num_seeds=600), draw(generator, num_seeds=600), stats.norm.ppf(0.95))
    assert found.coverage.value == pytest.approx(0.9, abs=0.01)
    assert found.attainable_coverage == pytest.approx(0.9, abs=0.001)


def test_an_estimator_without_intervals_has_no_coverage():
    generator = np.random.default_rng(8)
    found = one(draw(generator), draw(generator))
    assert math.isnan(found.coverage.value)
    assert math.isnan(found.attainable_coverage)
    assert found.num_intervals == 0


def test_wilsons_interval_is_scipys():
    theirs = stats.binomtest(27, 32).proportion_ci(0.9, method="wilson")
    assert wilson_interval(27 / 32, 32) == pytest.approx((theirs.low, theirs.high), rel=1e-9)


EFFECTS = np.arange(4.0)[:, None, None]
"""Variants that differ by much more than noise."""


def test_a_perfect_estimator_agrees_on_every_significant_pair_and_a_reversed_one_on_none():
    generator = np.random.default_rng(9)
    separate = EFFECTS + 0.01 * draw(generator)
    right = one(separate, EFFECTS + 0.01 * draw(generator) + 5.0)
    assert (right.agreement, right.num_significant_pairs, right.rank_correlation) == (1.0, 6 * 6, 1.0)
    wrong = one(separate, -EFFECTS + 0.01 * draw(generator))
    assert (wrong.agreement, wrong.rank_correlation) == (0.0, -1.0)


def test_where_variants_are_alike_there_is_nothing_to_agree_on():
    generator = np.random.default_rng(10)
    found = [one(draw(generator), draw(generator), num_resamples=1) for _ in range(200)]
    assert np.mean([result.num_significant_pairs > 0 for result in found]) <= 0.08  # Holm's 5 %
    assert all(math.isnan(result.agreement) for result in found if not result.num_significant_pairs)


def test_agreement_counts_pairs_and_budgets():
    generator = np.random.default_rng(11)
    separate = EFFECTS[:2] + 0.01 * draw(generator, 2)
    cheap = separate.copy()
    cheap[:, 0] = -cheap[:, 0]  # wrong at one budget of six
    found = one(separate, cheap)
    assert (found.agreement, found.num_significant_pairs) == (pytest.approx(5 / 6), 6)
    assert math.isnan(found.rank_correlation)  # two variants


def test_the_same_improvement_has_the_cosine_one_whatever_the_bias():
    generator = np.random.default_rng(12)
    gains = np.array([0.5, 0.4, 0.3, 0.2, 0.1, 0.05])[:, None] * EFFECTS
    found = one(gains + 0.01 * draw(generator), 2 * gains + 7.0 + 0.01 * draw(generator))
    assert found.cosine_similarity > 0.99
    assert [match.variant for match in found.improvements] == ["adam", "rex", "mixup"]
    assert not found.improvement_within_noise


def test_an_improvement_within_noise_is_noted():
    generator = np.random.default_rng(13)
    found = [one(draw(generator, 2), draw(generator, 2), num_resamples=1) for _ in range(200)]
    assert np.mean([result.improvement_within_noise for result in found]) >= 0.91
    assert abs(np.mean([result.cosine_similarity for result in found])) < 0.15


@pytest.mark.parametrize(("num_seeds", "most"), [(3, 0.09), (8, 0.065)])
def test_the_test_of_improvements_errs_about_at_its_level_and_finds_what_is_there(num_seeds: int, most: float):
    generator = np.random.default_rng(14)
    for noise in (draw, draw_one_run):
        null = [improvement_p_value(noise(generator, 1, num_seeds)[0]) for _ in range(1500)]
        assert 0.03 <= np.mean(np.array(null) <= 0.05) <= most
    real = [improvement_p_value(draw(generator, 1, num_seeds)[0] + 2.0) for _ in range(300)]
    assert np.mean(np.array(real) <= 0.05) > 0.75


def test_the_test_of_improvements_at_one_budget_is_the_t_test():
    sample = np.array([0.3, 0.1, 0.5, -0.1])
    assert improvement_p_value(sample[None]) == pytest.approx(stats.ttest_1samp(sample, 0).pvalue, rel=1e-9)


def test_what_diverged_is_counted_and_left_out():
    generator = np.random.default_rng(15)
    separate, cheap = draw(generator), draw(generator)
    whole = one(separate, cheap)
    cheap[0, 5, 0], separate[1, 0, 3] = math.nan, math.inf
    found = one(separate, cheap)
    assert (whole.num_diverged, found.num_diverged) == (0, 2)
    assert (found.num_seeds, found.num_variants, found.num_budgets) == (8, 4, 6)
    assert all(math.isfinite(number) for number in (found.mean_gap.value, found.bias_seed_sd.value))
    gaps = np.where(np.isfinite(cheap) & np.isfinite(separate), cheap - separate, np.nan)
    assert found.mean_gap.value == pytest.approx(np.nanmean(gaps, axis=(0, 1)).mean(), rel=1e-12)


def test_curves_are_paired_by_seed_variant_and_budget_in_any_order():
    generator = np.random.default_rng(16)
    separate, cheap = draw(generator), draw(generator)
    both = curves("separate", separate) + curves("cheap", cheap)
    first = [result for result in both if result.variant == "sgd"]  # the baseline stands first
    others = [result for result in both if result.variant != "sgd"]
    shuffled = fidelity(first + others[::-1], num_resamples=20)[0]
    assert shuffled.mean_gap.value == pytest.approx(one(separate, cheap).mean_gap.value, rel=1e-12)
    half = [result for result in both if result.estimator == "separate" or result.seed < 4]
    assert fidelity(half, num_resamples=20)[0].num_seeds == 4


def test_one_seed_has_values_but_no_intervals():
    generator = np.random.default_rng(17)
    found = one(draw(generator, num_seeds=1), draw(generator, num_seeds=1))
    assert math.isfinite(found.mean_gap.value)
    assert math.isnan(found.mean_gap.low)
    assert math.isnan(found.bias_seed_sd.value)
    assert found.num_significant_pairs == 0
    assert found.improvement_within_noise


def test_tasks_and_estimators_are_told_apart_and_pooled():
    generator = np.random.default_rng(18)
    z = stats.norm.ppf(0.95)
    results = [
        result
        for task in ("a", "b")
        for name in ("separate", "cyclic", "cooldown")
        for result in curves(name, draw(generator), z if (task, name) == ("a", "cyclic") else 0.0, task)
    ]
    found = fidelity(results, higher_is_better={"a": True, "b": False}, num_resamples=20)
    assert [(each.task, each.estimator) for each in found] == [
        ("a", "cyclic"),
        ("a", "cooldown"),
        ("b", "cyclic"),
        ("b", "cooldown"),
    ]
    assert [each.higher_is_better for each in found] == [True, True, False, False]
    cyclic, cooldown = pooled(found)
    assert (cyclic.estimator, cyclic.num_tasks, cyclic.bias_seed_sd.num_tasks) == ("cyclic", 2, 2)
    assert cyclic.bias_seed_sd.value == pytest.approx((found[0].bias_seed_sd.value + found[2].bias_seed_sd.value) / 2)
    assert (cyclic.coverage.value, cyclic.coverage.num_tasks) == (found[0].coverage.value, 1)
    assert (cooldown.coverage.num_tasks, cooldown.planned_cost.value) == (0, 1.0)
    assert math.isnan(cooldown.coverage.value)
    assert cooldown.measured_cost.value == pytest.approx(1.1)


def test_the_answer_is_a_pure_function_of_the_results():
    generator = np.random.default_rng(19)
    separate, cheap = draw(generator), draw(generator)
    assert one(separate, cheap).bias_seed_sd == one(separate, cheap).bias_seed_sd


def test_errors_say_what_is_missing():
    generator = np.random.default_rng(20)
    both = curves("separate", draw(generator)) + curves("cheap", draw(generator))
    with pytest.raises(ValueError, match=r"t / sgd / separate / seed 0 is given twice"):
        fidelity([*both, both[0]])
    with pytest.raises(ValueError, match=r"task 't' has no curve of 'cosine'. It has: separate, cheap\."):
        fidelity(both, reference="cosine")
    with pytest.raises(ValueError, match="has variant, seed and budget in common"):
        fidelity([r for r in both if (r.seed < 4) == (r.estimator == "cheap")])
    with pytest.raises(ValueError, match=r"must have 0 < T_1 < T_2"):
        CurveResult("t", "v", "e", 0, (200, 100), (1.0, 2.0))
    with pytest.raises(ValueError, match="has 1 values for 2 budgets"):
        CurveResult("t", "v", "e", 0, (100, 200), (1.0,))
    with pytest.raises(ValueError, match="2 lows and 0 highs"):
        CurveResult("t", "v", "e", 0, (100, 200), (1.0, 2.0), (0.0, 1.0))
