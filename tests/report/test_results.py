"""Laws of results: what a CSV means, and that every mistake in it is named with its line."""

import math
from pathlib import Path

import pytest

from glideslope.report.result_files import read_csv
from glideslope.report.results import Cell, Result, complete_part, group

HEADER = "task,optimizer,budget,schedule,score"


@pytest.fixture
def write(tmp_path: Path):
    def write_lines(*lines: str) -> Path:
        path = tmp_path / "results.csv"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write_lines


def test_percentages_and_epochs_become_the_same_fractions(write):
    results = read_csv(
        write(HEADER, "a,sgdm,5%,rex,1", "a,sgdm,100 %,rex,1", "b,sgdm,15,rex,1", "b,adam,300,rex,1", "c,sgdm,90,rex,1")
    )
    assert [result.fraction for result in results] == [0.05, 1.0, 0.05, 1.0, 1.0]
    assert [result.budget for result in results] == ["5%", "100%", "15", "300", "90"]


def test_exactly_a_quarter_is_high_and_the_regime_column_overrides(write):
    lines = ["t,sgdm,0.3,rex,1,", "t,sgdm,1.2,rex,1,low", "t,adam,0.3,rex,1,high", "t,adam,0.299,rex,1,"]
    cells = group(read_csv(write(HEADER + ",regime", *lines)))
    assert [cell.regime for cell in cells] == ["high", "low", "high", "low"]


@pytest.mark.parametrize("word", ["", "nan", "NaN", "diverged", "inf", "-inf"])
def test_every_way_to_say_diverged_diverges(write, word):
    assert read_csv(write(HEADER, f"t,sgdm,5%,rex,{word}"))[0].diverged


def test_a_spreadsheets_byte_order_mark_blank_lines_quotes_and_extra_columns_are_read(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text(f'{HEADER},note\n"a, b",sgdm,5%,"rex(beta=0.9)",1.5,x\n\n,,,,,\n', encoding="utf-8-sig")
    assert read_csv(path) == (Result("a, b", "sgdm", "5%", 0.05, "rex(beta=0.9)", None, 1.5),)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([""], "is empty. Expected a header"),
        ([HEADER], "no results"),
        (["task,optimizer,budget,value"], "lacks the columns schedule, score. Found: task, optimizer, budget, value"),
        ([HEADER + ",score", "t,s,5%,rex,1,1"], "column score twice"),
        ([HEADER, "t,sgdm,5%,rex,1", "t,sgdm,5.0%,rex,2"], r"line 3: .*'rex' with no seed is already on line 2"),
        ([HEADER, "t,sgdm,5%,rex,good"], r"line 2: score 'good' is not a number"),
        ([HEADER, "t,sgdm,five,rex,1"], r"line 2: budget 'five' is not a number"),
        ([HEADER, "t,sgdm,nan,rex,1"], r"line 2: budget 'nan' is not a number"),
        ([HEADER, "t,sgdm,0%,rex,1"], r"line 2: budget is 0%, but must be > 0"),
        ([HEADER, "t,sgdm,-3,rex,1"], r"line 2: budget is -3, but must be > 0"),
        ([HEADER, "t,sgdm,5%,rex,1", "t,sgdm,30,rex,1"], r"line 3: task 't' has the budget '30', but '5%' on line 2"),
        ([HEADER, "t,sgdm,5%,rex"], r"line 2: 4 fields, but the header has 5"),
        ([HEADER, "t,sgdm,5%,,1"], r"line 2: the schedule is blank"),
        ([HEADER + ",seed", "t,sgdm,5%,rex,1,one"], r"line 2: seed 'one' is not an integer"),
        ([HEADER + ",regime", "t,sgdm,5%,rex,1,medium"], r"line 2: unknown regime 'medium'. Known: high, low"),
        (
            [HEADER + ",regime", "t,sgdm,5%,rex,1,low", "t,sgdm,5%,step,1,high"],
            r"line 3: regime 'high', but 'low' for the same",
        ),
    ],
)
def test_a_mistake_in_the_file_is_named(write, lines, message):
    with pytest.raises(ValueError, match=message):
        read_csv(write(*lines))


def test_a_file_that_is_not_text_says_so(tmp_path):
    path = tmp_path / "results.csv"
    path.write_bytes(b"\xff\xfe\x00task")
    with pytest.raises(ValueError, match="not UTF-8 text"):
        read_csv(path)


def test_one_diverged_seed_makes_the_mean_diverge():
    cell = Cell("t", "s", "5%", 0.05, "low", {"rex": {0: 1.0, 1: math.inf}, "step": {0: 1.0, 1: 2.0}})
    assert math.isnan(cell.mean("rex"))
    assert cell.mean("step") == 1.5


def test_seeds_are_paired_by_label_not_by_order():
    cell = Cell("t", "s", "5%", 0.05, "low", {"rex": {0: 1.0, 1: 2.0}, "step": {1: 20.0, 0: 10.0}})
    assert cell.paired
    assert cell.matrix(["step", "rex"]).tolist() == [[10.0, 20.0], [1.0, 2.0]]


def test_unpaired_runs_refuse_to_be_paired():
    cell = Cell("t", "s", "5%", 0.05, "low", {"rex": {0: 1.0}, "step": {1: 2.0}})
    with pytest.raises(ValueError, match="rex has 0; step has 1"):
        cell.matrix(["rex", "step"])
    with pytest.raises(ValueError, match=r"no runs of cosine. It has: rex, step"):
        cell.matrix(["cosine"])


def test_two_results_of_one_run_are_an_error():
    run = Result("t", "s", "5%", 0.05, "rex", 3, 1.0)
    with pytest.raises(ValueError, match="two results of 'rex' with seed 3"):
        group([run, run])


def test_an_unfinished_study_keeps_what_all_schedules_share_and_lists_the_rest():
    whole = Cell("t", "s", "5%", 0.05, "low", {"rex": {0: 1.0, 1: 2.0}, "step": {0: 3.0, 1: 4.0}})
    half = Cell("t", "s", "10%", 0.1, "low", {"rex": {0: 1.0, 1: 2.0}, "step": {1: 4.0}})
    lone = Cell("t", "s", "25%", 0.25, "high", {"rex": {0: 1.0}})
    part = complete_part([whole, half, lone], ["rex", "step"])
    assert [cell.seeds for cell in part.cells] == [(0, 1), (1,)]
    assert part.omitted == ("t / s / 10%: seed 0 is missing for step", "t / s / 25%: no runs of step")
