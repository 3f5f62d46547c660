"""Laws of figures and pages: one look per schedule, one file, no requests, nothing a label can break out of."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import plotly.offline
import pytest

from glideslope.report.figures import (
    KNOWN_STYLES,
    Curve,
    Sensitivity,
    rate_sensitivity,
    schedule_shapes,
    seed_strips,
    styles,
)
from glideslope.report.page import Command, Figure, Provenance, Section, render, write
from glideslope.report.results import Cell
from glideslope.report.tables import Table

NASTY = "</script><script>alert(1)</script>"


def shapes(*names: str) -> go.Figure:
    s = np.linspace(0, 1, 5)
    return schedule_shapes({name: Curve(s, 1 - s) for name in names}, styles(names))


class Elements(HTMLParser):
    """Every start tag with its attributes, and the text of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "script":
            self.scripts[-1] += data


def full_page() -> str:
    return render(
        NASTY,
        NASTY,
        [
            Section(NASTY, [NASTY, Table(NASTY, (NASTY,), ((NASTY,),), NASTY), Provenance({NASTY: NASTY})]),
            Section("figures", [Command(NASTY), Figure(lambda: shapes(NASTY), NASTY), Figure(lambda: shapes("rex"))]),
        ],
    )


def test_plotly_is_inlined_exactly_once_and_only_where_there_is_a_figure():
    library = plotly.offline.get_plotlyjs()
    assert full_page().count(library) == 1
    assert library not in render("t", "", [Section("s", ["text"])])


def test_no_text_can_open_an_element_of_its_own():
    page = full_page().replace(plotly.offline.get_plotlyjs(), "")
    assert NASTY not in page
    elements = Elements(page)
    # plotly.js, the data of two figures, and the page's own script.
    assert [tag for tag, _ in elements.tags].count("script") == 4
    assert not any("alert(1)" in script for script in elements.scripts if '"data"' not in script)


def test_the_embedded_figure_is_the_figure_and_its_label_reads_as_written():
    elements = Elements(full_page())
    data = [json.loads(script) for script in elements.scripts if script.startswith('{"data"')]
    assert len(data) == 2
    assert data[0]["data"][0]["name"] == NASTY.replace("<", "&lt;").replace(">", "&gt;")  # plotly decodes it
    assert data[1]["data"][0]["y"] == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_the_page_asks_the_network_for_nothing():
    elements = Elements(full_page())
    assert not [tag for tag, attributes in elements.tags if {"src", "href"} & set(attributes)]
    policy = next(a["content"] for t, a in elements.tags if t == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert not re.search(r"@import|url\(", full_page().replace(plotly.offline.get_plotlyjs(), ""))


def test_equal_input_gives_an_equal_page_with_unique_ids():
    assert full_page() == full_page()
    ids = [attributes["id"] for _, attributes in Elements(full_page()).tags if "id" in attributes]
    assert ids == ["figure-1", "figure-2"]


def test_a_failed_write_leaves_the_old_page_and_no_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "report.html"
    write(path, "old", "", [])

    def full_disk(self: Path, *args: object, **kwargs: object) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write(path, "new", "", [])
    assert "<h1>old</h1>" in path.read_text()
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_a_page_is_written_into_a_folder_that_does_not_exist_yet(tmp_path: Path):
    write(tmp_path / "a" / "b.html", "title", "", [])
    assert (tmp_path / "a" / "b.html").is_file()


def test_every_schedule_of_a_study_has_a_look_of_its_own():
    names = [*KNOWN_STYLES, "rex+warmup(10%)", "rex(beta=0.9)", "rex @ plateaus(10)", "mine", *map(str, range(12))]
    looks = styles(names)
    assert list(looks) == names
    assert len(set(looks.values())) == len(names)
    assert {looks[f"rex{suffix}"].color for suffix in ("", "+warmup(10%)", "(beta=0.9)")} == {looks["rex"].color}


def test_the_papers_schedules_look_the_same_in_every_study():
    assert styles(["a", "b", "rex"])["rex"] == styles(["rex", "linear"])["rex"]
    assert styles(["rex+warmup(10%)"])["rex+warmup(10%)"] != KNOWN_STYLES["rex"]


def test_more_schedules_than_looks_still_draw():
    assert len(styles([f"s{k}" for k in range(50)])) == 50


def test_a_schedule_has_one_colour_in_all_figures():
    names = ["linear", "mine"]
    looks = styles(names)
    cell = Cell("t", "s", "5%", 0.05, "low", {name: {0: 1.0, 1: 2.0} for name in names})
    lines = {name: Sensitivity([0.1, 0.3], [1.0, 2.0]) for name in names}
    curves = {name: Curve([0, 1], [1, 0]) for name in names}
    for figure in (schedule_shapes(curves, looks), rate_sensitivity({"a": lines}, looks, "loss")):
        assert [trace.line.color for trace in figure.data] == [looks[name].color for name in names]
    strips = seed_strips([cell], looks, names, {"t": "loss"})
    assert [trace.marker.color for trace in strips.data[::2]] == [looks[name].color for name in names]


def test_momentum_gets_a_panel_of_its_own():
    curve = {"one_cycle": Curve([0, 0.5, 1], [0.1, 1, 0.1])}
    momentum = {"one_cycle": Curve([0, 0.5, 1], [0.95, 0.85, 0.95])}
    figure = schedule_shapes(curve, styles(["one_cycle"]), momentum)
    assert [trace.yaxis for trace in figure.data] == ["y", "y2"]
    assert [trace.showlegend for trace in figure.data] == [True, False]


def test_rates_are_sorted_on_a_log_axis_divergence_is_a_gap_and_the_best_is_ringed():
    lines = {"rex": Sensitivity([1.0, 0.1, 0.3], [float("nan"), 40.0, 38.0])}
    for higher, ringed in ((False, 1), (True, 0)):
        figure = rate_sensitivity({"t": lines}, styles(["rex"]), "error, %", higher_is_better=higher)
        trace = figure.data[0]
        assert (list(trace.x), list(trace.y)) == ([0.1, 0.3, 1.0], [40.0, 38.0, None])
        assert figure.layout.xaxis.type == "log"
        assert int(np.argmax(trace.marker.size)) == ringed
        assert ("higher is better" if higher else "lower is better") in figure.layout.yaxis.title.text


def test_spreads_go_with_their_rates_and_none_draws_none():
    lines = {
        "rex": Sensitivity([1.0, 0.1, 0.3], [float("nan"), 40.0, 38.0], [float("nan"), 2.0, 1.0]),
        "linear": Sensitivity([0.1, 0.3], [40.0, 38.0]),
    }
    spread, plain = rate_sensitivity({"t": lines}, styles(["rex", "linear"]), "error, %").data
    assert list(spread.error_y.array) == [2.0, 1.0, None]
    assert plain.error_y.array is None


def test_the_menu_shows_one_cell_at_a_time_with_its_own_axis_title():
    cells = [
        Cell(task, "sgdm", "5%", 0.05, "low", {"rex": {0: 1.0, 1: float("nan")}, "step": {0: 2.0, 1: 3.0}})
        for task in ("a", "b")
    ]
    figure = seed_strips(
        cells, styles(["rex", "step"]), ["step", "rex"], {"a": "error, %", "b": "accuracy"}, {"a": False, "b": True}
    )
    first, second = figure.layout.updatemenus[0].buttons
    assert (first.label, second.label) == ("a / sgdm / 5%", "b / sgdm / 5%")
    assert second.args[0]["visible"] == [not shown for shown in first.args[0]["visible"]]
    assert list(first.args[0]["visible"]) == [trace.visible for trace in figure.data]
    assert second.args[1] == {"xaxis.title.text": "accuracy (higher is better)"}
    # The diverged seed is not a dot, but its row says so.
    assert list(figure.data[2].x) == [1.0]
    assert list(figure.data[2].y) == ["rex (1 diverged)"]


def test_a_figure_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="nothing to draw"):
        seed_strips([], {}, [], {})
