"""Schedules: warmup, delay and floor inside the budget, sequences, reflection, schedules cut off."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glideslope import (
    Constant,
    Cosine,
    Cycles,
    Knots,
    Linear,
    Milestones,
    Plan,
    Plateaus,
    Reflected,
    Rex,
    Schedule,
    Sequence,
    Step,
    Steps,
    Tokens,
    Truncated,
    Warmup,
    for_budget,
    parse_schedule,
)
from glideslope.core.catalog import delayed_linear, sgdr, triangular, wsd

SHARES = np.arange(201) / 200


@pytest.mark.parametrize("profile", [Linear(), Rex(0.9), Cosine(), Step()], ids=str)
@pytest.mark.parametrize("warmup", [0.05, 0.1, 0.5])
def test_behind_a_warmup_the_profile_is_read_at_s_minus_w_over_1_minus_w(profile, warmup):
    schedule = Schedule(profile, warmup=warmup)
    for share in SHARES[warmup <= SHARES].tolist():
        assert schedule(share) == pytest.approx(profile((share - warmup) / (1 - warmup)), abs=1e-15)


def test_a_warmup_rises_in_a_straight_line_from_its_start_to_the_profile():
    schedule = Schedule(Linear(), warmup=Warmup(0.2, start=0.05))
    rising = [schedule(share) for share in (0.0, 0.05, 0.1, 0.15, 0.2)]
    assert rising == pytest.approx([0.05, 0.2875, 0.525, 0.7625, 1.0], abs=1e-15)


@pytest.mark.parametrize("updates", [1, 2, 3, 10, 100, 847])
@pytest.mark.parametrize("profile", [Linear(), Rex(), Cosine(), Constant()], ids=str)
def test_the_first_update_of_a_warmup_is_not_wasted_at_rate_0_unless_asked(profile, updates):
    assert Schedule(profile, warmup=0.1).sample(updates)[0] == 0.1
    assert Schedule(profile, warmup=Warmup(0.1, start=0.0)).sample(updates)[0] == 0.0


@given(
    warmup=st.floats(0.001, 0.5),
    delay=st.floats(0, 0.4),
    updates=st.integers(2, 3000),
    plateaus=st.none() | st.integers(1, 30),
)
def test_a_warmup_only_rises_and_the_decay_behind_it_only_falls(warmup, delay, updates, plateaus):
    sampling = Plateaus(plateaus) if plateaus else Plateaus(10**6)
    rates = Schedule(Rex(), sampling, warmup=warmup, delay=delay).sample(updates)
    peak = int(np.argmax(rates))
    assert (np.diff(rates[: peak + 1]) >= 0).all()
    assert (np.diff(rates[peak:]) <= 1e-15).all()
    assert peak <= np.ceil(warmup * updates)


@given(warmup=st.integers(1, 40), updates=st.integers(41, 400))
def test_the_peak_is_reached_on_the_update_that_ends_the_warmup(warmup, updates):
    rates = Schedule(Linear(), warmup=warmup / updates).sample(updates)
    assert rates[warmup] == 1.0
    assert rates[warmup - 1] < 1.0
    assert rates[warmup] >= rates[min(warmup + 1, updates - 1)]


def test_a_delay_holds_the_start_and_stretches_the_rest_to_the_end():
    schedule = Schedule(Cosine(), delay=0.4)
    assert {schedule(share) for share in (0.0, 0.2, 0.4)} == {1.0}
    for share in SHARES[SHARES >= 0.4].tolist():
        assert schedule(share) == pytest.approx(Cosine()((share - 0.4) / 0.6), abs=1e-15)
    assert delayed_linear(0.4) == Schedule(Linear(), delay=0.4)


def test_a_floor_is_what_the_zero_of_the_profile_becomes():
    schedule = Schedule(Linear(), floor=0.1)
    assert [schedule(share) for share in (0.0, 0.5, 1.0)] == [1.0, 0.55, 0.1]


@given(st.floats(0, 1))
def test_a_floor_leaves_the_peak_at_exactly_1_and_the_end_at_exactly_the_floor(floor):
    schedule = Schedule(Linear(), floor=floor)
    assert schedule(0.0) == 1.0
    assert schedule(1.0) == floor


def test_a_schedule_lands_exactly_whatever_stands_before_its_decay():
    for warmup in (0.0, 0.05, 0.1, 1 / 3):
        for delay in (0.0, 0.07, 0.3, 0.6):
            assert Schedule(Rex(0.9), warmup=warmup, delay=delay)(1.0) == 0.0


def test_the_triangle_is_one_minus_the_distance_from_the_middle():
    expected = [1 - abs(2 * share - 1) for share in SHARES]
    np.testing.assert_allclose(triangular()(SHARES), expected, rtol=0, atol=2.3e-16)
    assert triangular()(0.5) == 1.0


@pytest.mark.parametrize(("warmup", "decay"), [(0.05, 0.2), (0.1, 0.5), (0.8, 0.2), (0.9, 0.1), (0.0, 1.0)])
def test_warmup_stable_decay_has_its_three_parts(warmup, decay):
    expected = [min(0.1 + 0.9 * s / warmup if warmup else 1, (1 - s) / decay, 1) for s in SHARES]
    np.testing.assert_allclose(wsd(warmup, decay)(SHARES), expected, rtol=0, atol=2e-15)


def test_warmup_stable_decay_longer_than_the_budget_is_refused():
    with pytest.raises(ValueError, match=r"`warmup \+ decay` is 1.2, but must satisfy warmup \+ decay <= 1\."):
        wsd(0.2, 1.0)


def test_sgdr_restarts_the_cosine_at_even_distances():
    assert sgdr(3) == Cycles.evenly(Cosine(), 3)
    expected = [0.5 * (1 + np.cos(np.pi * (k % 25) / 25)) for k in range(100)]
    np.testing.assert_allclose(sgdr(3).sample(100), expected, rtol=0, atol=1e-13)


def test_a_sequence_stretches_each_part_over_its_own_share():
    sequence = Sequence((Reflected(Linear()), Constant(), Cosine()), at=(0.2, 0.6))
    parts = [s / 0.2 if s < 0.2 else 1.0 if s < 0.6 else Cosine()((s - 0.6) / 0.4) for s in SHARES.tolist()]
    np.testing.assert_allclose(sequence(SHARES), parts, rtol=0, atol=1e-15)


@pytest.mark.parametrize("updates", [*range(3, 200), 847])
def test_the_next_part_of_a_sequence_begins_on_its_very_update(updates):
    update = np.arange(updates)
    part = (update * 3 >= updates).astype(int) + (update * 10 >= 7 * updates)
    sequence = Sequence([Knots((0, level), (1, level)) for level in (0.1, 0.2, 0.3)], at=(1 / 3, 0.7))
    np.testing.assert_allclose(sequence.sample(updates), (part + 1) / 10, rtol=1e-15)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Sequence((Linear(),)), r"`parts` is .* at least two parts\."),
        (lambda: Sequence((Linear(), Rex()), at=(0.2, 0.4)), r"`at` is \(0.2, 0.4\), but must satisfy 1 boundaries\."),
        (lambda: Sequence((Linear(), Rex()), at=(1.0,)), r"`at` is 1.0, but must satisfy 0 < boundary < 1\."),
        (lambda: Sequence((Linear(), Rex(), Rex()), at=(0.5, 0.2)), r"boundaries strictly increasing\."),
        (lambda: Truncated(Linear(), of=0.5), r"`of` is 0.5, but must satisfy of >= 1"),
    ],
)
def test_parts_that_do_not_fit_the_budget_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_reflected_is_the_schedule_backwards():
    for inner in (Linear(), Rex(), Schedule(Cosine(), warmup=0.1)):
        np.testing.assert_allclose(Reflected(inner)(SHARES), inner(SHARES[::-1]), rtol=0, atol=2e-15)


def test_a_truncated_schedule_is_the_beginning_of_the_full_one():
    full = Schedule(Rex(), warmup=0.1)
    np.testing.assert_allclose(Truncated(full, of=4).sample(100), full.sample(400)[:100], rtol=0, atol=1e-15)
    assert Truncated(Step(), of=1) != Step()
    np.testing.assert_array_equal(Truncated(Step(), of=1).sample(40), Step().sample(40))


def test_a_truncated_schedule_learns_the_budget_of_the_run_wherever_it_stands():
    inner = Truncated(Linear(), of=Steps(1000))
    told = Truncated(Linear(), of=4.0)
    assert for_budget(inner, Steps(250)) == told
    assert for_budget(Plan({"lr": Sequence((Schedule(inner, warmup=0.1), Cycles(inner, 0.5)))}), Steps(250)) == Plan(
        {"lr": Sequence((Schedule(told, warmup=0.1), Cycles(told, 0.5)))}
    )
    untouched = Plan({"lr": Schedule(Linear(), Milestones(0.5))})
    assert for_budget(untouched, Steps(250)) is untouched


def test_a_truncated_schedule_that_does_not_know_its_share_says_how_to_tell_it():
    with pytest.raises(
        ValueError, match=r"was made for 1000ba and does not know .* Call `for_budget\(schedule, budget\)"
    ):
        parse_schedule("truncated(linear, 1000ba)")(0.5)
    with pytest.raises(ValueError, match=r"1000ba counts updates and 5tok counts tokens: they have no ratio\."):
        for_budget(Truncated(Linear(), of=Steps(1000)), Tokens(5))
