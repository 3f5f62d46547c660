"""Provenance: where numbers come from. Hardware, versions, commit, command."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from pathlib import Path

from glideslope.trials.run import library_versions
from glideslope.trials.workers import usable_cores


def provenance() -> dict[str, str]:
    """Facts about this machine and this call, as name → text."""
    versions = library_versions()
    # By name, as the store gives them back: a report that is rebuilt is the same page.
    return {
        "command": shlex.join(["glideslope", *sys.argv[1:]]),
        "commit": _commit(),
        "hardware": f"{_processor()}, {usable_cores()} cores used, {platform.system()}",
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    """The commit of the source tree this runs from, marked if it was changed since; "installed package" if none."""
    here = Path(__file__).parent
    try:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
        run = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "installed package"
    return run.stdout.strip()
