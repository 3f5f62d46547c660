"""Laws of the figures of tradeoff curves: what is drawn, and what a button or the slider shows, is what is so."""

import dataclasses
import math

import numpy as np
import plotly.graph_objects as go
import pytest

from glideslope.core.curve import Band, Curve, frontier
from glideslope.report.fidelity import Fidelity
from glideslope.report.figures import styles
from glideslope.report.page import Figure, Section, render
from glideslope.report.panel import Estimate
from glideslope.report.tradeoff_figures import (
    BIAS_BAR,
    BIAS_EDGE,
    cheapest,
    cost_bars,
    fidelity_panel,
    frontier_figure,
    target_slider,
    tradeoff_curves,
)
from glideslope.report.tradeoff_tables import Cost

SEPARATE = Curve((100, 200, 400), {"accuracy": Band((0.8, 0.9, 0.94))}, (10.0, 20.0, 40.0), "separate")
MIXUP = Curve(
    (100, 200, 400),
    {"accuracy": Band((0.7, 0.92, 0.96), (0.6, 0.9, 0.95), (0.8, 0.94, 0.97))},
    (12.0, 24.0, 36.0),
    "mixup",
)
LOOKS = styles(["separate", "mixup", "<b>"])


def lines(figure: go.Figure) -> dict[str, go.Scatter]:
    return {trace.name: trace for trace in figure.data if trace.mode == "lines+markers"}


def bands(figure: go.Figure) -> list[go.Scatter]:
    return [trace for trace in figure.data if trace.fill == "toself"]


def test_the_lines_are_the_curves_and_the_bands_their_intervals():
    figure = tradeoff_curves([SEPARATE, MIXUP], LOOKS, "accuracy", True)
    assert list(lines(figure)["mixup"].x) == [100, 200, 400]
    assert list(lines(figure)["mixup"].y) == [0.7, 0.92, 0.96]
    assert lines(figure)["mixup"].line.color == LOOKS["mixup"].color
    none, band = bands(figure)
    assert not none.x  # without intervals there is no band
    assert list(band.x) == [100, 200, 400, 400, 200, 100]
    assert list(band.y) == [0.8, 0.94, 0.97, 0.95, 0.9, 0.6]
    assert figure.layout.xaxis.type == "log"
    assert figure.layout.yaxis.title.text == "accuracy (higher is better)"


def test_a_diverged_point_is_a_gap_in_the_line_and_in_the_band():
    values, lows, highs = (0.7, 0.8, math.nan, 0.9, 0.92), (0.6, 0.7, math.nan, 0.8, 0.9), (0.8, 0.9, math.nan, 1, 1)
    curve = Curve((1, 2, 4, 8, 16), {"accuracy": Band(values, lows, highs)}, name="mixup")
    figure = tradeoff_curves([curve], LOOKS, "accuracy", True)
    assert list(lines(figure)["mixup"].y) == [0.7, 0.8, None, 0.9, 0.92]
    assert list(bands(figure)[0].x) == [1, 2, 2, 1, None, 8, 16, 16, 8]
    assert list(bands(figure)[0].y) == [0.8, 0.9, 0.7, 0.6, None, 1, 1, 0.9, 0.8]


def test_a_button_changes_what_the_budget_is_counted_in():
    figure = tradeoff_curves([SEPARATE, MIXUP], LOOKS, "accuracy", True, price_per_hour=36.0)
    (menu,) = figure.layout.updatemenus
    assert [button.label for button in menu.buttons] == ["updates", "seconds", "money"]
    for button, wanted in zip(menu.buttons, ([100, 200, 400], [12, 24, 36], [0.12, 0.24, 0.36]), strict=True):
        traces, layout = button.args
        assert [len(traces["x"]), len(traces["y"])] == [len(figure.data)] * 2
        assert traces["x"][3] == pytest.approx(wanted)  # band and line of the first, band and line of the second
        assert traces["x"][2] == pytest.approx(wanted + wanted[::-1])
        assert traces["y"][3] == [0.7, 0.92, 0.96]
        assert len(layout["xaxis.tickvals"]) == len(layout["xaxis.ticktext"]) >= 2
    titles = [button.args[1]["xaxis.title.text"] for button in menu.buttons]
    assert titles == ["budget, updates", "training time, s", "training cost, at 36 per hour"]
    assert figure.layout.xaxis.title.text == titles[0]


def test_points_are_drawn_by_cost_even_if_a_longer_budget_took_less_time():
    curve = Curve((100, 200), {"loss": Band((2.0, 1.0))}, (20.0, 10.0), "mixup")
    seconds = tradeoff_curves([curve], LOOKS, "loss", False).layout.updatemenus[0].buttons[1].args[0]
    assert (seconds["x"][1], seconds["y"][1]) == ([10.0, 20.0], [1.0, 2.0])


def test_what_was_not_measured_cannot_be_chosen():
    untimed = dataclasses.replace(MIXUP, seconds=())
    assert not tradeoff_curves([SEPARATE, untimed], LOOKS, "accuracy", True, 2.5).layout.updatemenus
    (menu,) = tradeoff_curves([SEPARATE, MIXUP], LOOKS, "accuracy", True).layout.updatemenus
    assert [button.label for button in menu.buttons] == ["updates", "seconds"]


def test_the_cheapest_way_is_the_least_of_the_curves_own_answers():
    answer = cheapest([SEPARATE, MIXUP], "accuracy", 0.92, "separate")
    assert (answer.curve, answer.cost) == ("mixup", 200)
    assert answer.reference_cost == SEPARATE.cost_to_reach(accuracy=0.92).value
    assert answer.saving == pytest.approx(1 - 200 / (200 * math.sqrt(2)))
    assert (answer.low, answer.high) == (
        MIXUP.cost_to_reach(accuracy=0.92).low,
        MIXUP.cost_to_reach(accuracy=0.92).high,
    )
    assert cheapest([SEPARATE, MIXUP], "accuracy", 0.8, "separate").curve == "separate"
    beyond = cheapest([SEPARATE, MIXUP], "accuracy", 0.95, "separate")
    assert (beyond.curve, math.isnan(beyond.reference_cost), math.isnan(beyond.saving)) == ("mixup", True, True)
    assert cheapest([SEPARATE, MIXUP], "accuracy", 0.99, "separate").curve == ""
    in_seconds = cheapest([SEPARATE, MIXUP], "accuracy", 0.92, "separate", axis="seconds")
    assert (in_seconds.curve, in_seconds.cost) == ("mixup", 24.0)


def test_of_equally_cheap_ways_it_is_the_reference():
    twin = dataclasses.replace(SEPARATE, name="mixup")
    assert cheapest([twin, SEPARATE], "accuracy", 0.9, "separate").curve == "separate"


def test_every_place_of_the_slider_says_the_cheapest_way_and_what_it_saves():
    figure = target_slider([SEPARATE, MIXUP], LOOKS, "accuracy", True, "separate", num_targets=14)
    (slider,) = figure.layout.sliders
    targets = np.linspace(0.7, 0.96, 14)
    assert len(slider.steps) == 14
    for step, target in zip(slider.steps, targets, strict=True):
        (state,) = step.args
        answer = cheapest([SEPARATE, MIXUP], "accuracy", float(target), "separate")
        assert state["shapes[0].y0"] == state["shapes[0].y1"] == target
        assert state["shapes[1].visible"] == (answer.curve != "")
        if answer.curve:
            assert state["shapes[1].x0"] == state["shapes[1].x1"] == answer.cost
            assert f"<b>{answer.curve}</b><br>" in state["annotations[0].text"]
        assert ("saves" in state["annotations[0].text"]) == (answer.curve == "mixup" and answer.saving >= 0)
    texts = [step.args[0]["annotations[0].text"] for step in slider.steps]
    assert texts[11] == "accuracy ≥ 0.92: <b>mixup</b><br>200 updates [181, 264]; saves 29 % against separate"
    assert texts[-1] == "accuracy ≥ 0.96: <b>mixup</b><br>400 updates [317, ∞]; separate is not known to reach it"


def test_the_slider_begins_where_it_stands():
    figure = target_slider([SEPARATE, MIXUP], LOOKS, "accuracy", True, "separate")
    (slider,) = figure.layout.sliders
    (state,) = slider.steps[slider.active].args
    assert figure.layout.shapes[0].y0 == state["shapes[0].y0"]
    assert figure.layout.shapes[1].x0 == state["shapes[1].x0"]
    assert figure.layout.annotations[0].text == state["annotations[0].text"]


def test_lower_may_be_better():
    slow = Curve((100, 400), {"loss": Band((2.0, 1.0))}, name="separate")
    fast = Curve((100, 400), {"loss": Band((1.5, 0.5))}, name="mixup")
    figure = target_slider([slow, fast], LOOKS, "loss", False, "separate", num_targets=4)
    texts = [step.args[0]["annotations[0].text"] for step in figure.layout.sliders[0].steps]
    assert texts[1] == "loss ≤ 1: <b>mixup</b><br>200 updates; saves 50 % against separate"
    assert texts[0] == "loss ≤ 0.5: <b>mixup</b><br>400 updates; separate is not known to reach it"


def test_the_frontier_holds_what_nothing_beats_and_the_rest_is_grey():
    choices = frontier([SEPARATE, MIXUP], "accuracy", True)
    figure = frontier_figure(choices, LOOKS, "accuracy", True)
    by_name = {trace.name: trace for trace in figure.data}
    assert list(zip(by_name["frontier"].x, by_name["frontier"].y, strict=True)) == [
        (100, 0.8),
        (200, 0.92),
        (400, 0.96),
    ]
    assert set(zip(by_name["dominated"].x, by_name["dominated"].y, strict=True)) == {
        (100, 0.7),
        (200, 0.9),
        (400, 0.94),
    }
    assert by_name["dominated"].marker.color == "#8a8a8a"
    assert list(by_name["separate"].x) == [100]
    assert list(by_name["mixup"].x) == [200, 400]
    assert by_name["mixup"].marker.color == LOOKS["mixup"].color


def result(task: str, estimator: str, bias: Estimate) -> Fidelity:
    nothing = Estimate(math.nan, math.nan, math.nan)
    return Fidelity(
        task=task,
        estimator=estimator,
        reference="separate",
        higher_is_better=True,
        num_seeds=8,
        num_variants=4,
        num_budgets=6,
        num_diverged=0,
        mean_gap=nothing,
        bias_seed_sd=bias,
        uncorrected_bias_seed_sd=bias.value,
        coverage=nothing,
        num_intervals=0,
        num_interval_runs=0,
        attainable_coverage=math.nan,
        agreement=math.nan,
        num_significant_pairs=0,
        rank_correlation=math.nan,
        cosine_similarity=math.nan,
        improvements=(),
        planned_cost=1.0,
        measured_cost=math.nan,
    )


def test_the_panel_shows_each_bias_with_its_interval_beside_the_bar():
    looks = styles(["cyclic", "raw"])
    some = [
        result("a", "cyclic", Estimate(0.4, 0.1, 0.9)),
        result("a", "raw", Estimate(7.0, 6.0, 8.0)),
        result("b", "cyclic", Estimate(1.0, math.nan, math.nan)),
    ]
    figure = fidelity_panel(some, looks)
    cyclic, raw = figure.data
    assert list(cyclic.x) == [0.4, 1.0]
    assert list(cyclic.error_x.array) == [pytest.approx(0.5), None]
    assert list(cyclic.error_x.arrayminus) == [pytest.approx(0.3), None]
    assert [round(y) for y in cyclic.y] == [0, 1]
    assert list(figure.layout.yaxis.ticktext) == ["a", "b"]
    # Off the scale: at the edge, as an arrow with its value.
    assert (list(raw.x), list(raw.text), list(raw.marker.symbol)) == ([BIAS_EDGE], ["7.0"], ["triangle-right"])
    assert cyclic.y[0] != raw.y[0]
    (bar,) = figure.layout.shapes
    assert (bar.x0, bar.x1) == (0, BIAS_BAR)
    assert figure.layout.xaxis.range[1] >= BIAS_EDGE


def test_the_bars_are_the_costs():
    figure = cost_bars([Cost("separate", 1.97, 2.1), Cost("cyclic", 1.0, math.nan)])
    planned, measured = figure.data
    assert (list(planned.x), list(measured.x)) == ([1.97, 1.0], [2.1, None])
    assert list(planned.y) == ["separate", "cyclic"]
    assert list(measured.text) == ["2.10", ""]
    assert {shape.x0 for shape in figure.layout.shapes} == {1.0, 1.97}


def test_names_are_shown_as_written_and_the_page_takes_every_figure():
    curve = dataclasses.replace(MIXUP, name="<b>")
    slider = target_slider([curve], LOOKS, "accuracy", True, "<b>")
    assert "<b>&lt;b&gt;</b>" in slider.layout.annotations[0].text
    figures = [
        tradeoff_curves([curve], LOOKS, "accuracy", True, 2.5),
        slider,
        frontier_figure(frontier([curve], "accuracy", True), LOOKS, "accuracy", True),
        fidelity_panel([result("<b>", "<b>", Estimate(0.4, 0.1, 0.9))], LOOKS),
        cost_bars([Cost("<b>", 1.0, 1.0)]),
    ]
    page = render("t", "", [Section("s", [Figure(lambda figure=figure: figure) for figure in figures])])
    assert page.count("data-figure=") == len(figures)


def test_errors_say_what_there_is():
    with pytest.raises(ValueError, match=r"the curve 'mixup' has no 'loss'. It has: accuracy\."):
        tradeoff_curves([MIXUP], LOOKS, "loss", False)
    with pytest.raises(ValueError, match=r"there is no curve 'separate' to compare with\. There are: mixup"):
        target_slider([MIXUP], LOOKS, "accuracy", True, "separate")
    dead = Curve((100,), {"accuracy": Band((math.nan,))}, name="mixup")
    with pytest.raises(ValueError, match="no curve has a finite accuracy"):
        target_slider([dead], LOOKS, "accuracy", True, "mixup")
    for draw in (
        lambda: tradeoff_curves([], LOOKS, "accuracy", True),
        lambda: target_slider([], LOOKS, "accuracy", True, "mixup"),
        lambda: frontier_figure([], LOOKS, "accuracy", True),
        lambda: fidelity_panel([], LOOKS),
        lambda: cost_bars([]),
    ):
        with pytest.raises(ValueError, match="there is nothing to draw"):
            draw()
