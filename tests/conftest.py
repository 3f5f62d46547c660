"""One cache folder for the whole run, filled before the workers start: generating MNIST-1D takes seconds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("KERAS_BACKEND", "jax")  # its own default, TensorFlow, is not installed

# The same examples on every machine, and no deadline: a slow core is no failure.
settings.register_profile("glideslope", deadline=None, derandomize=True)
settings.load_profile("glideslope")


def pytest_configure(config: pytest.Config) -> None:
    folder = Path(os.environ.setdefault("GLIDESLOPE_CACHE", str(config.rootpath / ".pytest_cache" / "glideslope")))
    if not hasattr(config, "workerinput") and not folder.exists():
        from glideslope.trials.lookup import find_task

        find_task("mnist1d-mlp").splits()
