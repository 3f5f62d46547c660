"""`glideslope show`, `tasks`, and the texts that the command line takes apart."""

import re

import pytest

from glideslope.core.spec import split_texts
from glideslope.trials.lookup import registered_tasks


class TestShow:
    def test_draws_every_schedule(self, glideslope):
        called = glideslope("show", "rex(beta=0.9) @ plateaus(10)", "linear + warmup(5%)", "--budget", "90ep")
        assert called.code == 0
        assert "rex(beta=0.9) @ plateaus(10)" in called.out
        assert "linear + warmup(5%)" in called.out
        assert "epochs" in called.out
        assert "90.0" in called.out
        assert "momentum" not in called.out
        assert "\x1b[" not in called.out

    @pytest.mark.parametrize(("budget", "words"), [("10000ba", "updates"), ("45min", "seconds"), ("2e9tok", "tokens")])
    def test_the_axis_is_the_budget_in_its_own_unit(self, glideslope, budget, words):
        assert words in glideslope("show", "rex", "--budget", budget).out

    def test_a_plan_shows_momentum_too(self, glideslope):
        called = glideslope("show", "--plan", "one_cycle")
        assert called.code == 0
        assert "multiplier of the base rate" in called.out
        assert "momentum" in called.out
        assert "0.95" in called.out
        assert "0.85" in called.out

    def test_a_page(self, glideslope, tmp_path):
        called = glideslope("show", "rex", "one_cycle", "--html", "page.html")
        assert "wrote page.html" in called.err
        text = (tmp_path / "page.html").read_text(encoding="utf-8")
        assert not re.search(r"<(script|img|iframe)[^>]+src\s*=", text)
        assert "one_cycle" in text

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((), "name at least one schedule"),
            (("cosin",), "unknown schedule 'cosin'. Did you mean 'cosine'?"),
            (("rex", "--budget", "90 parsecs"), "90 parsecs"),
            (("rex", "--budget", "0ep"), "count"),
            (("<script>",), "cannot read at column 1"),
            (("rex @",), "rex @"),
        ],
    )
    def test_mistakes(self, glideslope, arguments, message):
        assert message in glideslope("show", *arguments).error

    def test_markup_in_a_mistake_is_text(self, glideslope):
        assert "[red]rex[/red]" in glideslope("show", "[red]rex[/red]").error


class TestTasks:
    def test_lists_every_task_with_size_source_and_needs(self, glideslope):
        called = glideslope("tasks")
        assert called.code == 0
        for name in registered_tasks():
            assert name in called.out
        (line,) = [line for line in called.out.splitlines() if line.startswith("mnist1d-mlp")]
        assert "2,698" in line
        assert "nothing (embedded)" in line
        assert "error, %" in line

    def test_lists_every_training_method_with_its_settings(self, glideslope):
        out = glideslope("tasks").out
        (line,) = [line for line in out.splitlines() if line.startswith("mixup ")]
        assert "alpha 0.2" in line
        (line,) = [line for line in out.splitlines() if line.startswith("layer_freezing ")]
        assert "Refused" in line


class TestTexts:
    @pytest.mark.parametrize(
        ("text", "parts"),
        [
            ("", ()),
            (" , ", ()),
            ("rex", ("rex",)),
            ("rex, linear,", ("rex", "linear")),
            ("rex+warmup(10%),one_cycle", ("rex+warmup(10%)", "one_cycle")),
            ("sequence((rex, linear), at=(0.3,)),rex", ("sequence((rex, linear), at=(0.3,))", "rex")),
            ("sgdm(momentum=0.9, nesterov=true),a.b:C", ("sgdm(momentum=0.9, nesterov=true)", "a.b:C")),
        ],
    )
    def test_commas_inside_parentheses_do_not_count(self, text, parts):
        assert split_texts(text) == parts


class TestHelp:
    def test_without_arguments_the_verbs_are_listed(self, glideslope):
        called = glideslope()
        for verb in ("compare", "report", "rank", "show", "tasks"):
            assert verb in called.out + called.err

    def test_an_unknown_verb(self, glideslope):
        called = glideslope("comapre")
        assert called.code == 2
        assert "Traceback" not in called.err


class TestFindLr:
    def test_suggests_rates_with_reasons(self, glideslope, tmp_path):
        called = glideslope("find-lr", "digits-mlp", "--stop", "100", "--accuracy", "--html", "page.html")
        assert called.code == 0
        for rule in ("steepest descent", "minimum / 10", "accuracy peak"):
            assert re.search(rf"{rule} +0\.\d+ +the ", called.out), rule
        assert "1e-2" in called.out  # decades on the axis
        assert "minimum / 10" in (tmp_path / "page.html").read_text(encoding="utf-8")

    def test_says_what_it_cannot_tell(self, glideslope):
        called = glideslope("find-lr", "digits-mlp", "--stop", "1e-5", "--updates", "20")
        assert called.out.count("could not tell") == 3

    def test_mistakes(self, glideslope):
        assert "unknown task" in glideslope("find-lr", "digit-mlp").error
        assert "0 < start < stop" in glideslope("find-lr", "digits-mlp", "--start", "100").error
        assert "unknown spacing" in glideslope("find-lr", "digits-mlp", "--spacing", "log").error
