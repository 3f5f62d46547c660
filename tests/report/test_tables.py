"""Laws of tables: nothing is lost, escaped or rounded wrongly between an answer and its text, HTML and JSON."""

import json
import math

import numpy as np
import pytest

from glideslope.report.panel import Estimate
from glideslope.report.ranking import expected_ranking, mean_ranks, nominal_ranking
from glideslope.report.results import Cell
from glideslope.report.statistics import (
    cell_variation,
    probability_of_improvement,
    smallest_detectable_difference,
    tied_with_best,
)
from glideslope.report.study_tables import (
    detectable_table,
    expected_json,
    expected_table,
    improvement_table,
    mean_ranks_table,
    ranking_table,
    scores_table,
)
from glideslope.report.tables import Table, Tally, Value, explained_flags

NAN = math.nan
NASTY = "</script><b>&\"'"


def strict(table: Table) -> dict:
    return json.loads(json.dumps(table.to_json(), allow_nan=False))


def cells() -> list[Cell]:
    generator = np.random.default_rng(0)
    levels = {"rex": 10.0, "step": 10.2, "none": 20.0}
    return [
        Cell(
            "mlp",
            "sgdm",
            f"{budget}%",
            budget / 100,
            "low" if budget < 25 else "high",
            {name: {s: level + float(generator.standard_normal()) for s in range(3)} for name, level in levels.items()},
        )
        for budget in (5, 50)
    ]


def test_json_is_strict_and_unrounded():
    rows = (
        ("a", Value(1 / 3, NAN), Tally(1, None), Estimate(NAN, -math.inf, 2 / 3), math.inf, 7),
        ("b", Value(NAN), Tally(2, 50.0), Estimate(1.0, 0.5, 2.0), 0.125, "-"),
    )
    document = strict(Table("t", ("n", "v", "c", "e", "f", "x"), rows, "note"))
    assert document["rows"] == [
        [
            "a",
            {"mean": 1 / 3, "std": None, "tied": False, "flags": []},
            {"count": 1, "percent": None},
            {"value": None, "low": None, "high": 2 / 3},
            None,
            7,
        ],
        [
            "b",
            {"mean": None, "std": None, "tied": False, "flags": []},
            {"count": 2, "percent": 50.0},
            {"value": 1.0, "low": 0.5, "high": 2.0},
            0.125,
            "-",
        ],
    ]


def test_html_escapes_every_text():
    table = Table(NASTY, ("schedule", NASTY), ((NASTY, NASTY),), NASTY)
    assert "<b>" not in table.to_html()
    assert "</script" not in table.to_html()
    assert table.to_html().count("&lt;/script&gt;&lt;b&gt;&amp;&quot;&#x27;") == 5


def test_decimals_follow_the_spread_whatever_the_unit():
    def text(mean: float, std: float) -> str:
        return Table("t", ("n", "v"), (("a", Value(mean, std)),)).to_text().splitlines()[2].split()[1]

    assert text(41.2345, 1.234) == "41.2±1.2"
    assert text(0.0123456, 0.00045) == "0.01235±0.00045"
    assert text(1234.5, 120.0) == "1234±120"
    assert text(0.5, NAN) == "0.500"


def test_marked_and_unmarked_numbers_line_up_in_text():
    rows = (("a", Value(10.0, 1.0, tied=True, flags=("at_limit",))), ("b", Value(9.0, 1.0)))
    lines = Table("t", ("n", "5%"), rows).to_text().splitlines()
    assert lines[2].endswith("10.0±1.0*†")
    assert lines[2].index("±") == lines[3].index("±")


@pytest.mark.parametrize(
    ("scores", "value", "text"),
    [
        ([1.0, 3.0], Value(2.0, math.sqrt(2.0), flags=("at_limit",)), "2.0±1.4†"),
        ([1.0, math.inf, 3.0, NAN], Value(2.0, math.sqrt(2.0), flags=("at_limit", "diverged")), "2.0±1.4†‡"),
        ([3.0, -math.inf], Value(3.0, flags=("at_limit", "diverged")), "3.00†‡"),
    ],
)
def test_a_value_over_seeds_is_of_those_that_did_not_diverge(scores, value, text):
    found = Value.over_seeds(scores, flags=("at_limit",))
    assert (found.mean, found.flags) == (value.mean, value.flags)
    assert found.std == pytest.approx(value.std, nan_ok=True)
    assert text in Table("t", ("n", "v"), (("a", found),)).to_text()


def test_marks_are_explained_where_there_are_any():
    rows = [("a", Value(1.0, flags=("diverged",)), 3), ("b", "-", Value(2.0, flags=("at_limit",)))]
    assert explained_flags(rows) == (
        " † tuned rate at a hard limit of its grid. ‡ some seeds diverged: mean of the others, ranked last."
    )
    assert explained_flags([("a", Value(1.0))]) == ""


def test_a_value_of_seeds_that_all_diverged():
    found = Value.over_seeds([NAN, math.inf], flags=("at_limit",))
    assert math.isnan(found.mean)
    assert math.isnan(found.std)
    assert found.flags == ("at_limit",)
    assert "diverged" in Table("t", ("n", "v"), (("a", found),)).to_text()


def test_a_row_of_the_wrong_length_and_an_unknown_flag_are_errors():
    with pytest.raises(ValueError, match="has 2 columns, but a row has 1 entries"):
        Table("t", ("a", "b"), (("x",),))
    with pytest.raises(ValueError, match=r"unknown flag 'odd'. Known: at_limit, diverged, noisy"):
        Value(1.0, flags=("odd",))


def test_the_scores_table_marks_exactly_the_tied_set_of_each_column():
    data = cells()
    names = ["none", "rex", "step"]
    table = scores_table(data, schedules=names, metric="error, %")
    assert table.columns == ("schedule", "5%", "50%")
    for column, cell in enumerate(data, start=1):
        marks = [row[column].tied for row in table.rows]
        assert tuple(marks) == tied_with_best(cell.matrix(names)).tied
        assert [row[column].mean for row in table.rows] == pytest.approx([cell.mean(name) for name in names])
        assert [row[column].std for row in table.rows] == pytest.approx(
            [np.std(cell.values(name), ddof=1) for name in names]
        )
    assert "lower is better" in table.note
    assert "3 seeds" in table.note


def test_the_scores_table_flags_rates_at_a_limit_and_diverged_seeds_and_explains_only_what_it_shows():
    cell = Cell(
        "mlp",
        "adam",
        "5%",
        0.05,
        "low",
        {"rex": {0: 1.0, 1: 2.0}, "step": {0: 1.0, 1: NAN}, "none": {0: NAN, 1: math.inf}},
    )
    table = scores_table([cell], schedules=["rex", "step", "none"], metric="loss", at_limit={("rex", "5%")})
    rex, step, none = (row[1] for row in table.rows)
    assert (rex.flags, step.flags, step.mean, step.tied) == (("at_limit",), ("diverged",), 1.0, False)
    assert math.isnan(none.mean)
    assert table.to_text().splitlines()[4].split() == ["none", "diverged"]
    assert "†" in table.note
    assert "‡" in table.note
    plain = scores_table(cells(), schedules=["rex"], metric="loss")
    assert "†" not in plain.note
    assert "‡" not in plain.note


def test_a_grossly_noisy_schedule_is_flagged_so_that_a_tie_far_behind_explains_itself():
    generator = np.random.default_rng(0)
    scores = {f"s{k}": dict(enumerate(k + 0.1 * generator.standard_normal(3))) for k in range(6)}
    scores["wild"] = {0: 30.0, 1: 60.0, 2: 45.0}
    cell = Cell("mlp", "adam", "5%", 0.05, "low", scores)
    table = scores_table([cell], schedules=list(scores), metric="loss")
    flags = {row[0]: row[1].flags for row in table.rows}
    assert flags.pop("wild") == ("noisy",)
    assert set(flags.values()) == {()}
    assert "§ much noisier" in table.note


def test_one_seed_is_reported_as_untested_and_marks_nothing():
    cell = Cell("mlp", "adam", "5%", 0.05, "low", {"rex": {0: 1.0}, "step": {0: 2.0}})
    table = scores_table([cell], schedules=["rex", "step"], metric="loss")
    assert not any(row[1].tied for row in table.rows)
    assert "Not tested at 5%: 1 seed" in table.note
    assert "over 1 seed." in table.note


def test_runs_without_common_seeds_are_shown_but_not_tested():
    cell = Cell("mlp", "adam", "5%", 0.05, "low", {"rex": {0: 1.0, 1: 1.1}, "step": {5: 2.0, 6: 2.1}})
    table = scores_table([cell], schedules=["rex", "step", "linear"], metric="loss")
    assert "Not tested at 5%: runs are not paired by seed" in table.note
    assert table.rows[2][1] == "-"


def test_a_scores_table_is_about_one_setting():
    other = Cell("cnn", "sgdm", "5%", 0.05, "low", {"rex": {0: 1.0}})
    with pytest.raises(ValueError, match="one task and optimizer"):
        scores_table([*cells(), other], schedules=["rex"], metric="loss")


def test_top_k_tables_hold_the_numbers_of_the_rankings():
    data = cells()
    ranking = nominal_ranking(data)
    expected = expected_ranking(data, np.random.default_rng(0), num_resamples=100)
    nominal_rows = {row[0]: row[1:] for row in ranking_table(ranking).rows}
    expected_rows = {row[0]: row[1:] for row in expected_table(expected).rows}
    for name in ranking.counts:
        overall = ranking.counts[name]["overall"]
        assert nominal_rows[name][4:] == (
            Tally(overall.top1, overall.top1_percent),
            Tally(overall.top3, overall.top3_percent),
        )
        share = expected.shares[name]["overall"]
        assert expected_rows[name][4:] == (share.top1, share.top3)
    assert "low 1, high 1, overall 2" in ranking_table(ranking).note
    json.dumps(expected_json(expected), allow_nan=False)


def test_empty_regimes_print_as_a_dash_and_are_null_in_json():
    data = cells()[:1]
    expected = expected_ranking(data, np.random.default_rng(0), num_resamples=50)
    text = expected_table(expected).to_text()
    assert "nan" not in text.lower()
    assert strict(expected_table(expected))["rows"][0][3] == {"value": None, "low": None, "high": None}
    assert "nan" not in ranking_table(nominal_ranking(data)).to_text().lower()


def test_mean_ranks_are_sorted_and_few_tasks_are_called_too_few():
    table = mean_ranks_table(mean_ranks(cells()))
    assert [row[0] for row in table.rows] == sorted(
        (row[0] for row in table.rows), key=lambda name: next(row[4] for row in table.rows if row[0] == name)
    )
    assert "too few tasks (1 < 5)" in table.note


def test_improvement_is_shown_in_percent_with_its_baseline():
    answers = probability_of_improvement(cells(), "none", np.random.default_rng(0), schedules=["rex", "none"])
    table = improvement_table(answers)
    assert "none" in table.title
    assert table.rows == (("rex", Estimate(100.0, 100.0, 100.0)),)


def test_detectable_differences_have_a_column_per_setting_and_name_units():
    data = cells()
    table = detectable_table(data, schedules=["rex", "step", "none"], metrics={"mlp": "error, %"})
    assert table.columns == ("budget", "mlp, sgdm")
    variation = cell_variation(data[0], ["rex", "step", "none"])
    assert table.rows[0] == ("5%", smallest_detectable_difference(variation, 3))
    assert "mlp: error, %" in table.note
