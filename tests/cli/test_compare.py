"""`glideslope compare` and `report`: what they print, and what becomes of mistakes."""

import json
import re
import sqlite3
import sys

import pytest
from specs import make_spec

from glideslope.trials.executors import InProcess
from glideslope.trials.run import run_trial
from glideslope.trials.store import FILE, Store

TINY = "tiny_tasks:Regression"
SMALL = ("--executor", "in-process", "--optimizers", "sgdm", "--budgets", "10%", "--seeds", "1", "--schedules")


def strict(text):
    """JSON as the standard has it: no NaN, no Infinity."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def without_provenance(data):
    return {key: value for key, value in data.items() if key != "provenance"}


class TestMistakes:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("mnist1d-mpl",), "unknown task 'mnist1d-mpl'. Did you mean 'mnist1d-mlp'? Known: "),
            (("no_such_module:task",), "task 'no_such_module:task' cannot be imported"),
            ((TINY, "--schedules", "rexx"), "unknown schedule 'rexx'. Did you mean 'rex'? Known: "),
            ((TINY, "--schedules", "rex,linear+warmpu(10%)"), "unknown modifier 'warmpu'. Did you mean 'warmup'?"),
            ((TINY, "--schedules", "rex(beta=1.5)"), "`beta` is 1.5, but must satisfy 0 <= beta < 1."),
            ((TINY, "--schedules", ""), "`schedules` is (), but must satisfy at least one."),
            ((TINY, "--schedules", "rex,rex"), "each once"),
            ((TINY, "--schedules", "rex", "--optimizers", "sgmdm"), "unknown optimizer 'sgmdm'. Did you mean 'sgdm'?"),
            ((TINY, "--optimizers", "sgdm(momentun=0.9)"), "Did you mean 'momentum'?"),
            ((TINY, "--optimizers", "sgdm(lr=0.1)"), "leave lr out"),
            ((TINY, "--optimizers", ""), "`optimizers` is (), but must satisfy at least one."),
            ((TINY, "--executor", "proceses"), "unknown executor 'proceses'. Did you mean 'processes'?"),
            ((TINY, "--precision", "bfloat"), "unknown precision 'bfloat'. Did you mean 'bfloat16'?"),
            ((TINY, "--sampling", "--precision", "half"), "unknown precision 'half'. Known: bfloat16, float32."),
            ((TINY, "--ranks", "2"), "--ranks belongs to --executor torchrun and ray"),
            ((TINY, "--executor", "torchrun"), "say how many with --ranks 2"),
            ((TINY, "--budgets", "0"), "`budgets` is 0.0, but must satisfy 0 < budget"),
            ((TINY, "--budgets", "-5%"), "`budgets` is -0.05"),
            ((TINY, "--budgets", "nan"), "`budgets` is nan"),
            ((TINY, "--budgets", "a lot"), "cannot read the share 'a lot'. Write 5% or 0.05."),
            ((TINY, "--budgets", "5%,0.05"), "each once"),
            ((TINY, "--budgets", ","), "`budgets` is (), but must satisfy at least one."),
            ((TINY, "--seeds", "0"), "`num_seeds` is 0"),
            ((TINY, "--seeds", "2000"), "`num_seeds` is 2000, but must satisfy 1 <= num_seeds < 1001"),
            ((TINY, "--tuning-seeds", "0"), "`num_tuning_seeds` is 0"),
            ((TINY, "--schedules", "rex,linear", "--baseline", "liner"), "unknown baseline 'liner'. Did you mean"),
            ((TINY, "--sampling", "--budgets", "0"), "`budgets` is 0.0"),
            ((TINY, "--sampling", "--seeds", "0"), "`num_seeds` is 0"),
            ((TINY, "--sampling", "--schedules", "rex"), "--sampling has profiles of its own"),
            ((TINY, "--sampling", "--tune-at", "5%"), "--sampling holds rates, and tunes them in every cell"),
            ((TINY, "--sampling", "--sensitivity", "2"), "--sampling and --sensitivity are two studies"),
            ((TINY, "--sensitivity", "2", "--tune-at", "5%"), "--sensitivity tunes no rate; leave --tune-at out"),
            ((TINY, "--sensitivity", "0"), "--sensitivity is 0, but must be from 1 to 5"),
            ((TINY, "--sensitivity", "1", "--baseline", "rex"), "--baseline is for comparisons"),
            (("imagenet-resnet50", "--tune-at", "early"), "cannot read the share 'early'"),
            ((TINY, "--tune-at", "0"), "`tune_at` is 0.0, but must satisfy tune_at > 0"),
            ((TINY, "--tune-at", "early"), "cannot read the share 'early'"),
            ((TINY, "--delays", "0.5", "--schedules", "rex"), "--delays names its own schedules"),
            ((TINY, "--delays", "1.5"), "delay"),
            ((TINY, "--delays", "half"), "cannot read the share 'half'"),
        ],
        ids=lambda value: " ".join(value)[:60] if isinstance(value, tuple) else "",
    )
    def test_one_line_and_exit_code_2_and_nothing_is_made(self, glideslope, tmp_path, arguments, message):
        assert message in glideslope("compare", *arguments).error
        assert not list(tmp_path.iterdir())

    def test_options_of_the_wrong_type_are_told_by_typer(self, glideslope):
        called = glideslope("compare", TINY, "--workers", "0")
        assert called.code == 2
        assert "--workers" in called.err
        assert "Traceback" not in called.err

    def test_out_is_a_file(self, glideslope, tmp_path):
        (tmp_path / "runs").write_text("mine")
        assert "File exists" in glideslope("compare", TINY, "--out", "runs", *SMALL, "rex").error
        assert (tmp_path / "runs").read_text() == "mine"

    def test_a_store_of_another_version(self, glideslope, tmp_path):
        with Store(tmp_path / "old") as store:
            store._connection.execute("UPDATE meta SET value = '0'")
        assert (
            "is a store of version 0; this glideslope reads version 1"
            in glideslope("compare", TINY, "--out", "old", *SMALL, "rex").error
        )
        assert "is a store of version 0" in glideslope("report", "old").error

    def test_a_file_that_is_no_store(self, glideslope, tmp_path):
        (tmp_path / "old").mkdir()
        (tmp_path / "old" / FILE).write_text("not a database, but long enough to be looked at " * 10)
        assert "is not a store of glideslope" in glideslope("compare", TINY, "--out", "old", *SMALL, "rex").error

    def test_a_full_disk(self, glideslope, tmp_path, monkeypatch):
        real = sqlite3.connect

        def small_disk(*arguments, **options):
            connection = real(*arguments, **options)
            connection.execute("PRAGMA max_page_count = 16")
            return connection

        monkeypatch.setattr("glideslope.trials.store.sqlite3.connect", small_disk)
        called = glideslope("compare", TINY, "--out", "full", *SMALL, "rex,linear,cosine", "--seeds", "50")
        assert called.code == 2
        assert "the disk is full. Every trial stored so far is safe" in called.err.splitlines()[-1]
        monkeypatch.undo()
        with Store(tmp_path / "full") as store:
            assert len(store.records()) > 0

    def test_a_task_that_is_nan_from_the_start_is_told(self, glideslope):
        called = glideslope("compare", "tiny_tasks:NotANumber", "--out", "nan", *SMALL, "rex,linear")
        assert called.code == 0
        assert "tiny_tasks:NotANumber: every run diverged or failed" in called.out

    def test_a_task_that_raises_is_told_with_its_error(self, glideslope):
        called = glideslope("compare", "tiny_tasks:Raising", "--out", "raise", *SMALL, "rex,linear", "--json")
        assert called.code == 0
        assert any("RuntimeError: <b>no loss today</b>" in line for line in strict(called.out)["failed"])

    def test_missing_data_say_which_file_and_how_to_get_it(self, glideslope, tmp_path, monkeypatch):
        monkeypatch.setenv("GLIDESLOPE_CACHE", str(tmp_path / "cache"))
        (tmp_path / "empty").mkdir()
        name = "glideslope.tasks.language:ShakespeareLSTM"
        error = glideslope("compare", name, "--data", "empty", *SMALL, "rex").error
        assert re.search(
            r"tinyshakespeare.txt.gz is not in the data folder .*empty.* It is the file .*--data DIR", error
        )


class TestPrinting:
    def test_json_is_strict_and_report_says_the_same_without_task_or_data(self, glideslope, tmp_path, monkeypatch):
        module = tmp_path / "module_that_goes_away.py"
        module.write_text("from tiny_tasks import Regression\ntask = Regression(11)\n")
        arguments = ("module_that_goes_away:task", "--out", "runs", *SMALL, "rex,linear,none", "--seeds", "2", "--json")
        compared = strict(glideslope("compare", *arguments).out)
        assert {"question", "cells", "ranking", "mean_ranks", "expected", "improvement", "detectable"} <= set(compared)
        assert compared["provenance"]["command"].startswith("glideslope compare module_that_goes_away:task")
        module.unlink()
        monkeypatch.delitem(sys.modules, "module_that_goes_away")
        with pytest.MonkeyPatch.context() as patch:
            for name in ("find_task", "task_splits", "data_sha256"):
                patch.setattr(f"glideslope.studies.setting.{name}", None)
            reported = strict(glideslope("report", "runs", "--json").out)
            assert without_provenance(reported) == without_provenance(compared)
            assert reported["provenance"] == compared["provenance"]
            other = strict(glideslope("report", "runs", "--json", "--baseline", "rex").out)
        assert other["improvement"] != compared["improvement"]
        assert "unknown baseline 'cosine'" in glideslope("report", "runs", "--baseline", "cosine").error

    def test_the_same_command_again_runs_nothing(self, glideslope, monkeypatch):
        arguments = ("compare", TINY, "--out", "runs", *SMALL, "rex,linear", "--json")
        first = strict(glideslope(*arguments).out)

        def never(self):
            raise AssertionError("a trial was run again")

        monkeypatch.setattr(InProcess, "next", never)
        assert without_provenance(strict(glideslope(*arguments).out)) == without_provenance(first)

    def test_tables_of_the_paper(self, glideslope):
        called = glideslope("compare", TINY, "--out", "runs", *SMALL, "rex,step,plateau", "--seeds", "2")
        assert called.code == 0
        for words in ("Top-1 and Top-3, nominal", "Top-1 and Top-3, expected", "Mean rank", "Smallest detectable"):
            assert words in called.out
        assert "Plateau is merged into step by the better score" in called.out
        assert re.search(r"\d+/\d+ trials", called.err)

    def test_tasks_given_twice_are_one(self, glideslope):
        called = glideslope("compare", TINY, TINY, "--out", "runs", *SMALL, "rex", "--json")
        assert len(strict(called.out)["cells"]) == 1

    def test_rates_tuned_once(self, glideslope):
        data = strict(glideslope("compare", TINY, "--out", "runs", *SMALL, "rex", "--tune-at", "5%", "--json").out)
        assert data["question"]["tune_at"] == 0.05
        assert "tuned in multiples of 3 on 1 tuning seed by validation at 5%" in glideslope("report", "runs").out

    def test_delays(self, glideslope):
        arguments = [argument for argument in SMALL if argument != "--schedules"]
        called = glideslope("compare", TINY, "--out", "runs", *arguments, "--delays", "25%,0.5,0.75", "--json")
        data = strict(called.out)
        names = [f"delayed_linear({share})" for share in (0.25, 0.5, 0.75)]
        assert [cell["schedule"] for cell in data["cells"]] == ["linear", *names, "rex"]

    def test_sampling_and_its_report(self, glideslope):
        arguments = ("--executor", "in-process", "--budgets", "2%", "--seeds", "1")
        called = glideslope("compare", TINY, "--out", "runs", "--sampling", *arguments)
        assert called.code == 0
        assert "gamma = " in called.out
        assert "One rate held throughout" in called.out
        assert "The rate tuned in every cell" in called.out
        assert glideslope("report", "runs").out == called.out

    def test_sensitivity_and_its_report(self, glideslope):
        called = glideslope("compare", TINY, "--out", "runs", *SMALL, "rex,linear", "--sensitivity", "1")
        assert called.code == 0
        assert "What a wrong rate costs" in called.out
        assert glideslope("report", "runs").out == called.out
        error = glideslope("report", "runs", "--baseline", "rex").error
        assert "--baseline is for comparisons, and this is `sensitivity`" in error

    @pytest.mark.parametrize(
        "study",
        [("--sampling",), ("--schedules", "rex,linear"), ("--sensitivity", "1", "--schedules", "rex")],
        ids=lambda study: study[0],
    )
    def test_bfloat16_is_said_wherever_the_numbers_go(self, glideslope, tmp_path, study):
        arguments = (TINY, "--out", "runs", *SMALL[:-1], *study, "--precision", "bfloat16")
        said = "bfloat16 autocast: not exact"
        called = glideslope("compare", *arguments, "--html", "page.html")
        assert f"Computed in {said}." in called.out
        data = strict(glideslope("report", "runs", "--json").out)
        assert (data["question"]["precision"], data["provenance"]["precision"]) == ("bfloat16", said)
        assert (tmp_path / "page.html").read_text().count(said) >= 2
        with Store(tmp_path / "runs") as store:
            assert {spec.precision for spec in store.specs().values()} == {"bfloat16"}
            assert {record.path["precision"] for record in store.records().values()} == {"bfloat16"}
        # Not the trials, nor the question, of single precision.
        plain = glideslope("compare", *arguments[:-2])
        assert "not exact" not in plain.out
        assert "not exact" not in glideslope("report", "runs").out

    def test_report_shows_the_study_asked_last(self, glideslope):
        for schedule in ("rex", "linear"):
            glideslope("compare", TINY, "--out", "runs", *SMALL, schedule)
        data = strict(glideslope("report", "runs", "--json").out)
        assert [cell["schedule"] for cell in data["cells"]] == ["linear"]

    def test_report_of_a_study_that_prints_its_own(self, glideslope, tmp_path):
        with Store(tmp_path / "runs") as store:
            store.ask("arc evaluate", {}, {})
        assert "runs is of `glideslope arc evaluate`, which prints its own report" in glideslope("report", "runs").error

    def test_report_of_nothing(self, glideslope, tmp_path):
        assert "there is no store in nowhere" in glideslope("report", "nowhere").error
        with Store(tmp_path / "empty"):
            pass
        assert "holds no study yet" in glideslope("report", "empty").error


class TestPage:
    def test_one_file_that_asks_the_network_for_nothing_and_escapes_names(self, glideslope, tmp_path):
        out = "<script>alert(2)</script>"
        page = tmp_path / "pages" / "page.html"
        task = "tiny_tasks:Dangerous"
        called = glideslope("compare", task, "--out", out, *SMALL, "rex,linear", "--html", page)
        assert called.code == 0
        assert [path.name for path in page.parent.iterdir()] == ["page.html"]
        text = page.read_text(encoding="utf-8")
        assert "alert(1)" in text
        assert "alert(2)" in text
        assert not re.search(r"<script>\s*alert", text)
        assert not re.search(r"<(script|img|iframe)[^>]+src\s*=", text)
        assert not re.search(r"<link[^>]+href", text)
        assert "default-src 'none'" in text
        assert text.count("plotly.js v") == 1
        again = tmp_path / "again.html"
        glideslope("report", out, "--html", again)
        assert again.read_text(encoding="utf-8") == text

    def test_errors_of_trials_are_escaped(self, glideslope, tmp_path):
        glideslope("compare", "tiny_tasks:Raising", "--out", "runs", *SMALL, "rex", "--html", "page.html")
        text = (tmp_path / "page.html").read_text(encoding="utf-8")
        assert "&lt;b&gt;no loss today&lt;/b&gt;" in text
        assert "<b>no loss" not in text


class TestStoreAndSpecs:
    def test_what_is_stored_can_be_run_again_to_the_same_bits(self, glideslope, tmp_path):
        glideslope("compare", TINY, "--out", "runs", *SMALL, "one_cycle")
        with Store(tmp_path / "runs", create=False) as store:
            specs, records = store.specs(), store.records()
        for trial_id in sorted(records)[:3]:
            assert run_trial(specs[trial_id]).outcome == records[trial_id].outcome
        assert make_spec().trial_id not in records
