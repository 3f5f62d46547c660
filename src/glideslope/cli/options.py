"""Options that several verbs have, each said once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

Out = Annotated[Path, typer.Option(help="Folder of the store; run again to go on.")]
Seeds = Annotated[int, typer.Option(help="Reporting seeds, on the test split.")]
TuningSeeds = Annotated[int, typer.Option(help="Tuning seeds, on the validation split.")]
Data = Annotated[Path | None, typer.Option(help="Data folder (or GLIDESLOPE_DATA).")]
Precision = Annotated[
    str, typer.Option(help="float32, or bfloat16: under autocast, not exact; for processors that have it.")
]
DeviceName = Annotated[str, typer.Option(help="cpu, cuda, or auto: CUDA where there is one.")]
ExecutorName = Annotated[str, typer.Option(help="population, processes, in-process, ray or torchrun.")]
Workers = Annotated[int | None, typer.Option(help="Worker processes. Default: one per core, or per GPU.", min=1)]
RayAddress = Annotated[
    str | None, typer.Option(help="Cluster of --executor ray: host:6379, auto or local. Default: auto, else local.")
]
RayResources = Annotated[
    str | None, typer.Option(help="What a Ray worker takes of its node, e.g. GPU=0.25. Default: CPU=1 per rank.")
]
Ranks = Annotated[int | None, typer.Option(help="Processes that share each trial of torchrun or ray.", min=1)]
AsJson = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]
Html = Annotated[Path | None, typer.Option(help="Write one self-contained page.")]
Price = Annotated[str | None, typer.Option(help='Price of the machine, e.g. "2.5/h": costs in money too.')]


def use_data(folder: Path | None) -> None:
    """Look for data in a folder, here and in the workers, which inherit it."""
    if folder is not None:
        os.environ["GLIDESLOPE_DATA"] = str(folder.resolve())
