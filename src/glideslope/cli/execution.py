"""Running a study from the command line: the executor by name, and a progress bar."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from glideslope.core.spec import split_texts
from glideslope.core.value import unknown
from glideslope.trials import planner
from glideslope.trials.device import find_device
from glideslope.trials.executors import Executor, InProcess, Populations, Processes, RayCluster, Torchrun
from glideslope.trials.record import Record
from glideslope.trials.store import Store

EXECUTORS = ("population", "processes", "in-process", "ray", "torchrun")
SECONDS_BETWEEN_LINES = 15.0


def make_executor(
    name: str,
    workers: int | None,
    ray_address: str | None = None,
    ray_resources: str | None = None,
    ranks: int | None = None,
    device: str = "cpu",
) -> Executor:
    """The executor of a name.

    Args:
        name: one of `EXECUTORS`.
        workers: how many; None means as many as there is room for.
        ray_address, ray_resources: see `RayCluster`; the resources as text, "CPU=1,GPU=0.25".
        ranks: see `Torchrun` and `RayCluster`; for no other.
        device: "cpu", "cuda" or "auto"; for executors of this machine that share no trial.

    Raises:
        ValueError: these do not go together, or are not there.
    """
    if device != "cpu" and name == "torchrun":
        raise ValueError("--executor torchrun takes a GPU for every rank, if there are any: leave --device out.")
    if device != "cpu" and name == "ray":
        raise ValueError(
            "--device belongs to this machine, and --executor ray computes on the nodes of a cluster: leave it out. "
            "Give its workers GPUs with --ray-resources GPU=1, or take --executor population."
        )
    if ranks is not None and name not in ("torchrun", "ray"):
        raise ValueError(
            f"--ranks belongs to --executor torchrun and ray, whose ranks share every trial, not to {name}. "
            "How many trials run at a time is --workers."
        )
    if name == "ray":
        try:
            return RayCluster(ray_address, workers, _amounts(ray_resources) if ray_resources else None, ranks)
        except ImportError as error:
            raise ValueError(str(error)) from error  # of the user's making: told in one line
    if ray_address is not None or ray_resources is not None:
        raise ValueError(f"--ray-address and --ray-resources belong to --executor ray, not to {name}.")
    if name == "torchrun":
        if ranks is None or workers is not None:
            raise ValueError(
                "--executor torchrun runs one trial at a time, shared by several processes: say how many with "
                "--ranks 2 (one per GPU, if there are any), and leave --workers out."
            )
        return Torchrun(ranks)
    if name == "population":
        return Populations(workers, find_device(device))
    if name == "processes":
        return Processes(workers, find_device(device))
    if name == "in-process":
        return InProcess(find_device(device))
    raise unknown("executor", name, EXECUTORS)


def _amounts(text: str) -> dict[str, float]:
    """Amounts of resources by name.

    >>> _amounts("CPU=2, GPU=0.25")
    {'CPU': 2.0, 'GPU': 0.25}
    """
    amounts = {}
    for part in split_texts(text):
        name, _, amount = part.partition("=")
        try:
            amounts[name.strip()] = float(amount)
        except ValueError:
            raise ValueError(f"cannot read the resources {text!r}. Write CPU=1 or CPU=1,GPU=0.25.") from None
    return amounts


def run(cells: Iterable[planner.Cell], store: Store, executor: Executor) -> dict[str, Record]:
    """Call the study to its fixed point, showing how far it is."""
    try:
        with _shown() as report:
            return planner.run_study(cells, store, executor, report)
    except KeyboardInterrupt:
        # Here and not in `main`: typer ends the process on Ctrl-C without a word.
        Console(stderr=True).print("stopped. What is finished is kept: run the same command again to go on.")
        sys.exit(130)


@contextmanager
def _shown() -> Iterator[Callable[[planner.Progress], None]]:
    """A bar on a terminal, a line now and then elsewhere."""
    started = time.monotonic()
    console = Console(stderr=True, highlight=False)
    if not sys.stderr.isatty():
        last = [started]

        def print_line(progress: planner.Progress) -> None:
            finished = progress.trials_done == progress.trials_known
            if time.monotonic() - last[0] >= SECONDS_BETWEEN_LINES or (finished and progress.trials_done):
                last[0] = time.monotonic()
                console.print(_describe(progress, last[0] - started), soft_wrap=True)

        yield print_line
        return
    with Progress(BarColumn(), TextColumn("{task.description}"), console=console) as bar:
        line = bar.add_task("starting", total=None)

        def move(progress: planner.Progress) -> None:
            bar.update(
                line,
                completed=progress.updates_done,
                total=max(1, progress.updates_known),
                description=_describe(progress, time.monotonic() - started),
            )

        yield move


def _describe(progress: planner.Progress, seconds: float) -> str:
    """Trials done, rate, time left. The time left counts what is known; tuning may ask for more."""
    text = f"{progress.trials_done}/{progress.trials_known} trials"
    if progress.failed:
        text += f", {progress.failed} failed"
    if progress.updates_done and seconds > 0:
        rate = progress.updates_done / seconds
        left = (progress.updates_known - progress.updates_done) / rate
        text += f", {progress.trials_done / seconds:.1f} trials/s, {rate:,.0f} updates/s, {_duration(left)} left"
    return text


def _duration(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> _duration(3725)
    '1:02:05'
    """
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
