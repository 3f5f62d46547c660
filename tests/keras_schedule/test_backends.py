"""Keras reads KERAS_BACKEND once, when it is imported: a backend is a process. The other tests here run on JAX."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("backend", ["torch", "tensorflow"])
def test_all_of_it_holds_on_other_backends_too(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed; the suite is complete without TensorFlow")
    files = [str(Path(__file__).with_name(f"test_{name}.py")) for name in ("schedule", "callback")]
    command = [str(Path(sys.executable).with_name("pytest")), "-n0", "-q", "-p", "no:cacheprovider", *files]
    environment = os.environ | {"KERAS_BACKEND": backend, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
