"""Budgets: values with a text form that reads back; a limit that its last unit exhausts."""

import pytest

from glideslope import Epochs, Samples, Steps, Tokens, WallClock, parse_budget


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("90ep", Epochs(90)),
        ("2.5ep", Epochs(2.5)),
        ("90ep*391ba", Epochs(90, updates_per_epoch=391)),
        ("500ba", Steps(500)),
        ("1e6sp", Samples(1_000_000)),
        ("2e9tok", Tokens(2_000_000_000)),
        ("45min", WallClock(minutes=45)),
        ("1h30m", WallClock(hours=1, minutes=30)),
        ("1h30min15sec", WallClock(5415)),
        ("3600sec", WallClock(hours=1)),
        (" 1.5 H ", WallClock(hours=1.5)),
        ("0.1sec", WallClock(0.1)),
        ("0.3h", WallClock(1080)),
    ],
)
def test_every_text_form_is_read(text, budget):
    assert parse_budget(text) == budget
    assert parse_budget(budget) is budget
    assert parse_budget(str(budget)) == budget


@pytest.mark.parametrize(
    ("budget", "text"),
    [
        (WallClock(5400), "90min"),
        (WallClock(7200), "2h"),
        (WallClock(61), "61sec"),
        (WallClock(0.1 + 0.2), "0.30000000000000004sec"),
        (Epochs(90), "90ep"),
        (Epochs(0.5, 10), "0.5ep*10ba"),
        (Steps(10**18), "1000000000000000000ba"),
    ],
)
def test_the_text_of_a_budget_is_the_shortest_exact_one(budget, text):
    assert str(budget) == text


@pytest.mark.parametrize(
    "text", ["", "90", "ep", "90 parsecs", "1h30", "ba500", "1.2.3ba", "5ba*3ba", "1h*2ba", "5ba 3ep"]
)
def test_a_text_that_is_no_budget_is_answered_with_the_forms(text):
    with pytest.raises(ValueError, match=rf"cannot read the budget '{text.replace('*', '.')}'\. Write one of \"90ep\""):
        parse_budget(text)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: parse_budget("0ba"), r"`count` is 0, but must satisfy count >= 1\."),
        (lambda: parse_budget("0ep"), r"`count` is 0.0, but must satisfy count > 0\."),
        (lambda: parse_budget("0min"), r"`seconds` is 0.0, but must satisfy seconds > 0\."),
        (lambda: parse_budget("1.5ba"), r"`budget` is '1.5ba', but must satisfy a whole number of updates"),
        (lambda: Steps(-5), r"`count` is -5, but must satisfy count >= 1\."),
        (
            lambda: Epochs(5, updates_per_epoch=0),
            r"`updates_per_epoch` is 0, but must satisfy updates_per_epoch >= 1\.",
        ),
        (lambda: WallClock(minutes=-1), r"`seconds` is -60, but must satisfy|`seconds` is -60.0, but must satisfy"),
        (lambda: WallClock(float("nan")), r"`seconds` is nan, but must satisfy seconds is finite\."),
    ],
)
def test_a_budget_of_nothing_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("per_epoch", [1, 7, 10, 50, 100, 391, 1000])
def test_decimal_shares_of_an_epoch_end_on_a_whole_update(per_epoch):
    # 0.07·100 is 7.000000000000001: without care an eighth update would follow.
    for hundredths in range(1, 1000):
        if hundredths * per_epoch % 100 == 0:
            assert Epochs(hundredths / 100, per_epoch).limit == hundredths * per_epoch // 100


def test_budgets_have_a_ratio_only_in_one_unit():
    assert Steps(1000).ratio(Steps(250)) == 4
    assert Epochs(90).ratio(Epochs(45, 391)) == 2
    assert Epochs(2, 50).ratio(Steps(50)) == 2
    with pytest.raises(ValueError, match=r"90ep counts epochs and 100ba counts updates: they have no ratio\."):
        Epochs(90).ratio(Steps(100))
