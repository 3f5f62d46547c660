"""Laws of `glideslope rank`: the paper's Table 1 from a file, as text and as JSON."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from glideslope.cli.rank import parse_merges, rank

ROWS = """task,optimizer,budget,schedule,score
cnn,sgdm,5%,rex,10
cnn,sgdm,5%,step,12
cnn,sgdm,5%,plateau,9
cnn,sgdm,5%,linear,11
cnn,sgdm,50%,rex,5
cnn,sgdm,50%,step,5
cnn,sgdm,50%,plateau,6
cnn,sgdm,50%,linear,diverged
"""

app = typer.Typer()
app.command()(rank)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    path = tmp_path / "results.csv"
    path.write_text(ROWS)
    return path


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_json_is_the_promised_document(results):
    document = json.loads(run(results, "--merge", "step=step,plateau", "--json"))
    assert set(document) == {"cells", "schedules"}
    assert document["cells"] == {"low": 1, "high": 1, "overall": 2}
    assert set(document["schedules"]) == {"rex", "step", "linear"}
    assert document["schedules"]["step"] == {
        "low": {"top1": 1, "top3": 1, "top1_percent": 100.0, "top3_percent": 100.0},
        "high": {"top1": 1, "top3": 1, "top1_percent": 100.0, "top3_percent": 100.0},
        "overall": {"top1": 2, "top3": 2, "top1_percent": 100.0, "top3_percent": 100.0},
    }
    assert document["schedules"]["rex"]["high"]["top1"] == 1
    assert document["schedules"]["linear"]["overall"]["top3"] == 1


def test_higher_is_better_turns_the_ranking_round(results):
    document = json.loads(run(results, "--higher-is-better", "--json"))
    top = {name: counts["overall"]["top1"] for name, counts in document["schedules"].items()}
    assert top == {"rex": 0, "step": 1, "plateau": 1, "linear": 0}


def test_text_shows_counts_shares_cells_and_why_expected_is_missing(results):
    text = run(results)
    assert "overall Top-3" in text
    assert "1 (50%)" in text
    assert "low 1, high 1, overall 2" in text
    assert "Expected Top-k is left out" in text


def test_with_seeds_expected_top_k_comes_with_an_interval_and_its_coverage(tmp_path):
    lines = ["task,optimizer,budget,schedule,seed,score"]
    for budget in (5, 50):
        for offset, schedule in enumerate(("rex", "step", "none")):
            lines += [f"t,sgdm,{budget}%,{schedule},{seed},{10 * offset + seed}" for seed in range(2)]
    path = tmp_path / "seeded.csv"
    path.write_text("\n".join(lines))
    assert "simulated studies" in " ".join(run(path).split())
    document = json.loads(run(path, "--json"))
    assert document["expected"]["schedules"]["rex"]["low"]["top1_percent"] == {
        "value": 100.0,
        "low": 100.0,
        "high": 100.0,
    }
    assert document["expected"]["coverage"]["nominal"] == 0.95
    assert run(path) == run(path)


PAPERS = ("none", "exponential", "one_cycle", "linear", "rex")


def a_report(folder, task, scores, higher_is_better=False, name="report.json"):
    """What `glideslope compare --json` prints, as far as a ranking needs it: schedule → score of each seed."""
    cells = [
        {"task": task, "optimizer": "sgdm", "budget": 0.05, "schedule": schedule, "scores": by_seed}
        for schedule, by_seed in scores.items()
    ]
    setting = {"task": {"name": task}, "metric": {"higher_is_better": higher_is_better}}
    path = folder / name
    path.write_text(json.dumps({"cells": cells, "question": {"settings": [setting]}}))
    return path


def test_reports_of_comparisons_are_ranked_together_with_a_csv(results, tmp_path):
    accurate = a_report(tmp_path, "vit", {"rex": {"1": 9.0}, "step": {"1": 8.0}, "cosine": {"1": 99.0}}, True)
    document = json.loads(run(results, accurate, "--json"))
    assert document["cells"]["overall"] == 3
    assert {name: counts["overall"]["top1"] for name, counts in document["schedules"].items()} == {"rex": 3, "step": 1}
    assert sorted(document["left_out"]) == ["cosine", "linear", "plateau"]
    assert "Left out, for not all files have them: " in run(results, accurate)


def test_a_run_without_a_score_diverged(tmp_path):
    document = json.loads(run(a_report(tmp_path, "vit", {"rex": {"1": None}, "step": {"1": 8.0}}), "--json"))
    assert document["schedules"]["rex"]["overall"]["top3"] == 0


def test_all_schedules_of_the_papers_table_stand_beside_it(tmp_path):
    scores = {name: {"1": float(place), "2": place + 0.5} for place, name in enumerate(PAPERS)}
    path = a_report(tmp_path, "t", scores)
    assert "Beside the paper's Table 1" in run(path)
    document = json.loads(run(path, "--json"))
    assert document["beside_the_paper"]["columns"][-1] == "paper's Top-3"
    assert "expected Top-1" in document["beside_the_paper"]["columns"]
    del scores["none"]
    assert "Beside the paper" not in run(a_report(tmp_path, "t", scores))


@pytest.mark.parametrize("text", ["", "[]", '{"cells": 1}', '{"cells": [{}]}', '{"cells": []}'])
def test_a_file_that_is_no_report_is_named(text, tmp_path):
    path = tmp_path / "some.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"some\.json is no report of a comparison .*glideslope compare --json"):
        rank([path])


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["step"], "cannot read the merge 'step'. Write NAME=A,B"),
        (["=a,b"], "cannot read the merge"),
        (["step=step,,plateau"], "cannot read the merge"),
        (["x=a,b", "x=c"], "merge 'x' is given twice"),
    ],
)
def test_a_merge_that_cannot_be_read_is_named(texts, message):
    with pytest.raises(ValueError, match=message):
        parse_merges(texts)


def test_a_missing_file_and_a_broken_one_reach_the_caller(tmp_path):
    with pytest.raises(FileNotFoundError):
        rank([tmp_path / "none.csv"])
    path = tmp_path / "broken.csv"
    path.write_text("task,score\n")
    with pytest.raises(ValueError, match="lacks the columns optimizer, budget, schedule"):
        rank([path])
