"""What the laws say of each library, kept in tests/conformance/expected.json and rendered as docs/conformance.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from conformance_defects import DEFECTS, Defect
from conformance_laws import LAWS, Law
from conformance_libraries import APART, LIBRARIES, OURS
from conformance_runs import Library

ROOT = Path(__file__).parents[2]
EXPECTED = ROOT / "tests" / "conformance" / "expected.json"
PAGE = ROOT / "docs" / "conformance.md"
COMMAND = "python tests/conformance/record.py"

BETWEEN_UPDATES = "a schedule knows shares of the budget: a peak at 30 % of 4 updates lies between two of them"
NO_BUDGET = "the count is in the optimizer's state, and there is no budget beside it to compare"
KNOWN = {
    ("glideslope", "one cycle peaks"): BETWEEN_UPDATES,
    ("glideslope.jax", "one cycle peaks"): BETWEEN_UPDATES,
    ("glideslope.keras", "one cycle peaks"): BETWEEN_UPDATES,
    ("glideslope.jax", "another budget"): NO_BUDGET,
    ("glideslope.keras", "another budget"): "in Keras, `GlideslopeCallback` keeps both, and refuses",
}
"""(library, law) → why ours breaks it. A law that comes to hold leaves this table."""

Cell = dict[str, Any]
"""One law at one library: "kept": names; "broken": name → evidence; "lacking": why there was nothing to ask."""


def measure(law: Law, library: Library) -> Cell:
    """One cell of the table."""
    verdict = law.verdict(library)
    # Where a scheduler says why it cannot be asked, kinds that the library lacks besides are of no interest.
    own = [reason for name, reason in verdict.lacking.items() if name not in law.asks]
    asked = verdict.kept or verdict.broken
    reasons = "" if asked else "; ".join(dict.fromkeys(own or verdict.lacking.values()))
    return {"kept": list(verdict.kept), "broken": verdict.broken, "lacking": reasons}


def measure_libraries(names: Iterable[str]) -> dict[str, Any]:
    """Columns of the table, each with the version it is true of; libraries that are not installed are left out."""
    names = list(names)
    here = APART_NOW in os.environ
    columns = {} if here else _apart([name for name in names if name in APART])
    for name in names:
        if here or name not in APART:
            library = LIBRARIES[name]()
            if library.version is not None:
                columns[name] = {
                    "version": library.version,
                    "laws": {law.name: measure(law, library) for law in LAWS},
                    "defects": {key: show(defect) for key, defect in DEFECTS.items() if defect.library == name},
                }
    return columns


APART_NOW = "CONFORMANCE_APART"
"""Set in the environment of the process that measures `APART`."""


def _apart(names: list[str]) -> dict[str, Any]:
    """As `measure_libraries`, in a process of its own."""
    if not names:
        return {}
    environment = {**os.environ, APART_NOW: "1", "KERAS_BACKEND": "numpy", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(EXPECTED.with_name("record.py")), "--measure", *names]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{', '.join(names)} could not be measured:\n{done.stderr}")
    columns: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return columns


def show(defect: Defect) -> dict[str, str]:
    """What a peer does in the scenario of a defect."""
    evidence = defect.evidence()
    return {"evidence": evidence} if evidence else {"not reproduced": "behaves"}


def load() -> dict[str, Any]:
    """What is recorded; empty where nothing is."""
    found: dict[str, Any] = json.loads(EXPECTED.read_text()) if EXPECTED.exists() else {}
    return found


def differences(measured: Mapping[str, Any], known: Mapping[str, Any]) -> list[str]:
    """What has changed in a column, law by law and scheduler by scheduler."""
    lines = []
    for law, cell in measured["laws"].items():
        was, now = ({"kept": set(c["kept"]), **c["broken"]} for c in (known["laws"][law], cell))
        lines += [
            f"{law}: {name}: was {was.get(name)}, is {now.get(name)}"
            for name in was | now
            if was.get(name) != now.get(name)
        ]
        if cell["lacking"] != known["laws"][law]["lacking"]:
            lines.append(f"{law}: not asked: was {known['laws'][law]['lacking']!r}, is {cell['lacking']!r}")
    for key, shown in measured["defects"].items():
        if shown != known["defects"].get(key):
            lines.append(f"{key}: was {known['defects'].get(key)}, is {shown}")
    return lines


def save(recorded: Mapping[str, Any]) -> None:
    """Write the record, and the page that it renders to."""
    ordered = {name: recorded[name] for name in LIBRARIES if name in recorded}
    EXPECTED.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(render(ordered))


# ---------------------------------------------------------------- the page


def _mark(cell: Cell) -> str:
    if cell["broken"]:
        return f"✗ {len(cell['kept'])}/{len(cell['kept']) + len(cell['broken'])}"
    return "✓" if cell["kept"] else "–"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _evidence(cell: Cell, most: int = 2) -> str:
    """The first pieces of evidence, schedulers with the same one together, and the names of the rest."""
    sharing: dict[str, list[str]] = {}
    for name, evidence in cell["broken"].items():
        sharing.setdefault(evidence, []).append(f"`{name}`")
    told = [f"{', '.join(names)}: {evidence}" for evidence, names in list(sharing.items())[:most]]
    rest = [name for names in list(sharing.values())[most:] for name in names]
    return "; ".join(told) + (f"; likewise {', '.join(rest)}" if rest else "")


def render(recorded: Mapping[str, Any]) -> str:
    """The page, from the record alone."""
    ours = [name for name in recorded if name in OURS]
    peers = [name for name in recorded if name not in OURS]
    lines = [
        "# Conformance: laws × libraries",
        "",
        "Each law is one function, asked of every scheduler of every library below, ours included. Each is shown to",
        "fail on a mutant of our own scheduler (`tests/conformance/test_mutants.py`). ✓: every scheduler that the law",
        "is about keeps it. ✗ 2/6: two of six do. –: nothing to ask, with the reason at the end. A peer's column is",
        "true of the version in its head; a test compares it with what is installed. `glideslope` is its",
        "`BudgetScheduler`; `glideslope.jax` and `glideslope.keras` are the functions of the update count that optax",
        "and Keras take.",
        "",
        f"This page is written by `{COMMAND}`, which measures the libraries that are installed and",
        f"keeps the rest; `{COMMAND} torch timm` measures only those.",
        "",
        _row("law", *recorded),
        _row("---", *[":-:"] * len(recorded)),
        _row("version", *(recorded[name]["version"] for name in recorded)),
        *(_row(law.name, *(_mark(recorded[name]["laws"][law.name]) for name in recorded)) for law in LAWS),
        "",
        "## The laws",
        "",
        *(f"- **{law.name}**: {law.statement}" for law in LAWS),
        "",
        "## Where ours is not the best",
        "",
        *_ours(recorded, ours, peers),
        "",
        "## What breaks, and the number that shows it",
        "",
        "Budgets are in updates, base rates 0.1 unless said otherwise; updates are counted from 0. Where several",
        "schedulers break a law, two are told; `tests/conformance/expected.json` has the numbers of all.",
        "",
    ]
    for name in peers:
        lines += [f"### {name} {recorded[name]['version']}", "", f"`{COMMAND} {name}`", ""]
        for law, cell in recorded[name]["laws"].items():
            if cell["broken"]:
                lines.append(f"- **{law}** ({_mark(cell)[2:]} keep it): {_evidence(cell)}")
        lines.append("")
    lines += ["## Named defects", "", "What made us write this suite, each reproduced, and each a test of ours.", ""]
    for name in peers:
        for key, shown in recorded[name]["defects"].items():
            found = shown.get("evidence")
            said = found if found else f"not reproduced in {name} {recorded[name]['version']}"
            lines.append(f"- {DEFECTS[key].claim} ({name}): {said}")
    lines += ["", "## Nothing to ask", ""]
    for name in recorded:
        reasons: dict[str, list[str]] = {}
        for law, cell in recorded[name]["laws"].items():
            if cell["lacking"]:
                reasons.setdefault(cell["lacking"], []).append(law)
        if reasons:
            said = "; ".join(f"{', '.join(laws)} ({reason})" for reason, laws in reasons.items())
            lines.append(f"- {name}: {said}")
    return "\n".join(lines) + "\n"


def _ours(recorded: Mapping[str, Any], ours: list[str], peers: list[str]) -> list[str]:
    """The laws that ours breaks, why, and the peers that keep them."""
    lines = []
    for law in LAWS:
        breaking = [name for name in ours if recorded[name]["laws"][law.name]["broken"]]
        if not breaking:
            continue
        better = {peer: kept for peer in peers if (kept := recorded[peer]["laws"][law.name]["kept"])}
        said = ", ".join(f"{peer} ({', '.join(f'`{name}`' for name in kept)})" for peer, kept in better.items())
        shown = dict.fromkeys(_evidence(recorded[name]["laws"][law.name]) for name in breaking)
        why = dict.fromkeys(KNOWN[name, law.name] for name in breaking)
        lines.append(
            f"- **{law.name}** ({', '.join(breaking)}): {'; '.join(shown)}. Why: {'; '.join(why)}. "
            + (f"Kept by {said}." if said else "No peer keeps it.")
        )
    return lines or ["Nowhere: ours keeps every law that it is asked."]
