"""Laws of ranking: the paper's counting rules, and what the expected counts and their intervals mean."""

import json
import math
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from glideslope.report.coverage import Model, fit_model, measure_coverage, simulate
from glideslope.report.panel import Design, panel, resample_cells
from glideslope.report.ranking import cell_ranks, expected_ranking, mean_ranks, nominal_ranking, top_masks
from glideslope.report.results import Cell

NAN = math.nan


def cell(scores: dict[str, list[float]], task: str = "t", budget: float = 5.0, optimizer: str = "sgdm") -> Cell:
    return Cell(
        task,
        optimizer,
        f"{budget:g}%",
        budget / 100,
        "low" if budget < 25 else "high",
        {name: dict(enumerate(values)) for name, values in scores.items()},
    )


def study(generator: np.random.Generator, task_std: float = 0.0, num_tasks: int = 2, seeds: int = 3) -> list[Cell]:
    standing = task_std * generator.standard_normal((num_tasks, 4))
    return [
        cell(
            {f"s{k}": list(standing[t, k] + generator.standard_normal(seeds)) for k in range(4)},
            task=f"task{t}",
            budget=budget,
        )
        for t in range(num_tasks)
        for budget in (1, 5, 10, 25, 50, 100)
    ]


def test_counts_worked_by_hand():
    cells = [
        cell({"a": [1.0, 3.0], "b": [2.0, 2.0], "c": [4.0, 4.0], "d": [5.0, 5.0], "e": [4.0, 4.0]}, budget=1),
        cell({"a": [9.0, 9.0], "b": [1.0, 1.0], "c": [2.0, 2.0], "d": [3.0, 3.0], "e": [NAN, 0.0]}, budget=50),
        cell({"a": [1.0, 1.0], "b": [2.0, 2.0], "c": [3.0, 3.0], "d": [4.0, 4.0], "e": [5.0, 5.0]}, budget=100),
    ]
    ranking = nominal_ranking(cells)
    assert ranking.num_cells == {"low": 1, "high": 2, "overall": 3}
    top = {name: [(c.top1, c.top3) for c in counts.values()] for name, counts in ranking.counts.items()}
    # In the first cell a and b tie for the best, so both are Top-1; c and e tie with two strictly better: both Top-3.
    assert top == {
        "a": [(1, 1), (1, 1), (2, 2)],
        "b": [(1, 1), (1, 2), (2, 3)],
        "c": [(0, 1), (0, 2), (0, 3)],
        "d": [(0, 0), (0, 1), (0, 1)],
        "e": [(0, 1), (0, 0), (0, 1)],
    }
    assert ranking.counts["a"]["overall"].top1_percent == pytest.approx(200 / 3)


def test_the_json_has_the_promised_shape_and_null_where_a_regime_has_no_cell():
    document = json.loads(json.dumps(nominal_ranking([cell({"a": [1.0], "b": [2.0]})]).to_json(), allow_nan=False))
    assert document["cells"] == {"low": 1, "high": 0, "overall": 1}
    assert document["schedules"]["a"] == {
        "low": {"top1": 1, "top3": 1, "top1_percent": 100.0, "top3_percent": 100.0},
        "high": {"top1": 0, "top3": 0, "top1_percent": None, "top3_percent": None},
        "overall": {"top1": 1, "top3": 1, "top1_percent": 100.0, "top3_percent": 100.0},
    }


def test_direction_may_differ_from_task_to_task():
    cells = [cell({"a": [1.0], "b": [2.0]}, task="error"), cell({"a": [1.0], "b": [2.0]}, task="accuracy")]
    ranking = nominal_ranking(cells, higher_is_better={"error": False, "accuracy": True})
    assert [ranking.counts[name]["overall"].top1 for name in "ab"] == [1, 1]
    with pytest.raises(ValueError, match="no direction is given for task 'accuracy'"):
        nominal_ranking(cells, higher_is_better={"error": False})


def test_a_diverged_schedule_is_never_top_even_among_few_and_whatever_the_direction():
    for higher in (False, True):
        counts = nominal_ranking([cell({"a": [1.0], "b": [NAN]})], higher_is_better=higher).counts
        assert (counts["b"]["low"].top1, counts["b"]["low"].top3) == (0, 0)
    counts = nominal_ranking([cell({"a": [NAN], "b": [NAN]})]).counts
    assert [counts[name]["low"].top3 for name in "ab"] == [0, 0]


def test_sums_that_are_equal_in_decimal_tie():
    assert (0.1 + 0.5) / 2 != (0.2 + 0.4) / 2
    counts = nominal_ranking([cell({"a": [0.1, 0.5], "b": [0.2, 0.4]})]).counts
    assert [counts[name]["low"].top1 for name in "ab"] == [1, 1]


def test_merging_takes_the_better_mean_in_each_cell():
    cells = [
        cell({"rex": [2.0, 2.0], "step": [1.0, 4.0], "plateau": [0.0, 6.0]}, budget=1),
        cell({"rex": [2.0, 2.0], "step": [3.0, 3.0], "plateau": [1.0, 1.0]}, budget=100),
    ]
    merged = nominal_ranking(cells, merge={"step": ("step", "plateau")})
    assert list(merged.counts) == ["rex", "step"]
    # In the first cell the better mean is 2.5: seeds are not picked apart, which would give 0.5.
    assert [merged.counts[name]["overall"].top1 for name in ("rex", "step")] == [1, 1]


def test_a_merged_entry_may_lack_a_member_in_a_cell_but_a_schedule_may_not_be_missing():
    cells = [
        cell({"rex": [2.0], "step": [3.0], "plateau": [1.0]}, budget=1),
        cell({"rex": [2.0], "step": [3.0]}, budget=100),
    ]
    assert nominal_ranking(cells, merge={"step": ("step", "plateau")}).counts["step"]["overall"].top1 == 1
    with pytest.raises(ValueError, match=r"cell t / sgdm / 100% has no result for 'plateau'.*`diverged`"):
        nominal_ranking(cells)


@pytest.mark.parametrize(
    ("merge", "message"),
    [
        ({"step": ("step", "platau")}, "unknown schedule 'platau'. Known: rex, step, plateau"),
        ({"x": ("step", "plateau"), "y": ("step", "rex")}, "'step' is merged twice, into 'x' and 'y'"),
        ({"rex": ("step", "plateau")}, "has the name of a schedule that is not one of its members"),
    ],
)
def test_a_wrong_merge_is_named(merge, message):
    with pytest.raises(ValueError, match=message):
        nominal_ranking([cell({"rex": [2.0], "step": [3.0], "plateau": [1.0]})], merge=merge)


LOSSES = st.lists(st.one_of(st.integers(0, 4).map(float), st.just(math.inf)), min_size=1, max_size=7)


@given(LOSSES)
def test_top_masks_equal_their_definition(losses):
    top1, top3 = top_masks(np.array(losses))
    better = [sum(other < own for other in losses) for own in losses]
    assert top1.tolist() == [count == 0 and math.isfinite(own) for count, own in zip(better, losses, strict=True)]
    assert top3.tolist() == [count < 3 and math.isfinite(own) for count, own in zip(better, losses, strict=True)]


@given(LOSSES)
def test_ranks_equal_scipys(losses):
    assert cell_ranks(np.array([losses]))[0].tolist() == stats.rankdata(losses).tolist()


def test_mean_ranks_average_inside_tasks_first():
    cells = [
        cell({"a": [1.0], "b": [2.0]}, task="x", budget=1),
        cell({"a": [1.0], "b": [2.0]}, task="x", budget=5),
        cell({"a": [1.0], "b": [2.0]}, task="x", budget=50),
        cell({"a": [2.0], "b": [1.0]}, task="y", budget=50),
    ]
    ranks = mean_ranks(cells)
    assert ranks.by_regime["overall"].tolist() == [1.25, 1.75]
    assert ranks.by_regime["high"].tolist() == [1.5, 1.5]
    assert ranks.by_task.tolist() == [[1.0, 2.0], [2.0, 1.0]]
    assert ranks.by_task.mean(axis=0).tolist() == [1.5, 1.5]


def test_without_seed_noise_expected_equals_nominal():
    cells = [
        cell({"a": [1.0, 1.0], "b": [2.0, 2.0], "c": [3.0, 3.0], "d": [4.0, 4.0]}, budget=5),
        cell({"a": [2.0, 2.0], "b": [1.0, 1.0], "c": [3.0, 3.0], "d": [4.0, 4.0]}, budget=50),
    ]
    nominal = nominal_ranking(cells)
    expected = expected_ranking(cells, np.random.default_rng(0), num_resamples=50)
    for name, counts in nominal.counts.items():
        for regime, count in counts.items():
            assert expected.shares[name][regime].top1.value == pytest.approx(count.top1_percent)
            assert expected.shares[name][regime].top3.value == pytest.approx(count.top3_percent)


def test_seeds_are_resampled_jointly_for_all_schedules():
    # b is worse than a by 0.1 at every seed, and seeds differ by 10: only unpaired resampling could put b first.
    seeds = np.array([0.0, 10.0, 20.0])
    cells = [cell({"a": list(seeds), "b": list(seeds + 0.1)}, budget=budget) for budget in (1, 100)]
    share = expected_ranking(cells, np.random.default_rng(0), num_resamples=500).shares["b"]["overall"].top1
    assert (share.value, share.low, share.high) == (0.0, 0.0, 0.0)


def test_a_hair_of_a_lead_counts_half_when_expected():
    # The means differ by 0.001 with seed differences of ±1: nominally a always wins, expected about half the time.
    cells = [cell({"a": [0.0, 1.0, 2.0, 3.0], "b": [3.001, 2.001, 1.001, 0.001]}, budget=5)]
    assert nominal_ranking(cells).counts["a"]["low"].top1_percent == 100
    share = expected_ranking(cells, np.random.default_rng(0), num_resamples=4000).shares["a"]["low"].top1.value
    assert 45 < share < 75


def test_equal_generators_give_equal_intervals_and_a_single_seed_is_refused():
    cells = study(np.random.default_rng(0))
    first, second = (expected_ranking(cells, np.random.default_rng(1), num_resamples=100) for _ in range(2))
    assert first == second
    with pytest.raises(ValueError, match="one seed, but expected Top-k needs two or more"):
        expected_ranking(study(np.random.default_rng(0), seeds=1), np.random.default_rng(0))


def test_cells_with_fewer_seeds_never_draw_the_padding():
    cells = [
        cell({"a": [1.0, 1.0, 1.0], "b": [2.0, 2.0, 2.0]}, budget=5),
        cell({"a": [1.0, 1.0], "b": [2.0, 2.0]}, budget=10),
    ]
    share = expected_ranking(cells, np.random.default_rng(0), num_resamples=200).shares["a"]["low"].top1
    assert (share.value, share.low, share.high) == (100.0, 100.0, 100.0)


def test_resampled_cells_belong_to_the_drawn_task_and_regime():
    cells = [
        cell({"a": [1.0]}, task=task, budget=budget)
        for task, budgets in (("x", (1, 5, 50)), ("y", (10, 25, 50, 100)), ("z", (100,)))
        for budget in budgets
    ]
    design = panel(cells, ["a"]).design
    slots = resample_cells(design, 500, np.random.default_rng(0))
    for drawn, valid in zip(slots.cells, slots.valid, strict=True):
        assert (design.low_budget[drawn[valid]] == slots.low_budget[valid]).all()
        # Every drawn task brings as many cells as it has, so each task's count is a multiple of its number of cells.
        counts = np.bincount(design.task[drawn[valid]], minlength=3)
        assert (counts % [3, 4, 1] == 0).all()
        assert (counts / [3, 4, 1]).sum() == 3


def test_the_fitted_model_finds_the_spreads_it_was_simulated_from():
    generator = np.random.default_rng(0)
    num_tasks, num_cells, schedules, seeds = 40, 12, 6, 3
    effects = np.array([-1.0, -0.5, 0.0, 0.0, 0.5, 1.0])
    task = np.repeat(np.arange(num_tasks), num_cells)
    standing = (
        effects
        + 0.8 * generator.standard_normal((num_tasks, schedules))[task]
        + 1.5 * generator.standard_normal((task.size, schedules))
    )
    noise = generator.standard_normal((task.size, seeds, schedules))
    seed_effect = 3.0 * generator.standard_normal((task.size, seeds, 1))
    losses = 2.0 * (standing[:, None, :] + noise) + seed_effect  # a cell's scale and its seeds' ease are no part of it
    cells = [
        cell({f"s{k}": list(losses[i, :, k]) for k in range(schedules)}, task=f"t{t}", optimizer=f"o{i}")
        for i, t in enumerate(task)
    ]
    data = panel(cells, [f"s{k}" for k in range(schedules)])
    model = fit_model(data.losses, data.design)
    # 480 cells and 200 contrasts between tasks: standard errors of about 2 % and 5 %.
    assert model.cell_std == pytest.approx(1.5, rel=0.08)
    assert model.task_std == pytest.approx(0.8, rel=0.2)
    assert model.effects == pytest.approx(effects, abs=0.4)


@pytest.mark.parametrize(("task_std", "cell_std"), [(1.0, 0.0), (0.0, 1.0), (1.5, 0.5)])
def test_simulated_studies_have_the_spreads_of_their_model(task_std, cell_std):
    task = np.repeat(np.arange(60), 8)
    design = Design(task, np.arange(task.size) % 2 == 0, np.full(task.size, 3))
    model = Model(np.linspace(-1.0, 1.0, 8), task_std, cell_std)
    fitted = fit_model(simulate(model, design, 3, np.random.default_rng(0)), design)
    # Each cell is scaled by a standard deviation of its own 14 degrees of freedom, which leaks a little into cell_std.
    assert fitted.task_std == pytest.approx(task_std, abs=0.15)
    assert fitted.cell_std == pytest.approx(cell_std, abs=0.3)
    assert fitted.effects == pytest.approx(model.effects, abs=0.4)


def test_two_tasks_that_differ_are_shown_to_make_a_rough_interval_and_ten_a_better_one():
    two = measure_coverage(study(np.random.default_rng(2), task_std=2.0), np.random.default_rng(1), num_studies=100)
    ten = measure_coverage(
        study(np.random.default_rng(2), task_std=2.0, num_tasks=10), np.random.default_rng(1), num_studies=50
    )
    assert two.top1["overall"] < 0.85 < ten.top1["overall"]
    assert two.model.task_std > 1
    assert "2 tasks" in two.sentence()


def test_where_tasks_do_not_differ_the_interval_covers():
    coverage = measure_coverage(study(np.random.default_rng(0)), np.random.default_rng(1), num_studies=100)
    assert coverage.top1["overall"] > 0.9
    assert coverage.top3["overall"] > 0.9


def test_coverage_can_be_measured_where_nothing_can_be_fitted():
    cells = [cell({"a": [1.0, 1.0], "b": [2.0, NAN]}, budget=5)]
    coverage = measure_coverage(cells, np.random.default_rng(0), num_studies=10)
    assert (coverage.model.task_std, coverage.model.cell_std) == (0.0, 0.0)
    assert math.isnan(coverage.top1["high"])


class TestTwins:
    """A plateau that never fell is the run of none: it must not carry the step schedule to none's place."""

    merge: ClassVar = {"step": ("step", "plateau")}
    falls_never: ClassVar = {
        "none": [2.0, 2.2],
        "step": [9.0, 9.1],
        "plateau": [2.0, 2.2],
        "linear": [1.0, 1.1],
        "cosine": [3.0, 3.1],
        "rex": [4.0, 4.1],
    }

    def test_it_does_not_count_as_step(self):
        cells = [cell(self.falls_never)]
        counts = nominal_ranking(cells, merge=self.merge).counts
        assert [counts[name]["overall"].top3 for name in ("none", "step", "linear", "cosine", "rex")] == [1, 0, 1, 1, 0]
        assert mean_ranks(cells, merge=self.merge).by_regime["overall"].tolist() == [2, 5, 1, 3, 4]
        expected = expected_ranking(cells, np.random.default_rng(0), merge=self.merge).shares
        assert expected["step"]["overall"].top3.value == 0

    def test_one_that_fell_at_one_seed_does(self):
        cells = [cell(self.falls_never | {"plateau": [2.0, 2.3]})]
        counts = nominal_ranking(cells, merge=self.merge).counts
        assert (counts["step"]["overall"].top1, counts["step"]["overall"].top3) == (0, 1)

    def test_without_a_merge_all_stand_for_themselves(self):
        assert nominal_ranking([cell(self.falls_never)]).counts["plateau"]["overall"].top3 == 1

    def test_the_order_of_members_does_not_matter(self):
        counts = nominal_ranking([cell(self.falls_never)], merge={"step": ("plateau", "step")}).counts
        assert counts["step"]["overall"].top3 == 0

    def test_one_that_only_ties_with_another_schedule_is_its_own(self):
        scores = self.falls_never | {"plateau": [1.0, 1.1]}  # linear's
        assert nominal_ranking([cell(scores)], merge=self.merge).counts["step"]["overall"].top1 == 1

    def test_a_cell_without_a_step_schedule(self):
        without = {name: scores for name, scores in self.falls_never.items() if name != "step"}
        counts = nominal_ranking([cell(self.falls_never), cell(without, budget=10.0)], merge=self.merge).counts
        assert counts["step"]["overall"].top3 == 1
