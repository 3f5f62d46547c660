"""Populations on a CUDA GPU: are they right, and how fast. One script for a machine that is lent for minutes.

    PYTHONPATH=src python benchmarks/device.py --out device.json     # about six minutes on one GPU
    PYTHONPATH=src python benchmarks/device.py --tiny                # the same code on a CPU, without graphs

It needs PyTorch, NumPy and this repository's `src`; nothing has to be installed. Data are random numbers in the shapes
of the embedded tasks and of CIFAR-10 (`--data FOLDER` takes the real pictures), so losses mean nothing, and seconds do.

Parts, in the order of what is wanted first; what has been measured is written after each:

- right: graphs against no graphs (bit for bit), against `run_trial` on the same GPU, and a record against K, place and
  neighbours (bit for bit)
- resnet: seconds per epoch of ResNet-20/CIFAR-10 at batch 128: ordinary eager loops, one replayed trial, several
- mlp: microseconds per trial and update of the embedded MLP tasks: ordinary eager loops on this GPU and one CPU core,
  populations with and without a graph
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
import tomllib
import traceback
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

ROOT = Path(__file__).parent.parent


def _make_do() -> None:
    """Stand-ins for what only an installation has: the version, and safetensors, which writes checkpoints."""
    try:
        version("glideslope")
    except PackageNotFoundError:
        number = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
        folder = Path(tempfile.mkdtemp())
        (folder / "glideslope.dist-info").mkdir()
        (folder / "glideslope.dist-info" / "METADATA").write_text(f"Name: glideslope\nVersion: {number}\n")
        sys.path.append(str(folder))
    if "safetensors" not in sys.modules and importlib.util.find_spec("safetensors") is None:
        names = {"safetensors": ("SafetensorError", "safe_open"), "safetensors.torch": ("save_file",)}
        for module, entries in names.items():
            sys.modules[module] = types.ModuleType(module)
            for entry in entries:
                setattr(sys.modules[module], entry, type(entry, (Exception,), {}))


_make_do()

from glideslope.core.spec import canonical  # noqa: E402 - after the stand-ins
from glideslope.studies.setting import Setting  # noqa: E402
from glideslope.tasks.cifar import CIFAR10ResNet20  # noqa: E402
from glideslope.tasks.digits import DigitsAutoencoder, DigitsMLP, DigitsVAE  # noqa: E402
from glideslope.tasks.mnist1d import MNIST1DMLP  # noqa: E402
from glideslope.trials import population  # noqa: E402
from glideslope.trials.arithmetic import ARITHMETICS  # noqa: E402
from glideslope.trials.batched import side_by_side  # noqa: E402
from glideslope.trials.batched.choice import CUDA_WIDTH, choose_program  # noqa: E402
from glideslope.trials.batched.framed import Frame  # noqa: E402
from glideslope.trials.batched.programs import Program  # noqa: E402
from glideslope.trials.batched.side_by_side import SideBySide, SideBySideInBfloat16  # noqa: E402
from glideslope.trials.device import arithmetic_on, exact, resident_splits  # noqa: E402
from glideslope.trials.lookup import find_task  # noqa: E402
from glideslope.trials.record import Record  # noqa: E402
from glideslope.trials.run import batches, one_thread, planned_task, run_trial  # noqa: E402
from glideslope.trials.task import Batch, Splits, Task  # noqa: E402
from glideslope.trials.trial import Seeds, TrialSpec  # noqa: E402

TINY = "GLIDESLOPE_DEVICE_TINY"
REAL = "GLIDESLOPE_DEVICE_REAL"


def _labelled(count: int, shape: Sequence[int], seed: int) -> Batch:
    """Numbers in [0, 1] with one of ten labels, which a linear map of them gives."""
    generator = np.random.default_rng(seed)
    inputs = generator.random((count, *shape), dtype=np.float32)
    directions = np.random.default_rng(0).normal(size=(int(np.prod(shape)), 10)).astype(np.float32)
    labels = ((inputs - 0.5).reshape(count, -1) @ directions).argmax(1)
    return torch.from_numpy(inputs), torch.from_numpy(labels)


def _random_splits(sizes: tuple[int, int, int], shape: Sequence[int], labelled: bool = True) -> Splits:
    if TINY in os.environ:
        sizes = tuple(min(size, small) for size, small in zip(sizes, (200, 50, 50), strict=True))
    parts = [_labelled(size, shape, seed) for seed, size in enumerate(sizes)]
    return Splits(*(part if labelled else part[:1] for part in parts))


@dataclass(frozen=True)
class Signals(MNIST1DMLP):
    name: ClassVar[str] = "mnist1d-mlp"

    def splits(self) -> Splits:
        return _random_splits((8000, 2000, 5000), (40,))


@dataclass(frozen=True)
class Digits(DigitsMLP):
    name: ClassVar[str] = "digits-mlp"

    def splits(self) -> Splits:
        return _random_splits((1200, 297, 300), (64,))


@dataclass(frozen=True)
class Codes(DigitsAutoencoder):
    name: ClassVar[str] = "digits-autoencoder"

    def splits(self) -> Splits:
        return _random_splits((1200, 297, 300), (64,), labelled=False)


@dataclass(frozen=True)
class Draws(DigitsVAE):
    name: ClassVar[str] = "digits-vae"

    def splits(self) -> Splits:
        return _random_splits((1200, 297, 300), (64,), labelled=False)


@dataclass(frozen=True)
class Pictures(CIFAR10ResNet20):
    name: ClassVar[str] = "cifar10-resnet20"
    batch_size: ClassVar[int] = 4 if TINY in os.environ else 128

    def splits(self) -> Splits:
        if REAL in os.environ:
            return super().splits()
        return _random_splits((8, 4, 4) if TINY in os.environ else (45_000, 5_000, 10_000), (3, 32, 32))


MLPS = ("device:Signals", "device:Codes", "device:Digits", "device:Draws")
RESNET = "device:Pictures"


@dataclass(frozen=True)
class Bench:
    """Where and how much. On a CPU there are no graphs, and everything is as small as can be."""

    device: str

    @property
    def is_tiny(self) -> bool:
        return self.device == "cpu"

    def frame(self, width: int, graphs: bool = True) -> Frame:
        return Frame(width, self.device, graphs and not self.is_tiny)

    @property
    def width(self) -> int:
        return 8 if self.is_tiny else CUDA_WIDTH

    def way(self, task: Task) -> type[Program]:
        way = choose_program(task, self.device)
        assert way is not None, f"{task.name} runs one by one on {self.device}"
        return way

    def wait(self) -> None:
        if not self.is_tiny:
            torch.cuda.synchronize()


def specs_of(
    name: str, count: int, updates: int, optimizer: str = "sgdm", precision: str = "float32"
) -> list[TrialSpec]:
    """Trials with four data orders and as many rates as a grid has, as a study asks for them."""
    base = Setting.of(name, (optimizer,)).trial(optimizer, 1.0, precision)
    base = replace(base, updates=updates, eval_every=updates)
    seeds = [Seeds(index, index % 4, index % 4) for index in range(count)]
    return [replace(base, rate=base.rate * (1 + index % 5) / 5, seeds=seed) for index, seed in enumerate(seeds)]


def framed(specs: Sequence[TrialSpec], frame: Frame, way: type[Program]) -> list[Record]:
    with one_thread(), exact():
        return population._train(planned_task(specs[0]), way, specs, frame)


def seconds_of(records: Sequence[Record]) -> float:
    return sum(record.cost.training_seconds for record in records)


def eager(spec: TrialSpec, bench: Bench, device: str, half: bool, warm_up: int = 10) -> float:
    """Seconds per update of an ordinary loop: forward, backward, optimizer and a rate per update, nothing else.

    The data lie on the device. PyTorch is as it comes: TF32 in convolutions, kernels by heuristics.
    """
    task = find_task(spec.task.name)
    arithmetic = ARITHMETICS["bfloat16" if half else "float32"]
    model = arithmetic.place(task.model(spec.seeds.init)).to(device)
    optimizer = spec.optimizer.build(model.parameters(), spec.rate)
    warm_up = min(warm_up, spec.updates)
    updates = spec.updates + warm_up
    started = time.perf_counter()
    for update, (batch, noise) in enumerate(batches(task, resident_splits(task, device).train, spec.seeds, updates)):
        if update == warm_up:
            bench.wait()
            started = time.perf_counter()
        optimizer.param_groups[0]["lr"] = spec.rate * (1 - update / updates)
        optimizer.zero_grad()
        draws = {name: draw.to(device, non_blocking=True) for name, draw in noise.items()}
        arithmetic.loss(task, model, batch, draws).backward()
        optimizer.step()
    bench.wait()
    return (time.perf_counter() - started) / spec.updates


def worst(found: Sequence[Record], right: Sequence[Record]) -> float:
    """Largest relative difference of training losses; NaN if one side has failed."""
    if any(record.status == "failed" for record in (*found, *right)):
        return float("nan")
    pairs = [(np.array(a.series.train_loss), np.array(b.series.train_loss)) for a, b in zip(found, right, strict=True)]
    return max(float((np.abs(a - b) / np.abs(b)).max()) for a, b in pairs)


def same(found: Sequence[Record], right: Sequence[Record]) -> bool:
    kept = {record.trial_id: canonical(record.outcome) for record in right}
    return all(canonical(record.outcome) == kept[record.trial_id] for record in found)


def check(bench: Bench, tell: Callable[..., None]) -> None:
    """Is it right?"""
    for name in MLPS:
        for optimizer in ("sgdm", "adam"):
            task = find_task(name)
            specs = specs_of(name, 17 if not bench.is_tiny else 5, 41, optimizer)
            way = bench.way(task)
            whole = framed(specs, bench.frame(bench.width), way)
            _told_right(bench, tell, f"{task.name} {optimizer}", specs, whole, way, bench.width, 5)
    updates = 13 if not bench.is_tiny else 2
    for way, precision in ((SideBySide, "float32"), (SideBySideInBfloat16, "bfloat16")):
        specs = specs_of(RESNET, 4 if not bench.is_tiny else 2, updates, precision=precision)
        whole = framed(specs, bench.frame(len(specs)), way)
        _told_right(bench, tell, f"cifar10-resnet20 {precision}", specs, whole, way, 0, 2)


def _told_right(
    bench: Bench,
    tell: Callable[..., None],
    name: str,
    specs: list[TrialSpec],
    whole: list[Record],
    way: type[Program],
    width: int,
    alone: int,
) -> None:
    shuffled = random.Random(0).sample(specs, len(specs))
    groups = [shuffled, specs[: len(specs) - 1], specs[1:3], specs[:1]]
    blind = [same(framed(group, bench.frame(width or len(group)), way), whole) for group in groups]
    eagerly = framed(specs, bench.frame(width or len(specs), graphs=False), way)
    with one_thread():
        trials = [run_trial(spec, None, arithmetic_on(bench.device, spec.precision)) for spec in specs[:alone]]
    here = [run_trial(spec) for spec in specs[:2]] if width else []
    tell(
        "right",
        family=name,
        method=way.method,
        K=len(specs),
        graphs_equal_no_graphs=same(whole, eagerly),
        blind_to_neighbours=all(blind),
        again=same(framed(specs, bench.frame(width or len(specs)), way), whole),
        from_run_trial_here=worst(whole[:alone], trials),
        from_run_trial_on_cpu=worst(whole[: len(here)], here) if here else None,
        statuses=sorted({record.status for record in (*whole, *trials)}),
        errors=[record.error[-300:] for record in trials if record.error],
    )


def resnet(bench: Bench, tell: Callable[..., None], rounds: int) -> None:
    """Seconds per epoch."""
    task = find_task(RESNET)
    per_epoch = len(resident_splits(task, bench.device).train[0]) // task.batch_size
    updates = 100 if not bench.is_tiny else 1
    single = specs_of(RESNET, 1, updates)[0]
    ways: dict[str, Callable[[], float]] = {
        "eager float32": lambda: eager(single, bench, bench.device, half=False),
        "eager bfloat16 channels_last": lambda: eager(single, bench, bench.device, half=True),
        "run_trial bfloat16": lambda: _alone(replace(single, precision="bfloat16"), bench),
    }
    for way, precision in ((SideBySideInBfloat16, "bfloat16"), (SideBySide, "float32")):
        for width in (1, 2, 4, 8) if precision == "bfloat16" else (1, 4):
            for streams in (1, 4) if width in (4, 8) else (1,):
                label = f"replay {precision} × {width}" + (f", {streams} streams" if width > 1 else "")
                ways[label] = lambda way=way, p=precision, w=width, s=streams: _replayed(way, p, w, s, updates, bench)
    seen: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            seen[name].append(_tried(way, name))
            print(f"         {name}: {seen[name][-1]:.6f} s an update and trial", flush=True)
    base = statistics.median(seen["eager float32"])
    for name, values in seen.items():
        middle = statistics.median(values)
        tell("resnet", way=name, seconds_per_epoch=per_epoch * middle, times_eager=base / middle, rounds=len(values))


def _alone(spec: TrialSpec, bench: Bench) -> float:
    record = run_trial(spec, None, arithmetic_on(bench.device, spec.precision))
    return record.cost.training_seconds / spec.updates if record.status != "failed" else float("nan")


def _replayed(way: type[Program], precision: str, width: int, streams: int, updates: int, bench: Bench) -> float:
    """Seconds per trial and update once the graph is there: from runs of two lengths."""
    before, side_by_side.STREAMS = side_by_side.STREAMS, streams
    try:
        lengths = [updates // 5 or 1, updates + (updates // 5 or 1)]
        seconds = [
            seconds_of(framed(specs_of(RESNET, width, length, precision=precision), bench.frame(width), way))
            for length in lengths
        ]
    finally:
        side_by_side.STREAMS = before
    return (seconds[1] - seconds[0]) / (lengths[1] - lengths[0]) / width


def mlp(bench: Bench, tell: Callable[..., None], rounds: int) -> None:
    """Microseconds per trial and update."""
    updates, loops = (2000, 200) if not bench.is_tiny else (4, 4)
    for name in MLPS:
        task = find_task(name)
        way = bench.way(task)
        specs = specs_of(name, bench.width, updates)
        single = replace(specs[0], updates=loops, eval_every=loops)
        short = [replace(spec, updates=updates // 4, eval_every=updates // 4) for spec in specs]
        seen: dict[str, list[float]] = {
            "eager here": [],
            "eager on a core": [],
            "graph": [],
            "whole": [],
            "no graph": [],
        }
        for _ in range(rounds):
            seen["eager here"].append(eager(single, bench, bench.device, half=False))
            with one_thread():
                seen["eager on a core"].append(eager(single, bench, "cpu", half=False))
            long, brief = (seconds_of(framed(each, bench.frame(bench.width), way)) for each in (specs, short))
            seen["whole"].append(long / updates / bench.width)
            seen["graph"].append((long - brief) / (updates - updates // 4) / bench.width)
            no_graph = seconds_of(framed(short, bench.frame(bench.width, graphs=False), way))
            seen["no graph"].append(no_graph / (updates // 4) / bench.width)
        middle = {key: 1e6 * statistics.median(values) for key, values in seen.items()}
        tell(
            "mlp",
            family=task.name,
            method=way.method,
            K=bench.width,
            microseconds={key: round(value, 3) for key, value in middle.items()},
            times_eager_here=middle["eager here"] / middle["graph"],
            times_eager_here_with_capture=middle["eager here"] / middle["whole"],
            times_eager_on_a_core=middle["eager on a core"] / middle["graph"],
        )


def _tried(way: Callable[[], float], name: str) -> float:
    try:
        return way()
    except Exception:
        print(f"{name} failed:\n{traceback.format_exc(limit=-4)}", flush=True)
        return float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="on the CPU, without graphs, as small as can be")
    parser.add_argument("--out", type=Path, default=Path("device.json"))
    parser.add_argument("--data", type=Path, help="data folder with CIFAR-10")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", default="right,resnet,mlp")
    options = parser.parse_args()
    if options.tiny:
        os.environ[TINY] = "1"
    if options.data is not None:
        os.environ |= {REAL: "1", "GLIDESLOPE_DATA": str(options.data.resolve())}
    bench = Bench("cpu" if options.tiny else "cuda")
    torch.set_num_threads(1)
    found: dict[str, Any] = {
        "device": "CPU" if options.tiny else torch.cuda.get_device_name(),
        "processor": platform.processor(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "data": "random" if options.data is None else "CIFAR-10, random",
        "rows": [],
    }
    started = time.perf_counter()

    def tell(part: str, **row: Any) -> None:
        row = {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in row.items()}
        found["rows"].append({"part": part, **row})
        print(
            f"{time.perf_counter() - started:6.1f} s  {part:7} " + "  ".join(f"{k}={v}" for k, v in row.items()),
            flush=True,
        )
        options.out.write_text(json.dumps(found, indent=1))

    print({key: value for key, value in found.items() if key != "rows"}, flush=True)
    rounds = 1 if options.tiny else options.rounds
    parts: dict[str, Callable[[], None]] = {
        "right": lambda: check(bench, tell),
        "resnet": lambda: resnet(bench, tell, rounds),
        "mlp": lambda: mlp(bench, tell, rounds),
    }
    for name in options.parts.split(","):
        try:
            parts[name]()
        except Exception:  # the other parts are worth having
            tell(name, failed=traceback.format_exc(limit=-6))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))  # for the tasks above, by name
    main()
