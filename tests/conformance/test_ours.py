"""Ours keeps every law, but for those in `KNOWN` with their reason, and is what the page says it is."""

from functools import cache

import pytest
from conformance_laws import LAWS, no_drift
from conformance_libraries import APART, OURS
from conformance_ours import glideslope
from conformance_record import COMMAND, KNOWN, load, measure


@cache
def library(name):
    return OURS[name]()


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
@pytest.mark.parametrize("name", [name for name in OURS if name not in APART])
def test_ours_keeps_the_law(name, law):
    ours = library(name)
    if ours.version is None:
        pytest.skip("not installed")
    cell, recorded = measure(law, ours), load()[name]
    assert bool(cell["broken"]) == ((name, law.name) in KNOWN), cell["broken"]
    assert ours.version.split()[0] == recorded["version"].split()[0], f"recorded for another version: {COMMAND} {name}"
    assert cell == recorded["laws"][law.name], f"the page says otherwise: {COMMAND} {name}"


def test_nothing_accumulates_in_a_million_steps():
    shapes = glideslope().decays
    no_drift(next(offer for offer in shapes if offer.name == "cosine"), "decays", updates=1_000_000)


def test_what_is_recorded_of_ours_breaks_no_more_than_is_known():
    """For the library that is measured apart, beside its peer: test_peers.py compares it with the record."""
    broken = {(name, law) for name in OURS for law, cell in load()[name]["laws"].items() if cell["broken"]}
    assert broken == set(KNOWN)


def test_a_law_that_ours_breaks_can_be_kept():
    recorded = load()
    for _, law in KNOWN:
        keeping = [name for name, column in recorded.items() if column["laws"][law]["kept"]]
        assert keeping, f"{law}: nobody keeps it, so it asks too much"
