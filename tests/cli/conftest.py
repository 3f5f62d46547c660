"""Calls of the command line: in this process where that is enough."""

import sys
from dataclasses import dataclass

import pytest

from glideslope.cli import main


@dataclass(frozen=True)
class Called:
    """What a call printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def error(self):
        """The one line a mistake is told in."""
        assert self.code == 2, (self.code, self.out, self.err)
        assert self.out == ""
        assert "Traceback" not in self.err
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, lines
        return lines[0]


@pytest.fixture
def glideslope(monkeypatch, capsys, tmp_path):
    """Call `glideslope` in an empty folder, in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("GLIDESLOPE_DATA", raising=False)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["glideslope", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        printed = capsys.readouterr()
        return Called(code, printed.out, printed.err)

    return call
