"""What an integration raises when the framework it belongs to is not installed."""

from __future__ import annotations


def missing(package: str, extra: str) -> ImportError:
    """The error for a framework that is not there, with the command that brings it.

    Args:
        package: the framework's import name.
        extra: the extra of glideslope that installs it.

    >>> raise missing("lightning", extra="lightning")
    Traceback (most recent call last):
        ...
    ImportError: `lightning` is not installed. Install it with: pip install "glideslope[lightning]"
    """
    return ImportError(
        f'`{package}` is not installed. Install it with: pip install "glideslope[{extra}]"', name=package
    )
