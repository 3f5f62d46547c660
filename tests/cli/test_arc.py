"""`glideslope arc`: all four steps, end to end, on tiny tasks."""

import json

import polars as pl
import pytest

from glideslope.trials.shelf import StoreView

TINY = "tiny_tasks:Regression"


@pytest.fixture
def in_process(monkeypatch):
    """Steps that share out jobs do them here."""

    def share_out(work, jobs, workers=None, until=None, tell=lambda job: None):
        for job in jobs:
            work(job)
            tell(job)

    monkeypatch.setattr("glideslope.studies.arc.collection.share_out", share_out)
    monkeypatch.setattr("glideslope.studies.arc.candidates.share_out", share_out)


def test_from_experience_to_evidence(glideslope, tmp_path, in_process):
    collected = glideslope("arc", "collect", "--families", f"{TINY},tiny_tasks:Upwards", "--journeys", 4, "--json")
    assert collected.code == 0, collected.err
    table = pl.read_parquet(tmp_path / "runs/arc/experience.parquet")
    assert len(list((tmp_path / "runs/arc/journeys").iterdir())) == 4
    assert 2 <= table["journey"].n_unique() <= 4  # a path whose first rate is too high has no segment
    again = glideslope("arc", "collect", "--families", f"{TINY},tiny_tasks:Upwards", "--journeys", 4)
    assert "Decisions by family" in again.out

    schooled = glideslope("arc", "train", "--candidates", 2, "--epochs", 1, "--held-out", "tiny_tasks:Upwards")
    assert schooled.code == 0, schooled.err
    chosen = glideslope("arc", "select", "--task", TINY, "--runs", 2, "--executor", "in-process")
    assert chosen.code == 0, chosen.err
    assert "steers best" in chosen.out
    assert "constant | greedy" in chosen.out
    weights = tmp_path / "runs/arc/arc.safetensors"
    assert weights.exists()

    call = ("arc", "evaluate", TINY, "--weights", weights, "--epochs", 6, "--seeds", 2, "--executor", "in-process")
    judged = glideslope(*call, "--published", weights, "--json", "--html", "page.html")
    assert judged.code == 0, judged.err
    data = json.loads(judged.out)
    systems = {row["system"] for row in data["runs"]}
    assert {"arc", "published arc", "rex | arc", "rex | greedy", "superconvergence", "line search"} <= systems
    assert (tmp_path / "page.html").stat().st_size > 1e5

    often = glideslope("arc", "frequency", TINY, "--weights", weights, "--seeds", 1, "--executor", "in-process")
    assert often.code == 0, often.err
    assert "6 (60 epochs)" in often.out


def test_everything_but_the_line_search_is_held_with_the_optimizer_that_is_asked_for(glideslope, tmp_path):
    call = ("arc", "evaluate", TINY, "--optimizer", "sgdm(momentum=0.5)", "--epochs", 3, "--seeds", 1)
    held = glideslope(*call, "--executor", "in-process")
    assert held.code == 0, held.err
    with StoreView(tmp_path / "runs/arc/evaluation") as store:
        optimizers = {spec.optimizer for spec in store.specs().values()}
    assert {optimizer.name for optimizer in optimizers} == {"sgdm", "sls"}
    assert all("0.5" in str(optimizer) for optimizer in optimizers if optimizer.name == "sgdm")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train",), "is not there: run `glideslope arc collect` first"),
        (("select",), "holds no candidates yet: run `glideslope arc train` first"),
        (("collect", "--families", "digits-mpl"), "unknown task 'digits-mpl'. Did you mean 'digits-mlp'?"),
        (("evaluate", TINY, "--weights", "none.safetensors"), "there are no weights for ARC at 'none.safetensors'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_mistakes_are_one_line(glideslope, arguments, message):
    assert message in glideslope("arc", *arguments).error
