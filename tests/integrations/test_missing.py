"""An integration without its framework says how to install it, and `import glideslope` loads none of them."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from glideslope.integrations.missing import missing

ROOT = Path(__file__).parents[2]
INTEGRATIONS = sorted(path.stem for path in (ROOT / "src/glideslope/integrations").glob("[!_]*.py"))
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
NEED_NOTHING = {"missing", "timm"}

PROGRAM = """
import importlib, json, sys

integrations, extras = json.loads(sys.argv[1])
import glideslope
loaded = [name for name in sys.modules if name.partition(".")[0] in extras or name == "glideslope.integrations"]
for name in extras:
    sys.modules[name] = None  # what Python keeps for a module that is not to be found
said = {}
for name in integrations:
    try:
        importlib.import_module(f"glideslope.integrations.{name}")
    except ImportError as error:
        said[name] = str(error)
print(json.dumps([loaded, said]))
"""


@pytest.fixture(scope="module")
def found():
    """What `import glideslope` loaded, and what each integration said: (names, name → message)."""
    hidden = sorted(set(INTEGRATIONS) & set(EXTRAS))
    command = [sys.executable, "-W", "error", "-c", PROGRAM, json.dumps([INTEGRATIONS, hidden])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_importing_the_library_loads_no_integration(found):
    assert found[0] == []


def test_every_integration_has_an_extra_or_needs_none():
    assert set(INTEGRATIONS) - NEED_NOTHING == {"accelerate", "lightning", "transformers"}
    assert set(INTEGRATIONS) - NEED_NOTHING <= set(EXTRAS)


@pytest.mark.parametrize("name", sorted(set(INTEGRATIONS) - NEED_NOTHING))
def test_an_integration_without_its_framework_names_the_extra(found, name):
    assert found[1][name] == f'`{name}` is not installed. Install it with: pip install "glideslope[{name}]"'


def test_the_others_need_no_framework(found):
    assert not NEED_NOTHING & set(found[1])


def test_the_error_carries_the_name_of_the_module():
    error = missing("lightning", extra="lightning")
    assert isinstance(error, ImportError)
    assert error.name == "lightning"
