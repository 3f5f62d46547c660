"""Architecture: a room imports only from the floors below it."""

import shutil
import subprocess
from pathlib import Path


def test_the_direction_of_imports_is_kept():
    command = shutil.which("lint-imports")
    assert command, "import-linter is part of the dev extra"
    done = subprocess.run(
        [command, "--no-cache"], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
