"""docs/conformance.md says what is recorded, and nothing else."""

from conformance_record import COMMAND, PAGE, load, render


def test_the_page_is_rendered_from_the_record():
    assert PAGE.read_text() == render(load()), f"written by hand, or not written: {COMMAND}"
