"""Documentation: what stands in the pages runs, parses or exists; nothing in them is only text."""

import ast
import importlib
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import typer

from glideslope import parse_budget, parse_policy
from glideslope.cli.app import app
from glideslope.core.spec import split_texts
from glideslope.studies.compare import Row
from glideslope.trials.lookup import find_task
from glideslope.trials.optimizers import OptimizerSpec

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "examples" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OUTPUT = {
    "early-stopping.md": "20% spent",
    "which-schedule.md": "[0.1]\n[0.0] 700\n",
}
"""Page of which every block runs, in order → something that it prints."""

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(page, language):
    """The fenced blocks of a page that are marked with a language; "" for those that are not."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [text for marked, text in found if marked == language]


def calls(tree, name):
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == name]


def texts(nodes):
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


@pytest.fixture
def one_thread():
    """Small matrices: more threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", OUTPUT)
def test_the_blocks_of_a_page_are_one_program_that_runs(name, capsys):
    page = ROOT / "docs" / name
    exec(compile("\n".join(blocks(page, "python")), str(page), "exec"), {})
    assert OUTPUT[name] in capsys.readouterr().out


@pages
def test_blocks_compile_import_what_there_is_and_name_schedules_and_budgets_that_parse(page):
    for block in blocks(page, "python"):
        tree = ast.parse(block)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
        for call in calls(tree, "BudgetScheduler"):
            for schedule in texts(call.args[1:2]):
                parse_policy(schedule)
            for budget in texts([keyword.value for keyword in call.keywords if keyword.arg == "budget"]):
                parse_budget(budget)
        for call in calls(tree, "scheduler.rebudget"):
            for budget in texts(call.args[:1]):
                parse_budget(budget)


@pages
def test_quoted_code_in_the_text_is_a_schedule_or_a_budget(page):
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for text in re.findall(r'`"([^"`…]+)"`', prose):
        try:
            parse_policy(text)
        except ValueError:
            parse_budget(text)


@pages
def test_commands_are_those_of_the_program(page):
    verbs = typer.main.get_command(app).commands
    for block in [*blocks(page, ""), *blocks(page, "bash")]:
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["glideslope"]:
                verbs[words[1]].make_context(words[1], words[2:])


def quoted_commands(page):
    """The words of every command that the text or a table quotes, as the shell makes them of the page's variables."""
    settings = "\n".join(block for block in blocks(page, "bash") if re.fullmatch(r"(\w+=.*\n)+", block))
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    quoted = [" ".join(text.split()) for text in re.findall(r'`((?:\w+="[^`]*?; )?glideslope [^`]+)`', prose)]
    script = [f"{text}; printf '\\n'" for text in quoted if " | " not in text]
    program = "\n".join(["set -eu", "glideslope() { printf '%s\\0' \"$@\"; }", settings, *script])
    said = subprocess.run(["bash", "-c", program], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [line.split("\0")[:-1] for line in said.splitlines()]


@pytest.mark.skipif(shutil.which("bash") is None, reason="variables are a shell's")
@pages
def test_quoted_commands_name_options_tasks_schedules_and_optimizers_that_there_are(page):
    verbs = typer.main.get_command(app).commands
    commands = quoted_commands(page)
    assert page.name != "reproduce.md" or len(commands) > 20
    for verb, *rest in commands:
        assert verb in verbs
        asked = verbs[verb].make_context(verb, rest).params if rest else {}
        if not rest or verb not in ("compare", "convergence", "tradeoff"):
            continue
        for text in asked["tasks"] or ():
            find_task(text)
        for text in split_texts(asked.get("schedules") or ""):
            Row.parse(text)
        for text in split_texts(asked["optimizers"] or ""):
            OptimizerSpec.parse(text)


@pages
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#]+)", page.read_text())
    assert [t for t in targets if not t.startswith("http") and not (page.parent / t).exists()] == []
