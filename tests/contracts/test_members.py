"""The contracts run over every registered member: here is the law that nobody is left out."""

import pytest

from glideslope.core.value import members


@pytest.mark.parametrize("kind", ["profile", "sampling", "schedule"])
def test_every_registered_member_has_examples(kind, examples):
    assert set(examples[kind]) == set(members(kind))
    for name, given in examples[kind].items():
        assert given
        assert {type(example).spec_name for example in given} == {name}
