"""Find a rate: a range test on a task, the same twice, with reasons."""

import math

import pytest

from glideslope.studies.find_rate import find_rate


def test_it_is_a_pure_function_of_its_arguments():
    first, again = (find_rate("digits-mlp", num_updates=30, seed=3) for _ in range(2))
    assert first == again
    assert first != find_rate("digits-mlp", num_updates=30, seed=4)


def test_it_finds_an_edge_and_rates_below_it():
    found = find_rate("digits-mlp", "sgdm", 1e-5, 1e3, num_updates=120, with_accuracy=True)
    assert found.diverged
    suggested = {rule: suggestion.rate for rule, suggestion in found.suggestions.items()}
    assert all(1e-4 < rate < 10 for rate in suggested.values())
    assert len(found.accuracies) == len(found.losses)
    assert max(found.accuracies) > 60  # per cent: digits are learned on the way


def test_left_to_itself_it_takes_an_epoch_or_a_hundred_updates():
    found = find_rate("mnist1d-mlp", stop=1e-4)
    assert len(found.rates) == 100
    assert (found.rates[0], found.rates[-1]) == pytest.approx((1e-6, 1e-4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"with_accuracy": True}, "the metric 'loss' is no accuracy"),
        ({"num_updates": 1}, "num_updates >= 2"),
        ({"start": 1.0, "stop": 0.1}, "0 < start < stop"),
        ({"spacing": "cubic"}, "unknown spacing 'cubic'"),
        ({"optimizer": "sgd"}, "unknown optimizer"),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(ValueError, match=message):
        find_rate("digits-vae", **arguments)


def test_the_figure_marks_what_was_suggested():
    found = find_rate("digits-mlp", "sgdm", 1e-5, 1e3, num_updates=120, with_accuracy=True)
    figure = found.figure()
    marks = {shape.name.split(":")[0]: shape.x0 for shape in figure.layout.shapes}
    assert marks == {rule: suggestion.rate for rule, suggestion in found.suggestions.items()}
    smoothed = next(trace for trace in figure.data if trace.name == "smoothed")
    assert [loss for loss in smoothed.y if loss is not None] == [x for x in found.smoothed if math.isfinite(x)]
