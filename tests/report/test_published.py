"""Our cells beside what the REX paper printed."""

import math

import numpy as np
import pytest

from glideslope.report.published import SCORES, TOP, agreements, top_table
from glideslope.report.ranking import expected_ranking, nominal_ranking
from glideslope.report.results import Result, group

THEIRS = SCORES["cifar10-resnet20", "adam", "1%"]


def cell(scores, task="cifar10-resnet20", optimizer="adam", budget="1%", noise=0.0, seeds=3):
    """A cell with these means; seeds differ by `noise`, all schedules alike."""
    runs = [
        Result(task, optimizer, budget, 0.01, name, seed, mean + noise * (seed - (seeds - 1) / 2))
        for name, mean in scores.items()
        for seed in range(seeds)
    ]
    return group(runs)[0]


def means(sign=1.0):
    return {name: sign * mean for name, (mean, _) in THEIRS.items()}


def agreement(one):
    (found,) = agreements([one], np.random.default_rng(0))
    return found


def test_the_same_ranking_agrees():
    found = agreement(cell(means(), noise=0.1))
    assert found.kendall.value == pytest.approx(1)
    assert found.kendall.low > 0.8
    assert found.schedules[0] == "rex"


def test_the_weight_decay_of_the_recipe_changes_no_column():
    assert agreement(cell(means(), optimizer="adam(weight_decay=1e-4)")).kendall.value == pytest.approx(1)
    for other in ("adam(eps=1e-4)", "adam(weight_decay=1e-4, eps=1e-4)", "adamw(weight_decay=1e-4)"):
        assert agreements([cell(means(), optimizer=other)], np.random.default_rng(0)) == []


def test_the_opposite_ranking_disagrees():
    assert agreement(cell(means(-1.0))).kendall.value == pytest.approx(-1)


def test_runs_that_scatter_have_a_wider_interval():
    generator = np.random.default_rng(1)
    runs = [
        Result("cifar10-resnet20", "adam", "1%", 0.01, name, seed, mean + generator.normal(0, 6))
        for name, (mean, _) in THEIRS.items()
        for seed in range(3)
    ]
    wide, narrow = agreement(group(runs)[0]).kendall, agreement(cell(means())).kendall
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_one_seed_has_no_interval():
    found = agreement(cell(means(), seeds=1))
    assert found.kendall.value == pytest.approx(1)
    assert math.isnan(found.kendall.low)
    assert "without an interval" in found.to_table("error, %").note


def test_neighbours_of_the_paper_are_not_told_apart_by_an_error_that_nobody_knows():
    assert agreement(cell(means())).kendall.low < 1


def test_a_schedule_that_diverges_is_last():
    scores = means() | {"rex": math.nan}
    found = agreement(cell(scores))
    assert found.kendall.value < 1
    (row,) = [row for row in found.to_table("error, %").rows if row[0] == "rex"]
    assert (row[3], row[4]) == ("8", "1")


@pytest.mark.parametrize("change", [{"task": "mnist-vae"}, {"optimizer": "adamw"}, {"budget": "5%"}])
def test_cells_that_the_paper_has_not_are_left_out(change):
    assert agreements([cell(means(), **change)], np.random.default_rng(0)) == []


def test_two_schedules_are_no_ranking():
    few = {name: mean for name, mean in means().items() if name in ("rex", "linear")}
    assert agreements([cell(few)], np.random.default_rng(0)) == []


def test_the_table_says_both_sides():
    text = agreement(cell(means(), noise=0.5)).to_table("error, %").to_text()
    (line,) = [line for line in text.splitlines() if line.startswith("rex")]
    assert "27.64" in line
    assert "0.02" in line
    assert "Kendall's tau" in text


CELLS = (cell(means(), noise=0.5), cell(means(), optimizer="sgdm", noise=0.5))


class TestTopTable:
    def test_shares_of_both(self):
        table = top_table(nominal_ranking(CELLS), None)
        by_name = {row[0]: row[1:] for row in table.rows}
        assert by_name["rex"] == ("100 %", "100 %", "70 %", "92 %")
        assert by_name["step"] == ("0 %", "0 %", "", "")
        assert "2 cells" in table.note

    def test_expected_shares_have_intervals(self):
        expected = expected_ranking(CELLS, np.random.default_rng(0))
        table = top_table(nominal_ranking(CELLS), expected)
        assert table.columns[3] == "expected Top-1"
        assert "[" in table.rows[0][3]

    def test_the_order_by_top3_is_compared(self):
        same = {name: 100 - share for name, (_, share) in TOP.items()}
        assert "5 schedules: " in top_table(nominal_ranking([cell(same)]), None).note
