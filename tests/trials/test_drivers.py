"""Several drivers on one store: none runs what another one is at, none waits for one that is gone, none is locked."""

import os
import signal
import time

import pytest
from specs import make_spec
from under_fire import (
    Chain,
    chains,
    drive,
    fork_server,
    is_sound,
    kill,
    open_often,
    running,
    started,
    starts,
    stored,
)
from waiting import wait_until

from glideslope.core.spec import canonical
from glideslope.trials.run import run_trial
from glideslope.trials.store import Store


@pytest.fixture(scope="module")
def server():
    return fork_server()


def outcomes(cells):
    specs = [spec for cell in cells for spec in cell.specs]
    return {spec.trial_id: ("finished", canonical(run_trial(spec).outcome)) for spec in specs}


def test_two_drivers_share_a_study_and_run_nothing_twice(server, tmp_path):
    cells = chains(8, 8)
    log = tmp_path / "log"
    arguments = (cells, tmp_path / "store", "in-process", log)
    one, two = (server.Process(target=drive, args=arguments, kwargs={"company": 2}) for _ in range(2))
    with running(one), running(two):
        one.join()
        two.join()
    assert (one.exitcode, two.exitcode) == (0, 0)
    assert stored(tmp_path / "store") == outcomes(cells)
    assert is_sound(tmp_path / "store")
    assert set(starts(log).values()) == {1}
    assert len({start.driver for start in started(log)}) == 2


def test_populations_of_two_drivers_share_too(server, tmp_path):
    cells = chains(16, 4)
    log = tmp_path / "log"
    arguments = (cells, tmp_path / "store", "population", log)
    one, two = (server.Process(target=drive, args=arguments) for _ in range(2))
    with running(one), running(two):
        one.join()
        two.join()
    assert (one.exitcode, two.exitcode) == (0, 0)
    assert len(stored(tmp_path / "store")) == 64
    assert set(starts(log).values()) == {1}


def slow(seed, updates=40):
    return make_spec("tiny_tasks:Slow", seed=seed, updates=updates, eval_every=updates)


def test_what_a_killed_driver_was_at_is_taken_over_and_nothing_else_runs_again(server, tmp_path):
    cells = [Chain((slow(seed), make_spec(seed=seed))) for seed in range(6)]
    log = tmp_path / "log"
    arguments = (cells, tmp_path / "store", "in-process", log)
    with running(server.Process(target=drive, args=arguments)) as one:
        wait_until(lambda: len(started(log)) >= 2)  # the first is stored, the second in training
        with running(server.Process(target=drive, args=arguments)) as two:
            wait_until(lambda: len(started(log)) >= 4)
            kill(one.pid)
            one.join()
            killed_at = started(log)
            two.join()
            assert two.exitcode == 0
    assert stored(tmp_path / "store") == outcomes(cells)
    twice = {trial for trial, count in starts(log).items() if count > 1}
    last = [start.trials[0] for start in killed_at if start.driver == one.pid][-1]
    assert twice <= {last}
    assert sum(starts(log).values()) <= 12 + 1


def test_a_driver_that_sleeps_keeps_what_it_is_at(server, tmp_path):
    """A laptop that was shut, a job that was stopped: no lease runs out, so nothing is computed twice."""
    spec = make_spec("tiny_tasks:Gated")
    log, gate = tmp_path / "log", tmp_path / "gate"
    arguments = ([Chain((spec,))], tmp_path / "store", "in-process", log)
    variables = {"variables": {"TINY_GATE": str(gate)}}
    with running(server.Process(target=drive, args=arguments, kwargs=variables)) as one:
        wait_until(lambda: len(started(log)) == 1)
        os.kill(one.pid, signal.SIGSTOP)
        with running(server.Process(target=drive, args=arguments)) as two:
            wait_until(lambda: str(two.pid) in log.read_text())  # it has asked, in vain
            time.sleep(1.5)
            assert two.is_alive()
            os.kill(one.pid, signal.SIGCONT)
            gate.touch()
            one.join()
            two.join()
            assert (one.exitcode, two.exitcode) == (0, 0)
    assert starts(log) == {spec.trial_id: 1}


def test_stores_that_many_open_at_once_are_never_locked(server, tmp_path):
    """To make a store, and to switch it to its log, are the moments at which SQLite does not wait by itself."""
    processes = [server.Process(target=open_often, args=(tmp_path, 25, number)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    for number in range(25):
        with Store(tmp_path / str(number)) as store:
            assert len(store.records()) == 4
