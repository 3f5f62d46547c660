"""The `glideslope` command: one verb per file, each parses, calls the library and prints."""

from glideslope.cli.app import main

__all__ = ["main"]
