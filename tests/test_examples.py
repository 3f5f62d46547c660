"""Examples: each runs as it is, lands where it says, and spends what it may; each is short enough to be read whole."""

import os
import re
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "examples"
FEWEST_LINES, MOST_LINES = 40, 80
LATEST_MS = 1000.0
"""How far an example may overrun a time: one update, on a machine that does much else at the same time."""

LONGEST_SECONDS = 300
"""After that an example hangs."""

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")


@dataclass(frozen=True)
class Short:
    """An example in its short form, and where it must land.

    Args:
        arguments: of the program.
        rate: learning rate after the last update.
        peak: highest rate of the run, which says what "about `rate`" is.
        updates: how many there are; None where the time decides.
        ranks: processes that tell of their landing, which must be one and the same.
        launcher: what Python is told before the program's name.
        environment: variables that differ.
        ignored: warnings of others, as `PYTHONWARNINGS` has them.
    """

    arguments: tuple[str, ...]
    rate: float
    peak: float
    updates: int | None = None
    ranks: int = 1
    launcher: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()


RUNS = {
    "plain_loop.py": [Short(("--schedule", "one_cycle", "--budget", "300ba"), rate=0.01, peak=0.1, updates=300)],
    "wall_clock.py": [
        Short(("--budget", "2sec reserve 0.5sec", "--rebudget", "2.5sec reserve 0.5sec"), rate=0.0, peak=0.1)
    ],
    "lightning_fit.py": [
        Short(
            ("--budget", "1.5sec reserve 0.5sec"),
            rate=0.0,
            peak=0.003,
            ignored=(
                "ignore:`isinstance(treespec:FutureWarning",
                "ignore:The 'train_dataloader' does not have many workers:UserWarning",
                "ignore:The 'test_dataloader' does not have many workers:UserWarning",
            ),
        )
    ],
    "tradeoff_curve.py": [
        Short(("--first", "20", "--budgets", "5", "--target", "0.9"), rate=0.0, peak=0.1, updates=320),
        Short(("--first", "20", "--budgets", "5", "--estimator", "cooldown(0.1)"), rate=0.0, peak=0.1, updates=350),
    ],
    "steered.py": [
        Short(("--controller", "greedy"), rate=0.0, peak=0.02, updates=720),
        Short(("--controller", "arc"), rate=0.0, peak=0.05, updates=720),
    ],
    "ddp_torchrun.py": [Short(("--budget", "1sec"), rate=0.0, peak=0.1, ranks=2, launcher=TORCHRUN)],
    "jax_optax.py": [
        Short(("--budget", "300ba"), rate=0.0, peak=0.1, updates=300),
        Short(("--budget", "1sec"), rate=0.0, peak=0.1),
    ],
    "finetune_trainer.py": [Short(("--smoke", "--budget", "1sec"), rate=0.0, peak=1e-4)],
    "keras_fit.py": [
        Short(("--budget", "1sec"), rate=0.0, peak=0.003, environment={"KERAS_BACKEND": "torch"}),
        # Not a time: JAX compiles within the first update, which takes longer than a short form may.
        Short(("--budget", "300ba"), rate=0.0, peak=0.003, updates=300, environment={"KERAS_BACKEND": "jax"}),
    ],
}


def printed(name, run):
    """What an example prints; it must end well, and warn of nothing."""
    command = [sys.executable, *run.launcher, str(FOLDER / name), *run.arguments]
    offline = {"HF_HUB_OFFLINE": "1", "JAX_PLATFORMS": "cpu", "PYTHONWARNINGS": ",".join(("error", *run.ignored))}
    environment = os.environ | ONE_THREAD | offline | run.environment
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=LONGEST_SECONDS
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def patiently(check, *arguments):
    """A check of a run of a second or two, of which a busy machine may take one: one of three must hold."""
    for _ in range(2):
        with suppress(AssertionError):
            return check(*arguments)
    return check(*arguments)


def landed(name, run):
    """What an example prints, after a check that it landed where it should, and in time."""
    return patiently(landed_once, name, run) if run.updates is None else landed_once(name, run)


def landed_once(name, run):
    text = printed(name, run)
    rates = re.findall(r"landed at rate ([^\s,]+)", text)
    updates = re.findall(r"([0-9]+) updates", text)
    assert (len(rates), len(set(updates))) == (run.ranks, 1), text
    # The last rate is written at one reading of the clock, the loop is left at the next one, an instant later.
    assert [float(rate) for rate in rates] == pytest.approx([run.rate] * run.ranks, abs=1e-3 * run.peak), text
    assert int(updates[0]) == run.updates or (run.updates is None and int(updates[0]) > 1), text

    late = [float(number) for number in re.findall(r"(-?[0-9.]+) ms", text)]
    assert len(late) == (run.updates is None), text
    assert all(0 <= milliseconds < LATEST_MS for milliseconds in late), text

    (accuracy,) = re.findall(r"accuracy.* ([0-9.]+)%", text)
    assert run.updates is None or float(accuracy) > 80, text  # how far a time takes you, nobody knows
    return text


def test_the_plain_loop_goes_on_where_it_stopped(tmp_path):
    (run,) = RUNS["plain_loop.py"]
    whole = landed("plain_loop.py", run)
    file = ("--checkpoint", str(tmp_path / "run.pt"))
    left = printed("plain_loop.py", replace(run, arguments=(*run.arguments, *file, "--leave-after", "90")))
    resumed = printed("plain_loop.py", replace(run, arguments=(*run.arguments, *file)))
    assert left == "left after 90 updates, 30% of the budget\n"
    assert resumed == "resumed" + left.removeprefix("left") + whole


def test_a_time_is_what_the_stopwatch_says_less_reserve_and_evaluations():
    patiently(check_the_stopwatch)


def check_the_stopwatch():
    (run,) = RUNS["wall_clock.py"]
    text = landed_once("wall_clock.py", run)
    assert "the budget is now 2.5sec reserve 0.5sec" in text
    trained, since_start = re.search(r"trained for ([0-9.]+) s.* ([0-9.]+) s after the start", text, re.DOTALL).groups()
    assert 2.0 <= float(trained) < 2.0 + LATEST_MS / 1000
    assert float(since_start) - float(trained) > 3 * 0.2  # it looks three times, and sleeps for 0.2 s each time


FRAMEWORKS = sorted(RUNS.keys() - {"plain_loop.py", "wall_clock.py"})


@pytest.mark.parametrize(
    ("name", "run"),
    [pytest.param(name, run, id=f"{name} {index}") for name in FRAMEWORKS for index, run in enumerate(RUNS[name])],
)
def test_it_lands_in_every_framework(name, run):
    landed(name, run)


def test_every_example_runs_here_is_listed_and_fits_in_a_readers_head():
    lines = {path.name: len(path.read_text().splitlines()) for path in FOLDER.glob("*.py")}
    assert lines.keys() == RUNS.keys()
    assert {name: count for name, count in lines.items() if not FEWEST_LINES <= count <= MOST_LINES} == {}
    page = (FOLDER / "README.md").read_text()
    assert [name for name in lines if f"[{name}]({name})" not in page] == []
