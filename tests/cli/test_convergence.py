"""`glideslope convergence` and its report: end to end on a tiny task."""

import json
import sys

import pytest

from glideslope.trials.executors import InProcess
from glideslope.trials.store import Store

TINY = "tiny_tasks:Regression"
SMALL = ("--executor", "in-process", "--optimizers", "sgdm,adam", "--schedules", "linear,step")
SHORT = (*SMALL, "--budgets", "10%,50%", "--seeds", "2")


def strict(text):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def without_provenance(data):
    return {key: value for key, value in data.items() if key != "provenance"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mnist1d-mpl",), "unknown task 'mnist1d-mpl'. Did you mean 'mnist1d-mlp'?"),
        ((TINY, "--schedules", "rex"), "'linear' among them"),
        ((TINY, "--schedules", "linear,rexx"), "unknown schedule 'rexx'. Did you mean 'rex'?"),
        ((TINY, "--schedules", "linear,plateau"), "plateau"),
        ((TINY, "--optimizers", "sgmdm"), "unknown optimizer 'sgmdm'. Did you mean 'sgdm'?"),
        ((TINY, "--budgets", "0"), "`budgets` is 0.0, but must satisfy 0 < budget"),
        ((TINY, "--budgets", "a lot"), "cannot read the share 'a lot'. Write 5% or 0.05."),
        ((TINY, "--seeds", "0"), "`num_seeds` is 0"),
        ((TINY, "--executor", "proceses"), "unknown executor 'proceses'. Did you mean 'processes'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_mistakes_are_one_line_and_make_nothing(glideslope, tmp_path, arguments, message):
    assert message in glideslope("convergence", *arguments).error
    assert not list(tmp_path.iterdir())


def test_text_json_page_and_the_report_without_task_or_data(glideslope, tmp_path, monkeypatch):
    module = tmp_path / "module_that_goes_away.py"
    module.write_text("from tiny_tasks import Regression\ntask = Regression(11)\n")
    arguments = ("convergence", "module_that_goes_away:task", "--out", "runs", *SHORT)
    called = glideslope(*arguments, "--html", "page.html")
    assert called.code == 0
    for title in ("What is found", "Does the full gradient vanish", "SGDR and SGDR-rn", "Knowing the budget"):
        assert f"== {title}" in called.out
    assert "against sgdm under the linear schedule (squared_error), adam, constant: " in called.out
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("plotly.js v") == 1
    assert page.count("<script type=") == page.count('class="plot"') == 7
    module.unlink()
    monkeypatch.delitem(sys.modules, "module_that_goes_away")
    assert glideslope("report", "runs").out == called.out
    glideslope("report", "runs", "--html", "again.html")
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == page
    data = strict(glideslope("report", "runs", "--json").out)
    assert data["not_finished"] == []
    (cell,) = [
        cell
        for cell in data["cells"]
        if (cell["optimizer"], cell["schedule"], cell["form"], cell["budget"]) == ("sgdm", "linear", "aware", 0.5)
    ]
    assert cell["normalised"] == [1.0, 1.0]
    assert len(cell["runs"]) == 2
    for run in cell["runs"]:
        assert len(run["progress"]) == len(run["rate"]) == len(run["full_gradient_norm"]) > 1
    with Store(tmp_path / "runs") as store:
        measured = [record for record in store.records().values() if record.measured]
    assert {run["full_gradient_norm"][-1] for run in cell["runs"]} <= {
        record.measured["full_gradient_norm"][-1] for record in measured
    }


def test_the_same_command_again_asks_for_nothing(glideslope, monkeypatch):
    arguments = ("convergence", TINY, "--out", "runs", *SHORT, "--json")
    first = strict(glideslope(*arguments).out)

    def never(self):
        raise AssertionError("a trial was run again")

    monkeypatch.setattr(InProcess, "next", never)
    assert without_provenance(strict(glideslope(*arguments).out)) == without_provenance(first)


def test_a_task_that_raises_is_told_with_its_error(glideslope):
    called = glideslope("convergence", "tiny_tasks:Raising", "--out", "runs", *SMALL, "--budgets", "10%", "--json")
    assert called.code == 0
    assert any("RuntimeError: <b>no loss today</b>" in line for line in strict(called.out)["failed"])


def test_a_task_that_is_nan_from_the_start_is_told(glideslope):
    called = glideslope("convergence", "tiny_tasks:NotANumber", "--out", "runs", *SMALL, "--budgets", "10%")
    assert called.code == 0
    assert "diverged" in called.out


def test_what_is_measured_at_validations_is_listed_and_exported(glideslope, tmp_path):
    arguments = ("--executor", "in-process", "--optimizers", "sgdm", "--schedules", "linear", "--seeds", "1")
    glideslope("convergence", TINY, "--out", "runs", *arguments, "--budgets", "10%")
    with Store(tmp_path / "runs") as store:
        record = next(record for record in store.records().values() if record.measured)
    norms = record.measured["full_gradient_norm"]
    shown = glideslope("trials", "runs", "--show", record.trial_id).out
    assert f"{norms[-1]:.6g}" in shown
    assert "full_gradient_norm" in shown
    glideslope("export", "runs", "numbers.json", "--series")
    rows = [
        row
        for row in json.loads((tmp_path / "numbers.json").read_text())
        if (row["trial_id"], row["series"]) == (record.trial_id, "full_gradient_norm")
    ]
    assert [row["update"] for row in rows] == [seen.update for seen in record.validation]
    assert [row["value"] for row in rows] == list(norms)


def test_bfloat16_is_said_wherever_the_numbers_go(glideslope, tmp_path):
    said = "bfloat16 autocast: not exact"
    short = ("--executor", "in-process", "--optimizers", "sgdm", "--schedules", "linear", "--budgets", "10%,50%")
    called = glideslope("convergence", TINY, *short, "--seeds", "1", "--out", "half", "--precision", "bfloat16")
    assert f"Computed in {said}." in called.out
    data = strict(glideslope("report", "half", "--json").out)
    assert (data["question"]["precision"], data["provenance"]["precision"]) == ("bfloat16", said)
    with Store(tmp_path / "half") as store:
        assert {spec.precision for spec in store.specs().values()} == {"bfloat16"}
        assert {record.path["precision"] for record in store.records().values()} == {"bfloat16"}
