"""Charts for browsers: the same points, styles and scales as their pictures."""

import json
from dataclasses import asdict

import pytest

from diffbench.reporting.charts import Chart, Line, Panel, Point
from diffbench.reporting.galleries import Gallery
from diffbench.reporting.plots import COLOURS, MOST_MARKED, style_of
from diffbench.reporting.schedules import BELOW, MOST_GRIDS, Schedule, Schedules


def chart(*lines: Line, **changes) -> Chart:
    return Chart("t", "steps", [Panel("FID", lines)], **changes)


def panel(*lines: Line, **changes):
    return chart(*lines, **changes).plot().panels[0]


def test_each_point_is_there_once_with_its_range_and_what_is_said_of_it():
    points = [Point(1.0, 2.0, 1.5, 2.5, 3), Point(2.0, 1 / 3, seeds=1, note="1 of 2 seeds")]
    lacking = Point(3.0, status="failed", note="loss is not finite")
    (trace,) = panel(Line("vp", [*points, lacking])).traces
    assert (trace.x, trace.y) == ([1.0, 2.0], [2.0, 0.333333])
    assert (trace.low, trace.high) == ([1.5, None], [2.5, None])
    assert trace.legend == "vp (1 of 3 values missing)"
    assert trace.words == [
        "vp\nsteps: 1\nFID: 2 (1.5 to 2.5)\n3 seeds",
        "vp\nsteps: 2\nFID: 0.3333\n1 seed\n1 of 2 seeds",
    ]


def test_a_fitted_line_is_joined_and_its_points_are_not():
    fitted = [Point(0.0, 1.0, 0.5, 1.5), Point(1.0, 2.0)]
    line, points = panel(Line("vp", [Point(0.5, 1.4)], fitted)).traces
    assert (line.style.dash, line.style.marker) == ("-", "")
    assert (points.style.dash, points.style.marker) == ("", "o")
    assert line.style.colour == points.style.colour
    assert line.legend == points.legend
    assert line.low == [0.5, None]


def test_scales_are_the_pictures():
    above = Line("vp", [Point(1.0, 1.0), Point(2.0, 1e-9)])
    assert (panel(above, log="xy", floor=1e-6).log, panel(above, floor=1e-6).bottom) == ("xy", 1e-6)
    assert panel(above).bottom is None
    assert panel(Line("vp", [Point(1.0, -1.0)]), log="xy").log == "x"


def test_a_panel_without_points_says_why():
    shown = panel(Line("vp", [Point(None, status="missing", note="no run")]))
    assert shown.traces == ()
    assert shown.nothing == "nothing to plot\nmissing: no run"


def test_styles_can_be_told_apart_and_many_points_are_not_marked():
    styles = [style_of(i, 3) for i in range(2 * len(COLOURS))]
    for look in (("colour", "dash"), ("colour", "marker"), ("colour", "hollow")):
        assert len({tuple(getattr(style, key) for key in look) for style in styles}) == 14
    assert style_of(0, MOST_MARKED + 1).marker == ""


def test_marks_of_a_schedule_stand_beside_its_curve():
    curve = Line("log SNR", [Point(0.0, 9.0), Point(1.0, -10.0)])
    deep = Line("log SNR, highest frequency", [Point(1.0, -10.0 - 2 * BELOW)])
    grids = {f"heun-{i}": [9.0, None, 0.0] for i in range(MOST_GRIDS)} | {"training": [1.0]}
    shown = Schedules("t", [Schedule(["vp"], [curve, deep], grids)]).plot().panels[0]
    assert shown.title == "vp"
    assert shown.bottom == -10.0 - BELOW
    lowest, highest, *marks = shown.traces
    assert (lowest.legend, highest.legend) == ("lowest frequency", "highest frequency")
    # As many as in the picture, each at one place right of time 1.
    assert len(marks) == MOST_GRIDS
    assert marks[0].y == [9.0, 0.0]
    assert len({x for each in marks for x in each.x}) == MOST_GRIDS
    assert min(x for each in marks for x in each.x) > 1
    assert marks[0].words[0] == "heun-0\nlog SNR: 9"


@pytest.mark.parametrize("schedules", [[], [Schedule(["vp"], [Line("log SNR", [Point(None)])])]])
def test_a_schedule_that_is_not_there_is_no_error(schedules):
    plot = Schedules("t", schedules).plot()
    assert all(panel.nothing for panel in plot.panels)


def test_a_plot_is_json_as_it_is():
    whole = asdict(chart(Line("vp", [Point(1.0, 2.0)]), log="x").plot())
    (trace,) = json.loads(json.dumps(whole, allow_nan=False))["panels"][0]["traces"]
    assert trace["style"] == {"colour": COLOURS[0], "marker": "o", "dash": "-", "hollow": False}


def test_pictures_have_no_plot():
    assert Gallery("t", [], 17).plot() is None
