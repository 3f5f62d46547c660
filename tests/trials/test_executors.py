"""Executors: every spec comes back once, long ones first, and a dead worker costs its own trial only."""

import os
import signal
import subprocess
import sys
import time

import pytest
from specs import command_environment, make_spec
from waiting import wait_until

from glideslope.core.spec import canonical
from glideslope.trials.executors import InProcess, Processes
from glideslope.trials.run import run_trial


def run_all(executor, specs):
    with executor:
        for spec in specs:
            executor.submit(spec)
        return {spec.trial_id: record for spec, record in (executor.next() for _ in specs)}


def alive(pid):
    """Whether a process runs; a zombie that nobody has waited for does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def executor():
    """One executor with one worker for many tests: starting a process costs seconds."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "7"
    with Processes(1) as executor:
        executor.submit(make_spec(updates=1))
        executor.next()
        # The driver's own environment is put back once the worker has started.
        assert os.environ.pop("OMP_NUM_THREADS") == "7"
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before
        yield executor


def in_order(executor, specs):
    for spec in specs:
        executor.submit(spec)
    return [executor.next() for _ in specs]


class TestContract:
    def test_every_spec_comes_back_once_and_a_killed_worker_costs_its_own_trial_only(self):
        specs = [make_spec("tiny_tasks:Killing", seed=seed, updates=5 + seed) for seed in range(6)]
        records = run_all(Processes(2), specs)
        assert set(records) == {spec.trial_id for spec in specs}
        statuses = [records[spec.trial_id].status for spec in specs]
        assert statuses == ["finished", "finished", "failed", "finished", "finished", "finished"]
        victim, lost = specs[2], records[specs[2].trial_id]
        assert "exit code -9 during this trial" in lost.error
        assert (lost.trial_id, lost.trajectory_id) == (victim.trial_id, victim.trajectory_id)
        for spec in (*specs[:2], *specs[3:]):
            assert canonical(run_trial(spec).outcome) == canonical(records[spec.trial_id].outcome)

    @pytest.mark.parametrize("where", ["in-process", "processes"])
    def test_long_trials_start_first_and_equal_ones_in_order(self, where, executor):
        specs = [make_spec(updates=updates, seed=seed) for seed, updates in enumerate((3, 9, 3, 12))]
        order = [spec for spec, _ in in_order(InProcess() if where == "in-process" else executor, specs)]
        assert [(spec.updates, spec.seeds.init) for spec in order] == [(12, 3), (9, 1), (3, 0), (3, 2)]

    @pytest.mark.parametrize("where", ["in-process", "processes"])
    def test_records_say_how_they_were_computed(self, where, executor):
        ((_, record),) = in_order(InProcess() if where == "in-process" else executor, [make_spec(seed=9)])
        assert record.path == {"executor": where, "device": "cpu", "K": 1}
        assert set(record.versions) == {"glideslope", "python", "torch", "numpy"}

    @pytest.mark.parametrize("count", [0, -1])
    def test_no_workers_at_all_is_refused(self, count):
        with pytest.raises(ValueError, match=f"`num_workers` is {count}, but must satisfy num_workers >= 1"):
            Processes(count)


class TestWorkers:
    def test_workers_have_one_thread_and_wait_passively(self, executor):
        ((_, record),) = in_order(executor, [make_spec("tiny_tasks:Environment", updates=1)])
        assert record.test.metric == 1 + 10 + 100

    def test_a_worker_killed_while_idle_costs_nothing(self, executor):
        in_order(executor, [make_spec(seed=1)])
        (worker,) = executor._workers
        os.kill(worker.process.pid, signal.SIGKILL)
        worker.process.join()
        spec = make_spec(seed=2)
        ((_, record),) = in_order(executor, [spec])
        assert record.outcome == run_trial(spec).outcome

    def test_closing_stops_long_trials_at_once(self):
        with Processes(1) as executor:
            executor.submit(make_spec("tiny_tasks:Hours"))
            executor._feed()
            (pid,) = [worker.process.pid for worker in executor._workers]
            started = time.monotonic()
        assert time.monotonic() - started < 300
        assert not alive(pid)

    def test_a_driver_that_dies_takes_its_workers_with_it(self, tmp_path):
        program = tmp_path / "driver.py"
        # The short trial is the longer one in updates, so it goes first; then the worker sits in the middle of an hour.
        program.write_text(
            "from glideslope.trials.executors import Processes\n"
            "from specs import make_spec\n"
            "if __name__ == '__main__':\n"
            "    executor = Processes(1)\n"
            "    executor.submit(make_spec('tiny_tasks:Hours', updates=9))\n"
            "    executor.submit(make_spec('tiny_tasks:Regression', updates=10))\n"
            "    executor.next()\n"
            "    print(executor._workers[0].process.pid, flush=True)\n"
            "    executor.next()\n"
        )
        driver = subprocess.Popen(
            [sys.executable, str(program)], stdout=subprocess.PIPE, text=True, env=command_environment()
        )
        try:
            worker = int(driver.stdout.readline())
            assert alive(worker)
            driver.kill()
            driver.wait(100)
            wait_until(lambda: not alive(worker))
        finally:
            driver.kill()
            driver.stdout.close()
