"""Bad specs: each error names what is wrong, where, and what would be right; none is anything but a ValueError."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from glideslope import Linear, Plan, Plateau, Policy, Schedule, parse, parse_plan, parse_policy, parse_schedule
from glideslope.core.plan import Preamble
from glideslope.core.spec import parse_call, to_text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cosin", r"unknown schedule 'cosin'\. Did you mean 'cosine'\? Known: .*linear.*rex"),
        ("linear @ plateau(4)", r"unknown sampling 'plateau'\. Did you mean 'plateaus'\?"),
        (
            "linear + warmpu(10%)",
            r"unknown modifier 'warmpu'\. Did you mean 'warmup'\? Known: delay, floor, preamble, warmup\.",
        ),
        ("linear | platau", r"unknown controller 'platau'\. Did you mean 'plateau'\?"),
        ("rex(bta=0.9)", r"unknown argument of rex 'bta'\. Did you mean 'beta'\? Known: beta\."),
        ("linear | plateau(patiense=5)", r"unknown argument of plateau 'patiense'\. Did you mean 'patience'\?"),
        ("rex(beta=1.5)", r"`beta` is 1.5, but must satisfy 0 <= beta < 1\."),
        ("rex(0.9", r"expected '\)' at column 8 of 'rex\(0.9'\."),
        ("rex)", r"did not expect '\)' at column 4 of"),
        ("rex rex", r"did not expect 'rex' at column 5 of"),
        ("rex ; linear", r"cannot read at column 4 of"),
        ("rex @ ", r"ended too early at column 7 of"),
        ("rex + ", r"expected a modifier at column 7 of"),
        ("rex + delay(0.1) + delay(0.2)", r"delay stands twice at column 20 of"),
        ("rex(beta=0.1, beta=0.2)", r"beta stands twice at column 15 of"),
        ("step(factor=0.1, (0.5,))", r"an argument without a name stands behind one with a name at column 18 of"),
        ("rex + delay(0.1, 0.2)", r"delay takes one share of the budget at column 7 of"),
        ("rex + delay(linear)", r"`delay` is Linear\(\), but must be a number\."),
        ("rex @ 5", r"what stands behind '@' in 'rex @ 5' must be a sampling, e\.g\. plateaus\(4\)\."),
        ("5 + floor(0.1)", r"in '5 \+ floor\(0.1\)' a modifier stands behind 5, which is not a schedule\."),
        ("one_cycle + warmup(10%)", r"modifies a plan for lr and momentum; modify the schedules inside plan\(…\) one"),
        ("plan(linear)", r"plan takes hyperparameter=schedule pairs, e\.g\. plan\(lr=linear\)\."),
        ("plan(lr=5)", r"`courses` is 5, but must be a Course\."),
        ("plan(lr=one_cycle)", r"`courses` is Plan\(.*\), but must be a Course\."),
        ("5 | plateau", r"what stands before '\|' in '5 \| plateau' must be a schedule or plan\."),
        ("plateau | plateau", r"has two controllers: constant \| plateau brings its own\."),
        ("linear | linear", r"unknown controller 'linear'\. Known: arc, clamped, greedy, plateau\."),
        ("plateaus(4)", r"is a plateaus, not a schedule, plan or policy\."),
        ("(rex, linear)", r"is a tuple, not a schedule, plan or policy\."),
        ("500ba", r"is a steps, not a schedule, plan or policy\."),
        ("linear + warmup(1.2.3%)", r"1\.2\.3%"),
        ("truncated(linear, 1.2.3ba)", r"cannot read the budget '1\.2\.3ba'\. Write one of"),
        ("rex(1, 2)", r"rex: .*takes from 1 to 2 positional arguments but 3 were given"),
        ("exponential(1e999)", r"`gamma` is inf, but must satisfy gamma is finite\."),
        ("", r"ended too early at column 1 of ''\."),
    ],
)
def test_a_bad_spec_is_answered_by_what_and_where(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)


WORDS = ["rex", "linear", "step", "plan", "cycles", "warmup", "plateaus", "plateau", "milestones", "lr", "beta", "true"]
PIECES = [*WORDS, *"()=,@+|%.", "0.5", "10%", "3", "-1", "500ba", "1h30m", "1e3", " ", "λ", "*"]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text(max_size=20))
@example("linear + warmup(1.%)")
@example("plan(lr=linear) @ plateaus(3)")
def test_no_text_raises_anything_but_a_value_error(text):
    try:
        value = parse(text)
    except ValueError:
        return
    assert parse_policy(str(value)) == parse_policy(value)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        (" rex( beta = 0.9 )@plateaus( 4 )+warmup( 10% ) ", "rex(0.9) @ plateaus(4) + warmup(0.1)"),
        ("linear+warmup(5%, start=1%)", "linear + warmup(0.05, 0.01)"),
        ("linear + floor(0.1) + delay(20%) + warmup(0.1)", "linear + warmup(0.1) + delay(0.2) + floor(0.1)"),
        ("(linear)", "linear"),
        ("knots((0, 1), (1, 0),)", "knots((0, 1), (1, 0))"),
        ("exponential(gamma=-3)", "exponential"),
        ("step((0.5,), 0.2)", "step(milestones=(50%,), factor=0.2)"),
    ],
)
def test_texts_that_mean_the_same_give_equal_values(text, same):
    assert parse(text) == parse(same)


def test_a_modifier_binds_to_what_stands_before_it_and_parentheses_regroup():
    assert parse("linear @ plateaus(4) + delay(50%)") == Schedule(Linear(), parse_sampling("plateaus(4)"), delay=0.5)
    assert parse("(linear + delay(50%)) @ plateaus(4)") == Schedule(
        Schedule(Linear(), delay=0.5), parse_sampling("plateaus(4)")
    )


def parse_sampling(text):
    return parse(f"linear @ {text}").sampling


def test_the_plateau_of_the_papers_tables_is_a_policy_and_behind_a_bar_a_controller():
    assert parse("plateau(patience=10)") == Policy(parse_plan("constant"), Plateau(patience=10))
    assert parse("rex | plateau(patience=10)") == Policy(parse_plan("rex"), Plateau(patience=10))
    assert parse("plateau + warmup(10%)") == Policy(parse_plan("constant + warmup(10%)"), Plateau())


def test_values_pass_through_the_parsers_untouched():
    for parse_any in (parse_schedule, parse_plan, parse_policy):
        assert parse_any(Linear()) == parse_any("linear")
    assert parse_plan(Plan({"lr": Linear()})) == parse_plan("linear")


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (
            parse_schedule,
            "one_cycle",
            r"'one_cycle' is a plan and does more than scale one value; a schedule is needed",
        ),
        (parse_schedule, "plateau", r"'plateau' is a policy and does more than scale one value"),
        (parse_plan, "plateau", r"'plateau' needs a controller \(plateau\); a plan is needed here\."),
        (parse_call, "sgdm(0.9)", r"the arguments of sgdm need names: sgdm\(argument=0.9\)\."),
        (parse_call, "5", r"cannot read '5'\. Write a name, or name\(argument=value, …\)\."),
        (parse_call, "sgdm(lr=0.1", r"cannot read 'sgdm\(lr=0.1'"),
    ],
)
def test_what_is_too_much_for_its_place_is_refused(read, text, message):
    with pytest.raises(ValueError, match=message):
        read(text)


@pytest.mark.parametrize(
    "text", ["rex", "rex + warmup(10%)", "one_cycle", "constant | plateau(patience=5)", "rex | greedy"]
)
def test_a_preamble_goes_in_front_of_anything(text):
    schedule, bar, controller = text.partition(" | ")
    policy = parse_policy(f"{schedule} + preamble(2ep, 1e-5, 1e-4){bar}{controller}")
    plain = parse_policy(text)
    assert (policy.plan.courses, policy.controller) == (plain.plan.courses, plain.controller)
    assert policy.plan.preamble == Preamble("2ep", 1e-5, 1e-4)
    assert parse_policy(to_text(policy)) == policy


def test_a_plan_with_a_preamble_takes_no_other():
    with pytest.raises(ValueError, match="puts a preamble in front of a plan that has one"):
        parse_policy("plan(lr=rex, preamble=preamble(1ep, 0, 0.1)) + preamble(2ep, 0, 0.1)")
