"""kill -9 at any moment: no finished trial is lost, none runs twice but what was in flight, the answer is the same.

In the suite 26 kills; GLIDESLOPE_KILLS=10 makes 224.
"""

import os
import random
import time

import pytest
from checkpoint_tasks import position
from specs import make_spec
from under_fire import (
    Chain,
    chains,
    children,
    drive,
    fork_server,
    is_sound,
    kill,
    running,
    started,
    starts,
    stored,
)
from waiting import wait_until

from glideslope.core.spec import canonical
from glideslope.trials.run import run_trial

TIMES = int(os.environ.get("GLIDESLOPE_KILLS", "1"))


@pytest.fixture(scope="module")
def server():
    return fork_server()


class Battle:
    """A study in a folder, whose drivers and workers are killed.

    Attributes:
        allowed: trials that may have been started once more, by kills of a driver: what was in flight then.
    """

    def __init__(self, server, cells, folder, kind, seed):
        self.server, self.cells, self.kind = server, cells, kind
        self.folder, self.log, self.allowance = folder / "store", folder / "log", folder / "allowance"
        self.random = random.Random(seed)
        self.allowed = 0
        self.kills = 0
        self.before = {}

    def driver(self):
        self.allow(len(started(self.log)) + 1)
        arguments = (self.cells, self.folder, self.kind, self.log)
        return running(self.server.Process(target=drive, args=arguments, kwargs={"allowance": self.allowance}))

    def allow(self, number):
        """So many starts in all; then whoever wants to kill has time."""
        draft = self.allowance.with_suffix(".draft")
        draft.write_text(str(number))
        draft.replace(self.allowance)

    def wait(self, process, most_starts):
        """Until a random number of trials more has been started, and for a random moment in the middle of one."""
        wanted = len(started(self.log)) + self.random.randint(0, most_starts)
        self.allow(wanted + 1)
        wait_until(lambda: len(started(self.log)) >= wanted or not process.is_alive())
        time.sleep(self.random.uniform(0.0, 0.03))

    def kill_driver(self, most_starts):
        with self.driver() as process:
            self.wait(process, most_starts)
            assert process.is_alive()
            kill(process.pid)
            process.join()
            assert process.exitcode == -9
        self.kills += 1
        self.check()
        mine = {trial for start in started(self.log) if start.driver == process.pid for trial in start.trials}
        self.allowed += len(mine - self.before.keys())

    def kill_workers(self, number, most_starts):
        """One driver, whose workers are killed; it goes on."""
        with self.driver() as process:
            for _ in range(number):
                self.wait(process, most_starts)
                wait_until(lambda: children(process.pid))
                kill(self.random.choice(children(process.pid)))
                self.kills += 1
            self.allow(10**9)
            process.join()
            assert process.exitcode == 0
        self.check()

    def check(self):
        """Nothing that was stored has changed, and the file is sound."""
        now = stored(self.folder)
        lost = {trial for trial, entry in self.before.items() if entry[0] != "failed" and now.get(trial) != entry}
        assert not lost
        assert not now or is_sound(self.folder)
        self.before = now

    def finish(self):
        """Run what is left, undisturbed."""
        with self.driver() as process:
            self.allow(10**9)
            process.join()
            assert process.exitcode == 0
        self.check()


@pytest.mark.parametrize(
    ("kind", "driver_kills", "worker_kills", "most_starts", "length"),
    [("in-process", 12, 0, 6, 80), ("processes", 3, 3, 6, 50), ("population", 2, 2, 1, 200)],
)
def test_a_study_under_fire_ends_as_one_that_was_left_alone(
    kind, driver_kills, worker_kills, most_starts, length, server, tmp_path
):
    cells = chains(10, length * TIMES // 10, updates=40 if kind == "population" else 4, eval_every=20)
    specs = [spec for cell in cells for spec in cell.specs]
    battle = Battle(server, cells, tmp_path, kind, seed=1)
    for _ in range(driver_kills * TIMES):
        battle.kill_driver(most_starts)
    if worker_kills:
        battle.kill_workers(worker_kills * TIMES, most_starts)
    battle.finish()
    assert battle.kills == (driver_kills + worker_kills) * TIMES
    after = battle.before
    assert after.keys() == {spec.trial_id for spec in specs}
    if kind == "population":
        alone = Battle(server, cells, tmp_path / "alone", kind, seed=1)
        alone.folder.parent.mkdir()
        alone.finish()
        assert after == alone.before
    else:
        assert after == {spec.trial_id: ("finished", canonical(run_trial(spec).outcome)) for spec in specs}
    # A worker that is killed costs what it was at, once more; in a population that is the population.
    largest = max(len(start.trials) for start in started(battle.log))
    again = sum(starts(battle.log).values()) - len(specs)
    assert again <= battle.allowed + worker_kills * TIMES * largest
    if not worker_kills:
        assert again == battle.allowed <= driver_kills * TIMES


def test_a_long_trial_goes_on_from_its_last_checkpoint(server, tmp_path):
    """Killed again and again, it computes no update before the last checkpoint again, and ends in the same bits."""
    updates = 4000
    counter = tmp_path / "updates"
    spec = make_spec("checkpoint_tasks:Counting", "rex", optimizer="adam", updates=updates, eval_every=100)
    folder, log = tmp_path / "store", tmp_path / "log"
    checkpoint = folder / "checkpoints" / f"{spec.trial_id}.safetensors"
    generator = random.Random(2)
    arguments = ([Chain((spec,))], folder, "in-process", log, 0.02)
    positions = [0]
    while len(positions) < 5:
        limit = (counter.stat().st_size if counter.exists() else 0) + updates // 5  # it cannot end before the last life
        variables = {"TINY_COUNTER": str(counter), "TINY_LIMIT": str(limit)}
        with running(server.Process(target=drive, args=(*arguments, variables))) as process:
            wait_until(lambda: position(checkpoint) > positions[-1])
            time.sleep(generator.uniform(0.0, 0.02))
            assert process.is_alive()
            kill(process.pid)
            process.join()
        positions.append(position(checkpoint))
    counter.unlink()
    with running(server.Process(target=drive, args=(*arguments, {"TINY_COUNTER": str(counter)}))) as process:
        process.join()
    assert positions == sorted(positions)
    assert counter.stat().st_size == updates - positions[-1] < updates
    assert stored(folder) == {spec.trial_id: ("finished", canonical(run_trial(spec).outcome))}
    assert not list(checkpoint.parent.iterdir())
