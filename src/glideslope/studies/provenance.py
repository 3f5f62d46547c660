"""Provenance: where numbers come from. Hardware, versions, commit, command."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

from glideslope.trials.run import library_versions


def provenance() -> dict[str, str]:
    """Facts about this machine and this call, as name → text."""
    versions = library_versions()
    return {
        "command": shlex.join(["glideslope", *sys.argv[1:]]),
        "hardware": f"{_processor()}, {len(os.sched_getaffinity(0))} cores used, {platform.system()}",
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
        "commit": _commit(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    """The commit of the source tree this runs from, with a mark if the tree was changed since; "installed package" if none."""
    here = Path(__file__).parent
    try:
        run = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=here, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "installed package"
    return run.stdout.strip()
