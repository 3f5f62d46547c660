"""Peers do what the record says at the recorded versions: one that gets better or worse is a visible difference."""

import pytest
from conformance_defects import DEFECTS
from conformance_laws import LAWS
from conformance_libraries import APART, PEERS
from conformance_record import COMMAND, differences, load, measure_libraries


@pytest.mark.parametrize("names", [*([name] for name in PEERS if name not in APART), list(APART)], ids=", ".join)
def test_a_library_keeps_and_breaks_what_is_recorded(names):
    measured, recorded = measure_libraries(names), load()
    if not measured:
        pytest.skip("not installed")
    for name, column in measured.items():
        known = recorded[name]["version"] if name in recorded else "none"
        if column["version"] != known:
            pytest.skip(f"recorded for version {known}, not {column['version']}: {COMMAND} {name}")
        assert differences(column, recorded[name]) == []


def test_every_law_is_recorded_for_every_library():
    for name, column in load().items():
        assert list(column["laws"]) == [law.name for law in LAWS], name
        assert list(column["defects"]) == [key for key, defect in DEFECTS.items() if defect.library == name], name
