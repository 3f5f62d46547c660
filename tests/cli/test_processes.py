"""Where the process matters: kill -9, Ctrl-C, `python -m glideslope`."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import time

import pytest
from specs import COMMAND, command_environment

from glideslope.core.spec import canonical
from glideslope.trials.store import FILE, Store

STUDY = ("--optimizers", "sgdm", "--budgets", "5%", "--schedules", "rex,linear,none", "--seeds", "1")


def start(folder, *arguments, **variables):
    """A `glideslope compare` with one worker, in a process group of its own, as a terminal would have it."""
    return subprocess.Popen(
        [*COMMAND, "compare", *arguments, "--workers", "1", "--executor", "processes"],
        cwd=folder,
        env=command_environment() | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def count_rows(folder, table):
    try:
        connection = sqlite3.connect(f"file:{folder / FILE}?mode=ro", uri=True)
    except sqlite3.OperationalError:
        return 0
    try:
        return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    except sqlite3.OperationalError:
        return 0
    finally:
        connection.close()


def wait_for_trials(process, folder, number):
    deadline = time.monotonic() + 60
    while count_rows(folder, "trials") < number:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no trial was stored"
        time.sleep(0.05)


def stored(folder):
    """Trial id → outcome and time of storing."""
    with Store(folder, create=False) as store:
        outcomes = {trial_id: canonical(record.outcome) for trial_id, record in store.records().items()}
        times = dict(store._connection.execute("SELECT trial_id, finished_at FROM trials").fetchall())
    return outcomes, times


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "ctrl-c"])
def test_a_study_that_was_stopped_and_resumed_equals_an_uninterrupted_one(blow, tmp_path, glideslope):
    task = "tiny_tasks:Halting"
    process = start(tmp_path, task, *STUDY, "--out", "stopped", TINY_MODELS=str(tmp_path / "models"))
    try:
        wait_for_trials(process, tmp_path / "stopped", 3)
        (os.killpg if blow == signal.SIGINT else os.kill)(process.pid, blow)
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    if blow == signal.SIGINT:
        assert process.returncode == 130
        assert "What is finished is kept: run the same command again to go on." in err
        assert "Traceback" not in err
        assert out == ""
    else:
        assert process.returncode == -signal.SIGKILL
    before, times_before = stored(tmp_path / "stopped")
    resumed = glideslope("compare", task, *STUDY, "--out", "stopped", "--executor", "in-process", "--json")
    whole = glideslope("compare", task, *STUDY, "--out", "whole", "--executor", "in-process", "--json")
    after, times_after = stored(tmp_path / "stopped")
    assert 3 <= len(before) < len(after)
    assert after == stored(tmp_path / "whole")[0]
    assert {trial_id: times_after[trial_id] for trial_id in before} == times_before
    apart = ("provenance", "seconds_of_work", "computed_by")
    resumed, whole = json.loads(resumed.out), json.loads(whole.out)
    assert {key: resumed[key] for key in resumed if key not in apart} == {
        key: whole[key] for key in whole if key not in apart
    }


def test_ctrl_c_while_workers_start_is_clean(tmp_path):
    process = start(tmp_path, "tiny_tasks:Hours", *STUDY, "--out", "runs")
    try:
        deadline = time.monotonic() + 60
        while count_rows(tmp_path / "runs", "claims") < 1:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.5)  # the worker is importing now, or about to
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 130
    assert err.strip() == "stopped. What is finished is kept: run the same command again to go on."


def test_python_m_glideslope_and_a_task_beside_the_user(tmp_path):
    (tmp_path / "my_tasks.py").write_text("from tiny_tasks import Regression\ntask = Regression(12)\n")
    run = subprocess.run(
        [*COMMAND, "compare", "my_tasks:task", *STUDY, "--workers", "1", "--json"],
        cwd=tmp_path,
        env=command_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    data = json.loads(run.stdout)
    assert {cell["task"] for cell in data["cells"]} == {"my_tasks:task"}
    assert "failed" not in data
    assert re.search(r"trials/s", run.stderr)
    assert (tmp_path / "runs" / "compare" / FILE).exists()
