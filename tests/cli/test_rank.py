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
        rank(tmp_path / "none.csv")
    path = tmp_path / "broken.csv"
    path.write_text("task,score\n")
    with pytest.raises(ValueError, match="lacks the columns optimizer, budget, schedule"):
        rank(path)
