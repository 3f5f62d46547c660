"""Measure the libraries that are installed, and write expected.json and docs/conformance.md.

python tests/conformance/record.py              all that are installed here; the others stay as they are recorded
python tests/conformance/record.py torch timm   only these
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(arguments: list[str]) -> None:
    import torch
    from conformance_libraries import LIBRARIES
    from conformance_record import load, measure_libraries, save

    torch.set_num_threads(1)
    if arguments[:1] == ["--measure"]:
        print(json.dumps(measure_libraries(arguments[1:])))
        return
    if unknown := set(arguments) - set(LIBRARIES):
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}. Known: {', '.join(LIBRARIES)}")
    names = arguments or list(LIBRARIES)
    measured = measure_libraries(names)
    for name in names:
        print(f"{name}: {measured[name]['version'] if name in measured else 'not installed'}")
    save({**load(), **measured})


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
    main(sys.argv[1:])
