"""`glideslope tradeoff`: what it prints, that it goes on where it stopped, and what becomes of mistakes."""

import json

import pytest

from glideslope.cli.tradeoff import parse_price
from glideslope.trials.store import Store

TINY = "tiny_tasks:Regression"
SMALL = (
    *("--executor", "in-process", "--budgets", "3", "--seeds", "2"),
    *("--estimators", "separate,cyclic,cooldown(0.25),anytime(anchors=2),interpolate"),
)
KEYS = {"planned_cost", "measured_cost", "mean_gap", "bias_seed_sd", "coverage", "agreement", "cosine_similarity"}


def without_times(data):
    kept = {key: value for key, value in data.items() if key not in ("provenance", "seconds_of_work")}
    return kept


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tradeoff") / "runs"


class TestStudy:
    def test_json_says_per_task_and_estimator_how_far_to_trust_it(self, glideslope, folder):
        called = glideslope("tradeoff", TINY, *SMALL, "--out", folder, "--json")
        assert called.code == 0, called.err
        data = json.loads(called.out)
        lines = data["fidelity"][TINY]
        assert list(lines) == ["cyclic", "cooldown(0.25)", "anytime(anchors=2)", "interpolate", "separate, retuned"]
        assert all(set(line) >= KEYS for line in lines.values())
        assert lines["cyclic"]["planned_cost"] == 1.0
        assert lines["cooldown(0.25)"]["planned_cost"] == pytest.approx(0.75 + 0.25 * 1.75, abs=0.03)
        assert lines["interpolate"]["planned_cost"] == pytest.approx(1.75)
        assert lines["cyclic"]["coverage"] is None
        curves = [curve for curve in data["curves"] if curve["estimator"] == "cyclic"]
        assert [(curve["seed"], curve["budgets"]) for curve in curves] == [(1, [20, 40, 80]), (2, [20, 40, 80])]
        # With three budgets the smallest, the middle and the largest are all: nothing is left to interpolate.
        assert lines["interpolate"]["mean_gap"] == pytest.approx(0.0, abs=1e-12)

    def test_asked_again_it_runs_nothing_and_says_the_same(self, glideslope, folder):
        first = json.loads(glideslope("tradeoff", TINY, *SMALL, "--out", folder, "--json").out)
        report = glideslope("report", folder, "--json")
        assert report.code == 0, report.err
        again = json.loads(report.out)
        assert without_times(again) == without_times(first)
        assert again["trials"] == first["trials"]

    def test_text_and_page(self, glideslope, folder, tmp_path):
        page = tmp_path / "page.html"
        called = glideslope("report", folder, "--html", page, "--price", "2.5/h")
        assert called.code == 0, called.err
        for heading in ("== Curves ==", "== What they cost ==", "== How far from the separate runs =="):
            assert heading in called.out
        assert "What every budget buys" in page.read_text(encoding="utf-8")

    def test_a_curve_of_one_seed_has_no_intervals(self, glideslope, tmp_path):
        short = (*SMALL[:4], "--seeds", "1", "--estimators", "separate,cyclic", "--out", tmp_path / "one")
        called = glideslope("tradeoff", TINY, *short, "--html", tmp_path / "page.html")
        assert called.code == 0, called.err
        assert "over 1 seed." in called.out
        page = (tmp_path / "page.html").read_text(encoding="utf-8")
        assert f"{TINY}, sgdm: one seed." in page
        assert "Bias of each estimator" not in page
        curves = json.loads(glideslope("report", tmp_path / "one", "--json").out)["mean_curves"]
        glideslope("tradeoff", TINY, *short, "--seeds", "3", "--html", tmp_path / "three.html")
        assert "Bias of each estimator" in (tmp_path / "three.html").read_text(encoding="utf-8")
        for band in [band for curve in curves for band in curve["metrics"].values()]:
            assert band["lows"] == band["highs"] == band["values"]

    def test_methods_of_one_seed_have_no_intervals_either(self, glideslope, tmp_path):
        short = ("--executor", "in-process", "--budgets", "2", "--maximum", "0.1", "--seeds", "1")
        methods = ("--estimators", "cyclic", "--methods", "baseline,label_smoothing", "--out", tmp_path / "methods")
        called = glideslope("tradeoff", "digits-mlp", *short, *methods)
        assert called.code == 0, called.err
        table = called.out.partition("digits-mlp: cost to reach")[2].partition("\n\n")[0]
        assert "that sgdm ends with; outside" in " ".join(table.split())
        assert "[" not in table

    def test_bfloat16_is_said_wherever_the_numbers_go(self, glideslope, tmp_path):
        said = "bfloat16 autocast: not exact"
        short = (*SMALL[:4], "--seeds", "1", "--estimators", "separate,cyclic")
        called = glideslope("tradeoff", TINY, *short, "--out", tmp_path / "half", "--precision", "bfloat16")
        assert f"Computed in {said}." in called.out
        data = json.loads(glideslope("report", tmp_path / "half", "--json").out)
        assert (data["question"]["precision"], data["provenance"]["precision"]) == ("bfloat16", said)
        with Store(tmp_path / "half") as store:
            assert {spec.precision for spec in store.specs().values()} == {"bfloat16"}
            assert {record.path["precision"] for record in store.records().values()} == {"bfloat16"}


class TestMistakes:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("mnist1d-mpl",), "unknown task 'mnist1d-mpl'. Did you mean 'mnist1d-mlp'?"),
            ((TINY, "--estimators", "cylic"), "unknown estimator 'cylic'. Did you mean 'cyclic'?"),
            ((TINY, "--estimators", "cooldown(1.5)"), "`fraction` is 1.5, but must satisfy 0 < fraction < 1."),
            ((TINY, "--estimators", ""), "`estimators` is (), but must satisfy at least one."),
            ((TINY, "--budgets", "7"), "T_1 >= 8 updates"),
            ((TINY, "--maximum", "0.5"), "T_1 >= 8 updates"),
            ((TINY, "--precision", "bfloat"), "unknown precision 'bfloat'. Did you mean 'bfloat16'?"),
            ((TINY, "--methods", "mixupp"), "unknown method 'mixupp'. Did you mean 'mixup'?"),
            ((TINY, "--price", "cheap"), "cannot read the price 'cheap'. Write 2.5/h."),
        ],
    )
    def test_is_one_line_that_teaches(self, glideslope, tmp_path, arguments, message):
        called = glideslope("tradeoff", *arguments, "--out", tmp_path / "runs")
        assert called.code == 2
        assert message in called.err
        assert "Traceback" not in called.err
        assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("text", ["2.5/h", "2.5 /hour"])
def test_price(text):
    assert parse_price(text.replace(" ", "")) == 2.5


@pytest.mark.parametrize("text", ["2.5", "-1/h", "2.5/day", "/h"])
def test_price_that_is_none(text):
    with pytest.raises(ValueError, match="cannot read the price"):
        parse_price(text)
