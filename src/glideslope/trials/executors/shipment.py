"""What other machines need to run this process's trials: this package, and the user's own modules."""

from __future__ import annotations

import site
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

PACKAGE = "glideslope"


@contextmanager
def shipment(names: Iterable[str]) -> Iterator[list[str]]:
    """Folders and files that belong on the import path of a machine that has the same libraries, but none of our code.

    The package itself goes with its metadata, since tasks are found by their entry points and records tell the version.

    Args:
        names: of tasks and optimizers; those that are import paths, "package.module:attribute", bring their modules.
    """
    with tempfile.TemporaryDirectory() as folder:
        found = distribution(PACKAGE)
        metadata = Path(folder) / f"{PACKAGE}-{found.version}.dist-info"
        metadata.mkdir()
        facts = f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {found.version}\n"
        (metadata / "METADATA").write_text(facts, encoding="utf-8")
        (metadata / "entry_points.txt").write_text(found.read_text("entry_points.txt") or "", encoding="utf-8")
        modules = {name.partition(":")[0].partition(".")[0] for name in names if ":" in name} - {PACKAGE}
        paths = [*_places(PACKAGE), metadata, *own_code(sorted(modules))]
        yield [str(path) for path in paths]


def own_code(modules: Iterable[str]) -> list[Path]:
    """Where modules lie, together with those beside them that were imported so far: they may need them.

    What lies where pip installs is left out. It is for whoever sets the other machines up, as PyTorch is.

    Args:
        modules: names of top-level modules and packages.
    """
    found = {place for module in modules for place in _places(module) if not _is_installed(place)}
    beside = {place.parent for place in found}
    for name, module in list(sys.modules.items()):
        if "." not in name and name != "__main__":
            found |= {place for place in _places_of(module) if place.parent in beside}
    return sorted(found)


def _places(name: str) -> list[Path]:
    """The folders of a package, the file of a module; none if there is no such module: its trials will say so."""
    if name in sys.modules:
        return _places_of(sys.modules[name])
    spec = find_spec(name)
    if spec is None:
        return []
    return _existing(spec.submodule_search_locations or [spec.origin])


def _places_of(module: ModuleType) -> list[Path]:
    return _existing(getattr(module, "__path__", None) or [getattr(module, "__file__", None)])


def _existing(paths: Iterable[str | None]) -> list[Path]:
    return [Path(path).resolve() for path in paths if path and (path.endswith(".py") or Path(path).is_dir())]


def _is_installed(place: Path) -> bool:
    folders = [sysconfig.get_path("stdlib"), *site.getsitepackages(), site.getusersitepackages()]
    return any(place.is_relative_to(Path(folder).resolve()) for folder in folders)
