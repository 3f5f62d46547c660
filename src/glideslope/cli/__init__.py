"""The `glideslope` command: one verb per file, each parses, calls the library and prints."""

import sys

from glideslope.trials.workers import prepare_workers

VERBS_WITH_WORKERS = ("compare", "tradeoff", "convergence")


def main() -> None:
    """Run the command line."""
    if sys.argv[1:2] and sys.argv[1] in VERBS_WITH_WORKERS and "--help" not in sys.argv:
        prepare_workers()  # they import PyTorch while this process does
    from glideslope.cli.app import main

    main()


__all__ = ["main"]
