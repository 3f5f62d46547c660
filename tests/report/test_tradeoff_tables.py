"""Laws of the tables of tradeoff curves: numbers stand in their places, nothing is flattered, JSON is strict."""

import json
import math

import numpy as np
import pytest

from glideslope.report.fidelity import CurveResult, fidelity, pooled
from glideslope.report.panel import Estimate
from glideslope.report.tables import Table, Tally, Value
from glideslope.report.tradeoff_tables import (
    RateScore,
    cost_table,
    coupling,
    coupling_table,
    curve_table,
    fidelity_json,
    fidelity_table,
    pooled_table,
)

BUDGETS = (100, 200, 400)


def results(task: str = "digits") -> list[CurveResult]:
    """Three variants, four seeds; "anytime" has intervals, "rough" is reversed and free of charge."""
    generator = np.random.default_rng(0)
    found = []
    for variant, effect in {"base": 0.0, "mixup": 1.0, "twin": 0.0}.items():
        for seed in range(4):
            for estimator, sign, planned, measured in (
                ("separate", 1, 1.75, 1.8),
                ("anytime", 1, 1.1, 1.2),
                ("rough", -1, 1.0, math.nan),
            ):
                values = sign * effect + np.array([0.5, 0.7, 0.8]) + 0.01 * generator.standard_normal(3)
                ends = (tuple(values - 0.02), tuple(values + 0.02)) if estimator == "anytime" else ((), ())
                found.append(
                    CurveResult(task, variant, estimator, seed, BUDGETS, tuple(values), *ends, planned, measured)
                )
    return found


def column(table: Table, name: str) -> dict[object, object]:
    place = table.columns.index(name)
    return {row[0]: row[place] for row in table.rows}


def test_the_table_of_fidelity_shows_the_numbers_of_fidelity():
    found = fidelity(results(), higher_is_better=True)
    table = fidelity_table(found)
    assert [row[0] for row in table.rows] == ["anytime", "rough"]
    for one in found:
        assert column(table, "gap")[one.estimator] == one.mean_gap.value
        assert column(table, "±")[one.estimator] == pytest.approx(one.mean_gap.high - one.mean_gap.value)
        assert column(table, "bias, seed sd")[one.estimator] == one.bias_seed_sd
        assert column(table, "cosine")[one.estimator] == one.cosine_similarity
    assert column(table, "agreement") == {"anytime": Tally(6, 100.0), "rough": Tally(0, 0.0)}
    assert "4 seeds, 3 variants, 3 budgets." in table.note
    assert "higher is better" in table.note
    assert "Improvement within noise, so that its cosine says nothing: twin." in table.note
    assert "36 nominal 90 % intervals of 12 runs" in table.note
    lines = table.to_text().splitlines()
    assert lines[0] == "digits: fidelity to separate"
    assert all(len(line) <= 120 for line in lines)


def test_no_significant_pair_is_no_agreement():
    alike = [result for result in results() if result.variant != "mixup"]
    table = fidelity_table(fidelity(alike))
    assert set(column(table, "agreement").values()) == {Tally(0, None)}


def test_a_table_of_fidelity_is_about_one_task():
    found = fidelity(results("a") + results("b"), num_resamples=5)
    with pytest.raises(ValueError, match="about one task, but was given a, b"):
        fidelity_table(found)


def test_the_pooled_table_has_a_row_per_estimator():
    found = fidelity(results("a") + results("b"), num_resamples=5)
    table = pooled_table(pooled(found))
    assert [row[:2] for row in table.rows] == [("anytime", 2), ("rough", 2)]
    assert column(table, "agreement, %") == {"anytime": 100.0, "rough": 0.0}
    assert column(table, "planned cost") == {"anytime": pytest.approx(1.1), "rough": 1.0}


def test_the_table_of_curves_has_means_and_seed_sds():
    base = [result for result in results() if result.variant == "base"]
    base[0] = CurveResult("digits", "base", "separate", 0, BUDGETS, (math.nan, *base[0].values[1:]))
    table = curve_table(base, "accuracy")
    assert table.columns == ("budget", "separate", "anytime", "rough")
    assert [row[0] for row in table.rows] == ["100", "200", "400"]
    values = [result.values[2] for result in base if result.estimator == "anytime"]
    assert column(table, "anytime")["400"] == Value(
        pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1))
    )
    flagged = column(table, "separate")["100"]
    assert isinstance(flagged, Value)
    assert flagged.flags == ("diverged",)
    others = [result.values[0] for result in base[1:] if result.estimator == "separate"]
    assert flagged.mean == pytest.approx(np.mean(others))
    assert "‡ some seeds diverged" in table.note


def test_a_budget_that_an_estimator_does_not_have_is_empty():
    curves = [
        CurveResult("t", "v", "separate", 0, (100, 200), (1.0, 2.0)),
        CurveResult("t", "v", "anytime", 0, (200, 300), (2.0, 3.0)),
    ]
    lines = curve_table(curves, "loss").to_text().splitlines()
    assert [line.split() for line in lines[2:5]] == [
        ["100", "1.00", "-"],
        ["200", "2.00", "2.00"],
        ["300", "-", "3.00"],
    ]


def test_costs_are_compared_plan_with_plan_and_measurement_with_measurement():
    table = cost_table(results())
    assert column(table, "planned") == {"separate": pytest.approx(1.75), "anytime": pytest.approx(1.1), "rough": 1.0}
    assert column(table, "speed-up, ×")["anytime"] == pytest.approx(1.75 / 1.1)
    assert column(table, "saved, planned %")["rough"] == pytest.approx(100 * (1 - 1 / 1.75))
    assert column(table, "saved, measured %")["anytime"] == pytest.approx(100 * (1 - 1.2 / 1.8))
    assert math.isnan(column(table, "saved, measured %")["rough"])
    assert "ρ = 1.75" in table.note


def test_a_reference_without_a_plan_costs_rho():
    curves = [
        CurveResult("t", "v", "separate", 0, (16, 32, 64, 128, 256, 512), (1.0,) * 6),
        CurveResult("t", "v", "cyclic", 0, (16, 32, 64, 128, 256, 512), (1.0,) * 6, planned_cost=1.0),
    ]
    assert column(cost_table(curves), "speed-up, ×")["cyclic"] == pytest.approx(1008 / 512)
    with pytest.raises(ValueError, match=r"no curve of 'separate'\. There are: cyclic"):
        cost_table(curves[1:])


def bowl(generator: np.random.Generator, noise: float, num_seeds: int = 6) -> list[RateScore]:
    """Scores of rates 0.01 … 1 by a bowl in log rate whose bottom falls with the budget, tenfold over 4 ×."""
    bottoms = {100: -0.5, 200: -1.0, 400: -1.5}
    return [
        RateScore(budget, 10.0**exponent, seed, (exponent - bottom) ** 2 + noise * float(generator.standard_normal()))
        for budget, bottom in bottoms.items()
        for exponent in (-2.0, -1.5, -1.0, -0.5, 0.0)
        for seed in range(num_seeds)
    ]


def test_the_best_rate_moves_and_one_rate_loses_what_the_bowl_says():
    found = coupling(bowl(np.random.default_rng(0), 0.01))
    assert [one.best_rate for one in found] == [pytest.approx(10.0**e) for e in (-0.5, -1.0, -1.5)]
    assert [one.loss.value for one in found] == [pytest.approx(e, abs=0.03) for e in (1.0, 0.25, 0.0)]
    assert not any(one.is_edge for one in found)
    assert found[0].loss.low <= 1.0 <= found[0].loss.high
    assert found[-1].loss == Estimate(0.0, 0.0, 0.0)
    upside_down = [RateScore(s.budget, s.rate, s.seed, -s.score) for s in bowl(np.random.default_rng(0), 0.01)]
    assert coupling(upside_down, higher_is_better=True) == found


def test_where_no_rate_is_better_retuning_gains_nothing():
    generator = np.random.default_rng(1)
    losses = []
    for _ in range(150):
        scores = [
            RateScore(budget, rate, seed, float(generator.standard_normal()))
            for budget in (100, 200)
            for rate in (0.1, 0.3, 1.0)
            for seed in range(4)
        ]
        losses.append(coupling(scores, shared_rate=0.3)[0].loss.value)
    # The best of three means of four seeds, chosen on the seeds it is scored on, would look better by 0.42.
    assert abs(np.mean(losses)) < 0.13


def test_a_rate_at_the_edge_is_marked_and_a_diverged_one_loses():
    by_budget = {100: {0.1: 3.0, 0.3: 2.0, 1.0: 1.0}, 200: {0.1: 2.0, 0.3: 1.0, 1.0: math.nan}}
    scores = [
        RateScore(budget, rate, seed, score + 0.01 * seed)
        for budget, by_rate in by_budget.items()
        for rate, score in by_rate.items()
        for seed in range(2)
    ]
    small, large = coupling(scores, shared_rate=1.0)
    assert (small.best_rate, small.is_edge, large.best_rate, large.is_edge) == (1.0, True, 0.3, False)
    assert large.loss.value == math.inf
    table = coupling_table((small, large), "digits, sgd", "error, %")
    assert [row[1] for row in table.rows] == ["1 †", "0.3"]
    assert "† the edge" in table.note
    assert json.dumps(table.to_json(), allow_nan=False)


def test_errors_of_coupling_say_what_was_tried():
    scores = bowl(np.random.default_rng(2), 0.0)
    with pytest.raises(ValueError, match=r"the shared rate 0.2 was not tried at 100 updates; tried: 0.01, 0.0316"):
        coupling(scores, shared_rate=0.2)
    with pytest.raises(ValueError, match="at 100 updates not every rate has the seeds"):
        coupling(scores[1:])
    with pytest.raises(ValueError, match="there are no scores"):
        coupling([])


def test_the_json_has_its_keys_and_is_strict():
    found = fidelity(results("a") + results("b"), higher_is_better=True, num_resamples=5)
    data = json.loads(json.dumps(fidelity_json(found), allow_nan=False))
    assert {task: list(by_name) for task, by_name in data.items()} == {t: ["anytime", "rough"] for t in "ab"}
    wanted = {"planned_cost", "measured_cost", "mean_gap", "bias_seed_sd", "coverage", "agreement", "cosine_similarity"}
    for one in found:
        mine = data[one.task][one.estimator]
        assert wanted <= set(mine)
        assert mine["mean_gap"] == one.mean_gap.value
        assert mine["bias_seed_sd_interval"] == [one.bias_seed_sd.low, one.bias_seed_sd.high]
    assert data["a"]["rough"]["coverage"] is None
    assert data["a"]["rough"]["coverage_interval"] == [None, None]
    assert data["a"]["rough"]["measured_cost"] is None
    assert data["a"]["anytime"]["improvements"]["twin"]["within_noise"] is True
