"""Each law fails on a mutant of our scheduler that has the defect it is about, and each mutant fails nothing else."""

from dataclasses import replace

import pytest
from conformance_laws import LAWS, Broken
from conformance_mutants import MUTANTS

LAW = {law.name: law for law in LAWS}
SLOW = {"restarts are exact", "no drift", "peak at any T", "rebuilding"}
"""Laws asked only of mutants that break them: the sixty runs of each are most of the matrix."""
WITHOUT_MUTANT = {"one cycle peaks": "ours breaks it as it is"}


def with_one_of_each_kind(library):
    """All of ours are one formula behind one scheduler: what breaks one breaks them all."""
    one = {kind: getattr(library, kind)[:1] for kind in ("decays", "steps", "warmups", "one_cycles")}
    return replace(library, **one)


def test_every_law_has_a_mutant():
    assert {mutant.law for mutant in MUTANTS.values()} | set(WITHOUT_MUTANT) == set(LAW)


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=lambda mutant: f"{mutant.law}, {mutant.defect}")
def test_a_mutant_is_caught_by_its_law_and_by_no_other_than_it_says(mutant):
    library = with_one_of_each_kind(mutant.library())
    with pytest.raises(Broken):
        LAW[mutant.law].check(library)
    asked = set(LAW) - SLOW - set(WITHOUT_MUTANT) | {mutant.law, *mutant.also}
    broken = {name for name in asked if LAW[name].verdict(library).broken}
    assert broken == {mutant.law, *mutant.also}
