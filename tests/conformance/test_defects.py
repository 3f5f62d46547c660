"""Ours is immune to each named defect of a peer, in the very scenario that shows it."""

import pytest
from conformance_defects import DEFECTS
from conformance_laws import Broken
from conformance_record import KNOWN, load

NOT_IMMUNE = {"one cycle misses its peak": KNOWN["glideslope", "one cycle peaks"]}


def case(key):
    reason = NOT_IMMUNE.get(key)
    return pytest.param(key, marks=pytest.mark.xfail(raises=Broken, strict=True, reason=reason) if reason else ())


@pytest.mark.parametrize("key", [case(key) for key in DEFECTS])
def test_ours_is_immune(key):
    DEFECTS[key].ours()


@pytest.mark.parametrize("key", DEFECTS)
def test_the_peer_was_seen_to_have_it(key):
    column = load()[DEFECTS[key].library]
    assert column["defects"][key].get("evidence"), f"not reproduced in {DEFECTS[key].library} {column['version']}"
